"""A2N: Chen, Gu, Zhang, "Attention in Attention Network for Image Super-Resolution" (2021).

    python train_a2n.py --scale 2 --batch_size 32

trains on DIV2K and writes out/a2n. The paper's million steps reach 38.06 dB on Set5 x2.
"""

import common.start

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.bands import map_in_bands
from common.data.load import load_pictures
from common.hub import load_matching
from common.losses import WINDOW, charbonnier, frequency, ms_ssim
from common.network import SuperResolutionModel
from common.options import Arguments, real
from common.training.optimizer import clip_gradients, make_optimizer
from common.training.parser import training_parser
from common.training.recipe import fixed_recipe, modern
from common.training.run import Run
from common.training.schedule import learning_rate_factor

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "charbonnier": charbonnier,
    "mse": F.mse_loss,
}


class PixelAttention(nn.Module):
    """Weighs every value of a feature map by a sigmoid of all channels at its pixel."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_features, num_features, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        return features * torch.sigmoid(self.conv(features))


class AttentionBranch(nn.Module):
    """Pixel attention with a gate of its own receptive field (section 3.3 of the paper)."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(num_features, num_features, kernel_size=3, padding=1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(num_features, num_features, kernel_size=1),
            nn.Sigmoid(),
        )
        self.value = nn.Conv2d(num_features, num_features, kernel_size=3, padding=1, bias=False)
        self.out = nn.Conv2d(num_features, num_features, kernel_size=3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(self.value(features) * self.gate(features))


class AttentionInAttentionBlock(nn.Module):
    """An attention branch and a plain one, weighed against each other by what the image shows.

    Args:
        num_features: Channels.
        plain_kernel_size: Side of the kernel of the plain branch: 3 in A2N, 1 in A2N-M.
    """

    def __init__(self, num_features: int, plain_kernel_size: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(num_features, num_features, kernel_size=1, bias=False)
        self.branch_scores = nn.Sequential(
            nn.Linear(num_features, num_features // 4, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(num_features // 4, 2, bias=False),
        )
        self.attention_branch = AttentionBranch(num_features)
        self.plain_branch = nn.Conv2d(
            num_features,
            num_features,
            plain_kernel_size,
            padding=plain_kernel_size // 2,
            bias=False,
        )
        self.conv_out = nn.Conv2d(num_features, num_features, kernel_size=1, bias=False)

    def forward(self, features: Tensor, window: int = 0, means: Tensor | None = None) -> Tensor:
        x = F.leaky_relu(self.conv_in(features), 0.2)
        if means is None:
            means = local_means(x, window) if window else x.mean(dim=(2, 3), keepdim=True)
        scores = self.branch_scores(means.movedim(1, -1))
        # Two weights that sum to 1, so the weighted sum is an interpolation by the first of them.
        weight = F.softmax(scores / 30, dim=-1)[..., 0].unsqueeze(1).to(x.dtype)
        if window:
            height, width = x.shape[2:]
            weight = F.interpolate(weight, scale_factor=CELL, mode="bilinear")[
                :, :, :height, :width
            ]
        x = torch.lerp(self.plain_branch(x), self.attention_branch(x), weight)
        return features + self.conv_out(F.leaky_relu(x, 0.2))

    def in_bands(self, features: Tensor, rows: int) -> None:
        """Overwrites the features of a whole picture by the result, band by band."""
        means = sum(
            F.leaky_relu(self.conv_in(band), 0.2).mean(dim=(2, 3), keepdim=True) * band.shape[2]
            for band in features.split(rows, dim=2)
        )
        block = partial(self, means=means / features.shape[2])
        map_in_bands(block, [features], rows, margin=2, out=features)


CELL = 8  # pixels of LR


def local_means(features: Tensor, window: int) -> Tensor:
    """Means over windows around the cells of a grid, for pictures larger than those trained on.

    A window that the border cuts off is the mean of what is left of it.

    Args:
        features: Shape (N, C, h, w).
        window: Side in pixels; in effect an odd multiple of `CELL`, which is about as large.

    Returns:
        Shape (N, C, ceil(h / CELL), ceil(w / CELL)).
    """
    cells = F.avg_pool2d(features, CELL, ceil_mode=True)
    radius = round(window / CELL) // 2
    return F.avg_pool2d(cells, 2 * radius + 1, 1, radius, count_include_pad=False)


class Upsampler(nn.Sequential):
    """Nearest-neighbor enlargement by `factor`, two convolutions with pixel attention between."""

    def __init__(self, in_features: int, num_features: int, factor: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=factor, mode="nearest"),
            nn.Conv2d(in_features, num_features, kernel_size=3, padding=1),
            PixelAttention(num_features),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(num_features, num_features, kernel_size=3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        )


class A2N(SuperResolutionModel):
    """Attention-in-attention network.

    Args:
        scale: 2, 3 or 4; x4 enlarges twice by 2.
        variant: "a2n", or "a2n-m" with 1x1 convolutions in the plain branches.
        num_features: Channels before the enlargement.
        num_upsampler_features: Channels after it.
        num_blocks: Attention-in-attention blocks.

    A block weighs its branches by a mean of the whole picture, or, where `attention_window` is not
    0, by those of parts of it. With parts as large as the training patches, tiles can be as the
    whole but for rounding.
    """

    def __init__(
        self,
        scale: int,
        variant: str = "a2n",
        num_features: int = 40,
        num_upsampler_features: int = 24,
        num_blocks: int = 16,
    ) -> None:
        super().__init__([scale])
        if scale not in (2, 3, 4) or variant not in ("a2n", "a2n-m"):
            raise ValueError(
                f"there is no {variant} x{scale}; there are a2n and a2n-m, x2, x3 and x4"
            )
        plain_kernel_size = {"a2n": 3, "a2n-m": 1}[variant]
        factors = {2: [2], 3: [3], 4: [2, 2]}[scale]

        self.conv_first = nn.Conv2d(3, num_features, kernel_size=3, padding=1)
        self.blocks = nn.ModuleList(
            AttentionInAttentionBlock(num_features, plain_kernel_size) for _ in range(num_blocks)
        )
        self.conv_trunk = nn.Conv2d(num_features, num_features, kernel_size=3, padding=1)
        channels = [num_features] + [num_upsampler_features] * len(factors)
        self.upsamplers = nn.Sequential(*map(Upsampler, channels, channels[1:], factors))
        self.conv_last = nn.Conv2d(num_upsampler_features, 3, kernel_size=3, padding=1)
        self.attention_window = 0

    @property
    def margin(self) -> int:
        """Pixels of LR, with an `attention_window` of 64, measured with the authors' weights.

        The convolutions see 36. The windows of 16 blocks reach much farther, but pixels beyond 128
        changed no value by more than 6e-5 / 255 (n = 4 pictures), about as much as float32 rounds.
        """
        return 128

    def forward(self, lr: Tensor) -> Tensor:
        """RGB in [0, 1], (N, 3, h, w) -> (N, 3, h * scale, w * scale), not clamped."""
        first = features = self.conv_first(lr)
        for block in self.blocks:
            features = block(features, self.attention_window or 0)
        return self.reconstruct(first, features, lr)

    def reconstruct(self, first: Tensor, features: Tensor, lr: Tensor) -> Tensor:
        features = first + self.conv_trunk(features)
        residual = self.conv_last(self.upsamplers(features))
        return residual + F.interpolate(lr, scale_factor=self.scale, mode="bilinear")

    def in_bands(self, lr: Tensor, rows: int) -> Tensor:
        """`forward` in bands of so many rows, with one map of features of the whole picture.

        Each block goes over all bands before the next, since it needs the mean of the picture.
        """
        if self.attention_window:
            return super().in_bands(lr, rows)
        features = map_in_bands(self.conv_first, [lr], rows, margin=1)
        for block in self.blocks:
            assert isinstance(block, AttentionInAttentionBlock)
            block.in_bands(features, rows)
        return map_in_bands(
            lambda lr, features: self.reconstruct(self.conv_first(lr), features, lr),
            [lr, features],
            rows,
            margin=4,
            scale=self.scale,
        )


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser, recipe = training_parser(
        __file__,
        __doc__,
        "Defaults are the paper's.",
        scale=2,
        lr_patch_size=64,
        batch_size=32,
        learning_rate=5e-4,
        max_train_steps=1_000_000,
        lr_scheduler="step",
        lr_step_size=200_000,
        lr_gamma=0.5,
        recipes={
            "modern": modern(1e-3),
            "cpu": fixed_recipe(
                batch_size=8,
                patch_size=96,
                max_train_steps=900,
                optimizer="muon",
                learning_rate=5e-3,
                lr_scheduler="cosine",
                lr_warmup_steps=50,
            ),
        },
    )
    recipe.add_argument(
        "--variant",
        choices=["a2n", "a2n-m"],
        default="a2n",
        help="a2n: the network of the paper's title; a2n-m: the paper's smaller one, by a fifth",
    )
    recipe.add_argument(
        "--loss",
        choices=list(LOSSES),
        default="l1",
        help="l1: mean absolute error, the paper's; charbonnier: the same, smooth around zero; "
        "mse: squared error",
    )
    for name, what in (("ms_ssim", "1 - MS-SSIM"), ("fft", "difference of the Fourier transforms")):
        recipe.add_argument(
            f"--{name}_weight",
            type=real(least=0),
            default=0.0,
            help=f"weight of the {what}, which is added to --loss",
        )
    parser.checks.append(check_patch_size)
    return parser.parse_args(argv)


def check_patch_size(args: argparse.Namespace) -> Iterator[str]:
    if args.ms_ssim_weight and args.patch_size < WINDOW:
        yield (
            f"--patch_size {args.patch_size} is smaller than the window of --ms_ssim_weight, "
            f"{WINDOW}. Give larger patches, or leave it out."
        )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    run = Run(args)  # checks the machine, claims --output_dir, seeds
    accelerator = run.accelerator

    model = A2N(args.scale, args.variant).to(memory_format=torch.channels_last)
    if args.init_from and not run.checkpoint:
        run.print(load_matching(model, args.init_from, args.revision).summary)
    pictures = load_pictures(args, [args.scale], say=run.print)  # decoded once, then mapped
    optimizer = make_optimizer(args, model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(args))
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    run.begin(model, pictures, [optimizer], [scheduler])  # or resumes

    for lr, hr in run.batches():  # the batches of the steps that are left
        with accelerator.accumulate(model):
            sr = model(lr)
            loss = LOSSES[args.loss](sr, hr)
            if args.ms_ssim_weight:
                loss = loss + args.ms_ssim_weight * ms_ssim(sr, hr)
            if args.fft_weight:
                loss = loss + args.fft_weight * frequency(sr, hr)
            accelerator.backward(loss)
            clip_gradients(args, accelerator, model)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        run.end_step(  # logs, validates and saves when due
            loss=loss, learning_rate=scheduler.get_last_lr()[0]
        )
    run.finish()


if __name__ == "__main__":
    main()
