"""SRCNN: Dong, Loy, He, Tang, "Image Super-Resolution Using Deep Convolutional Networks" (2016).

    python train_srcnn.py --scale 3 --train_data_dir T91

trains on the 91 images of the paper, but for nine to validate on, and writes out/srcnn. It takes 40
minutes on one CPU core and reaches 32.54 dB on Set5 x3; the paper's is 32.39.
"""

import common.start

import argparse
import re
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Literal

import torch
from torch import Tensor, nn

from common.data.load import load_pictures
from common.hub import load_matching
from common.images.color import luma, replace_luma
from common.images.resize import imresize
from common.losses import euclidean
from common.network import SuperResolutionModel
from common.options import Arguments, Parser, whole
from common.training.optimizer import add_optimizer_arguments, clip_gradients, make_optimizer
from common.training.options import add_run_arguments
from common.training.recipe import add_recipe_arguments, fixed_recipe, modern
from common.training.run import Run
from common.training.schedule import learning_rate_factor


def padding_border(kernel_sizes: str) -> int:
    """Pixels at the border of a picture in whose result padding has a part."""
    return sum(int(size) // 2 for size in kernel_sizes.split("-"))


class SRCNN(SuperResolutionModel):
    """Three convolutions on the luma of the bicubic enlargement; chroma stays bicubic.

    Args:
        scale: Factor of the enlargement.
        kernel_sizes: Sides of the kernels of the three layers, odd: 9-1-5, 9-3-5 or 9-5-5 in the
            paper.
        padding_mode: Padding of the convolutions. The authors pad by replication when they test.
        mean: Value subtracted from luma before the convolutions and added after them. With 0, as
            in the paper, filters whose weights sum to less than 0 begin dead: no bright pixel
            passes their ReLU.
    """

    def __init__(
        self,
        scale: int,
        kernel_sizes: str = "9-1-5",
        padding_mode: Literal["replicate", "zeros"] = "replicate",
        mean: float = 0.5,
    ) -> None:
        super().__init__([scale])
        self.mean, self.kernel_sizes = mean, kernel_sizes
        if not re.fullmatch(r"\d*[13579](-\d*[13579]){2}", kernel_sizes):
            raise ValueError(f"kernel_sizes must be three odd numbers as 9-1-5, not {kernel_sizes}")
        first, second, third = (int(size) for size in kernel_sizes.split("-"))
        self.layers = nn.Sequential(
            nn.Conv2d(1, 64, first, padding=first // 2, padding_mode=padding_mode),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 32, second, padding=second // 2, padding_mode=padding_mode),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 1, third, padding=third // 2, padding_mode=padding_mode),
        )
        for name, parameter in self.named_parameters():
            nn.init.normal_(parameter, std=0.001 if name.endswith("weight") else 0)

    @property
    def margin(self) -> int:
        """Pixels of LR: 2 for the enlargement, and what the convolutions see of SR."""
        return 2 + ceil(padding_border(self.kernel_sizes) / self.scale)

    def forward(self, lr: Tensor) -> Tensor:
        """RGB in [0, 1], (N, 3, h, w) -> (N, 3, h * scale, w * scale), not clamped."""
        enlarged = imresize(lr, self.scale)
        return replace_luma(enlarged, self.enhance_luma(luma(enlarged)))

    def enhance_luma(self, y: Tensor) -> Tensor:
        """The luma of an enlarged picture, (N, 1, h, w) -> luma of the same shape."""
        return self.layers(y - self.mean) + self.mean


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    recipe = add_recipe_arguments(
        parser,
        "The paper's, but for Adam with a falling rate and small batches. The paper's SGD is "
        "--optimizer sgd --lr_scheduler step --lr_gamma 1 --lr_warmup_steps 0, and takes 10^8 "
        "patches.",
        batch_size=16,
        lr_scheduler="cosine",
        lr_step_size=50_000,
        lr_gamma=0.1,
        lr_warmup_steps=2000,  # weights of 0.001 do not survive steps of 0.005
        recipes={"modern": modern(5e-3), "cpu": fixed_recipe(max_train_steps=20_000)},
    )
    recipe.add_argument(
        "--scale", type=whole(least=0), choices=range(2, 9), default=3, help="factor of enlargement"
    )
    recipe.add_argument(
        "--kernel_sizes",
        choices=["9-1-5", "9-3-5", "9-5-5"],
        default="9-1-5",
        help="sides of the kernels of the three layers; larger ones score better and take longer",
    )
    recipe.add_argument(
        "--patch_size",
        type=whole(),
        help="side of an HR patch in pixels, a multiple of the scale (default: 33, or the next "
        "smaller multiple)",
    )
    add_optimizer_arguments(
        parser,
        recipe,
        learning_rate=5e-3,
        sgd_learning_rate=1e-4,
        of=" of the first two layers; a tenth of it for the last",
    )
    add_run_arguments(parser, output_dir="out/srcnn", max_train_steps=100_000)
    parser.checks.append(check_patch_size)
    args = parser.parse_args(argv)
    args.patch_size = args.patch_size or 33 - 33 % args.scale
    return args


def check_patch_size(args: argparse.Namespace) -> Iterator[str]:
    border = padding_border(args.kernel_sizes)
    if args.patch_size and args.patch_size <= 2 * border:
        yield (
            f"--patch_size {args.patch_size} leaves nothing between borders of {border} pixels, "
            f"where padding has a part in the result of {args.kernel_sizes}; at least 33 is usual."
        )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    # Checks the machine, claims --output_dir, seeds. (In the layout that PyTorch 2.15 would choose,
    # it compiles replicated padding wrong.)
    run = Run(args, compile_options={"layout_optimization": False})
    accelerator = run.accelerator

    model = SRCNN(args.scale, args.kernel_sizes)
    if not args.compile:
        model = model.to(memory_format=torch.channels_last)
    if args.init_from and not run.checkpoint:
        run.print(load_matching(model, args.init_from, args.revision).summary)
    pictures = load_pictures(args, [args.scale], say=run.print)  # decoded once, then mapped
    layers = [
        {"params": model.layers[:-1].parameters(), "lr": args.learning_rate},
        {"params": model.layers[-1].parameters(), "lr": args.learning_rate / 10},
    ]
    optimizer = make_optimizer(args, layers)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(args))
    # The paper trains without padding: only the pixels count that see nothing but the patch.
    border = padding_border(args.kernel_sizes)
    inner = slice(border, args.patch_size - border)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    run.begin(model, pictures, [optimizer], [scheduler])  # or resumes

    for lr, hr in run.batches():  # the batches of the steps that are left
        with accelerator.accumulate(model):
            sr = model(lr)
            loss = euclidean(luma(sr)[..., inner, inner], luma(hr)[..., inner, inner])
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
