"""VDSR: Kim, Lee, Lee, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks".

    python train_vdsr.py --scale 2 3 4 --train_data_dir 291

trains one network for three scales on the 291 images of the paper (CVPR 2016), but for ten to
validate on, and writes out/vdsr. The paper's Set5 is 37.53, 33.66 and 31.35 dB; 30,000 steps with
--batch_size 16 --mixed_precision bf16, two hours on a CPU, reach 37.05, 33.24 and 30.92.
"""

import common.start

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor, nn

from common.data.load import load_pictures
from common.hub import load_matching
from common.images.color import luma, replace_luma
from common.images.resize import imresize
from common.losses import euclidean
from common.network import SuperResolutionModel
from common.options import Arguments, Parser, real, whole
from common.training.optimizer import add_optimizer_arguments, clip_gradients, make_optimizer
from common.training.options import add_run_arguments
from common.training.recipe import add_recipe_arguments, fixed_recipe, modern
from common.training.run import Run
from common.training.schedule import learning_rate_factor


def bicubic_border(scale: int) -> int:
    """Pixels at the border of an enlarged patch that differ from those of the enlarged picture."""
    return 3 * scale // 2


class VDSR(SuperResolutionModel):
    """A stack of 3x3 convolutions that adds detail to the luma of the bicubic enlargement.

    Args:
        scales: Factors of enlargement, all by the same weights.
        num_layers: Convolutions, at least 2.
        num_features: Channels between them.
        bias: Whether the convolutions have biases.
    """

    def __init__(
        self,
        scales: Sequence[int],
        num_layers: int = 20,
        num_features: int = 64,
        bias: bool = True,
    ) -> None:
        super().__init__(scales)
        channels = [1] + [num_features] * (num_layers - 1) + [1]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            convolution = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=bias)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])  # none after the last convolution

    @property
    def margin(self) -> int:
        """Pixels of LR: 2 for the enlargement, and 1 of SR for each convolution."""
        convolutions = sum(isinstance(layer, nn.Conv2d) for layer in self.layers)
        return 2 + ceil(convolutions / self.scale)

    def forward(self, lr: Tensor, scale: int | None = None) -> Tensor:
        """RGB in [0, 1], (N, 3, h, w) -> (N, 3, h * scale, w * scale), not clamped.

        It can enlarge by any `scale`, but was trained for `scales`.
        """
        enlarged = imresize(lr, scale or self.scale)
        return replace_luma(enlarged, self.enhance_luma(luma(enlarged)))

    def enhance_luma(self, y: Tensor) -> Tensor:
        """The luma of an enlarged picture, (N, 1, h, w) -> luma of the same shape."""
        return y + self.layers(y)


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    recipe = add_recipe_arguments(
        parser,
        "The paper's, but for patches of 48, which all scales divide, instead of 41, one scale a "
        "batch, and Adam with a falling rate. The paper's SGD is --optimizer sgd --lr_scheduler "
        "step --lr_warmup_steps 0.",
        batch_size=64,
        lr_scheduler="cosine",
        lr_step_size=2490,
        lr_gamma=0.1,
        lr_warmup_steps=100,
        recipes={
            "modern": modern(1e-3),
            "cpu": fixed_recipe(batch_size=16, max_train_steps=30_000),
        },
    )
    recipe.add_argument(
        "--scale",
        type=whole(least=0),
        nargs="+",
        choices=range(2, 9),
        default=[2, 3, 4],
        help="factors of enlargement, all by the same network; a batch has one of them",
    )
    recipe.add_argument(
        "--num_layers", type=whole(least=2, most=1000), default=20, help="number of convolutions"
    )
    recipe.add_argument(
        "--no_bias", action="store_true", help="leave out the biases of the convolutions"
    )
    recipe.add_argument(
        "--patch_size",
        type=whole(),
        default=48,
        help="side of an HR patch in pixels, a multiple of every scale",
    )
    add_optimizer_arguments(
        parser,
        recipe,
        learning_rate=4e-4,
        sgd_learning_rate=0.1,
        weight_decay=1e-4,
    )
    recipe.add_argument(
        "--clip_theta",
        type=real(above=0),
        only_with=("optimizer", "sgd"),
        help="with sgd: the elements of a gradient are clipped to +-theta / learning rate, so that "
        "it adds at most theta to a weight; the paper does not give theta (default: 2e-5)",
    )
    add_run_arguments(parser, output_dir="out/vdsr", max_train_steps=9960)
    parser.checks.append(check_options)
    args = parser.parse_args(argv)
    args.scale = sorted(set(args.scale))
    if args.optimizer == "sgd" and args.clip_theta is None:
        args.clip_theta = 2e-5
    return args


def check_options(args: argparse.Namespace) -> Iterator[str]:
    border = bicubic_border(max(args.scale))
    if args.patch_size <= 2 * border:
        yield (
            f"--patch_size {args.patch_size} leaves nothing between borders of {border} pixels, "
            f"where bicubic x{max(args.scale)} lacks its neighbors; 48 is usual."
        )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    run = Run(args)  # checks the machine, claims --output_dir, seeds
    accelerator = run.accelerator

    model = VDSR(args.scale, args.num_layers, bias=not args.no_bias)
    model = model.to(memory_format=torch.channels_last)
    if args.init_from and not run.checkpoint:
        run.print(load_matching(model, args.init_from, args.revision).summary)
    pictures = load_pictures(args, args.scale, say=run.print)  # decoded once, then mapped
    optimizer = make_optimizer(args, model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(args))
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    run.begin(model, pictures, [optimizer], [scheduler])  # or resumes

    for lr, hr in run.batches():  # the batches of the steps that are left
        with accelerator.accumulate(model):
            scale = hr.shape[-1] // lr.shape[-1]
            sr = model(lr, scale)
            # Nearer to the border, bicubic lacks pixels that it has inside of a picture.
            inner = slice(bicubic_border(scale), -bicubic_border(scale))
            loss = euclidean(luma(sr)[..., inner, inner], luma(hr)[..., inner, inner])
            accelerator.backward(loss)
            is_sgd = args.optimizer == "sgd"
            rate = max(scheduler.get_last_lr()[0], 1e-20)  # or the quotient overflows
            clip_value = args.clip_theta / rate if is_sgd else None
            clip_gradients(args, accelerator, model, clip_value)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        run.end_step(  # logs, validates and saves when due
            loss=loss, learning_rate=scheduler.get_last_lr()[0]
        )
    run.finish()


if __name__ == "__main__":
    main()
