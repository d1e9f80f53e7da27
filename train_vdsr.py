"""VDSR: Kim, Lee, Lee, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks".

    accelerate launch train_vdsr.py --scale 2 3 4 --train_data_dir 291

trains one network for three scales on the 291 images of the paper (CVPR 2016), but for ten to
validate on, and writes out/vdsr. The paper's Set5 is 37.53, 33.66 and 31.35 dB; 30,000 steps with
--batch_size 16 --mixed_precision bf16, two hours on a CPU, reach 37.05, 33.24 and 30.92.
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from common.arguments import (
    add_recipe_arguments,
    add_run_arguments,
    learning_rate_factor,
    positive_int,
)
from common.color import luma, replace_luma
from common.hub import SuperResolutionModel
from common.losses import euclidean
from common.resize import imresize
from common.run import Run


def bicubic_border(scale: int) -> int:
    """How far from its border the enlargement of a patch differs from that of the whole picture."""
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
        """In pixels of LR: 2 for the enlargement, and 1 of SR for each convolution."""
        convolutions = sum(isinstance(layer, nn.Conv2d) for layer in self.layers)
        return 2 + ceil(convolutions / self.scale)

    def forward(self, lr: Tensor, scale: int | None = None) -> Tensor:
        """RGB in [0, 1], (N, 3, h, w) -> (N, 3, h * scale, w * scale), not clamped.

        It can enlarge by any `scale`, but was trained for `scales`.
        """
        enlarged = imresize(lr, scale or self.scale)
        y = luma(enlarged)
        return replace_luma(enlarged, y + self.layers(y))

    @classmethod
    def from_published(cls, tensors: dict[str, Tensor], scales: Sequence[int]) -> "VDSR":
        """The network with weights that are numbered by convolution, `layers.0` to `layers.19`."""
        weights = {}
        for name, tensor in tensors.items():
            layers, number, kind = name.split(".")
            weights[f"{layers}.{2 * int(number)}.{kind}"] = tensor
        num_layers = sum(name.endswith(".weight") for name in tensors)
        num_features = len(tensors["layers.0.weight"])
        model = cls(scales, num_layers, num_features, bias="layers.0.bias" in tensors)
        model.load_state_dict(weights)
        return model.eval()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    recipe = add_recipe_arguments(
        parser,
        "The paper's, but for patches of 48, which all scales divide, instead of 41, one scale a "
        "batch, and Adam with a falling rate. The paper's SGD is --optimizer sgd --lr_scheduler "
        "step --lr_warmup_steps 0.",
        batch_size=64,
        max_train_steps=9960,
        lr_scheduler="cosine",
        lr_step_size=2490,
        lr_gamma=0.1,
        lr_warmup_steps=100,
    )
    default = "(default: %(default)s)"
    recipe.add_argument(
        "--scale",
        type=int,
        nargs="+",
        choices=range(2, 9),
        default=[2, 3, 4],
        help="all that the network is for; a batch is of one of them (default: 2 3 4)",
    )
    recipe.add_argument(
        "--num_layers", type=positive_int, default=20, help=f"convolutions {default}"
    )
    recipe.add_argument("--no_bias", action="store_true", help="convolutions without biases")
    recipe.add_argument(
        "--patch_size",
        type=positive_int,
        default=48,
        help=f"side of an HR patch in pixels, a multiple of every scale {default}",
    )
    recipe.add_argument(
        "--optimizer",
        choices=["adam", "sgd"],
        default="adam",
        help=f"sgd: the paper's, with momentum 0.9 and clipped gradients {default}",
    )
    recipe.add_argument(
        "--learning_rate", type=float, help="default: 4e-4 for adam, the paper's 0.1 for sgd"
    )
    recipe.add_argument("--weight_decay", type=float, default=1e-4, help=default)
    recipe.add_argument(
        "--clip_theta",
        type=float,
        help="of sgd: the elements of a gradient are clipped to +-theta / learning rate, so that "
        "it adds at most theta to a weight; the paper does not give theta (default: 2e-5)",
    )
    add_run_arguments(parser, output_dir="out/vdsr")
    args = parser.parse_args()
    args.scale = sorted(set(args.scale))
    border = bicubic_border(max(args.scale))
    if args.patch_size <= 2 * border:
        parser.error(
            f"--patch_size {args.patch_size} leaves nothing between borders of {border} pixels, "
            f"where bicubic x{max(args.scale)} lacks its neighbors; 48 is usual"
        )
    if args.learning_rate is None:
        args.learning_rate = {"adam": 4e-4, "sgd": 0.1}[args.optimizer]
    if args.optimizer == "sgd" and args.clip_theta is None:
        args.clip_theta = 2e-5
    if args.clip_theta is not None:
        if args.optimizer == "adam":
            parser.error("--clip_theta is of --optimizer sgd; leave it out, or add that")
        if not args.clip_theta > 0:
            parser.error(f"--clip_theta {args.clip_theta} is not above 0")
    if args.weight_decay < 0:
        parser.error(f"--weight_decay {args.weight_decay} is below 0")
    if args.num_layers < 2:
        parser.error(f"--num_layers {args.num_layers} is not at least 2")
    return args


def main() -> None:
    args = parse_args()
    run = Run(args)
    accelerator = run.accelerator

    model = VDSR(args.scale, args.num_layers, bias=not args.no_bias)
    model = model.to(memory_format=torch.channels_last)
    run.initialize(model)
    options: dict[str, Any] = {
        "lr": args.learning_rate,
        "weight_decay": args.weight_decay,
        "fused": True,
    }
    optimizer: torch.optim.Optimizer
    if args.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), **options)
    else:
        optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, **options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(args))
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    run.resume()

    for lr, hr in run.batches():
        with accelerator.accumulate(model):
            scale = hr.shape[-1] // lr.shape[-1]
            sr = model(lr, scale)
            # Nearer to the border, bicubic lacks pixels that it has inside of a picture.
            inner = slice(bicubic_border(scale), -bicubic_border(scale))
            loss = euclidean(luma(sr)[..., inner, inner], luma(hr)[..., inner, inner])
            accelerator.backward(loss)
            if args.optimizer == "sgd" and accelerator.sync_gradients:
                clip_value = args.clip_theta / scheduler.get_last_lr()[0]
                accelerator.clip_grad_value_(model.parameters(), clip_value)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        # Logs, validates and saves when due.
        run.end_step(loss=loss, learning_rate=scheduler.get_last_lr()[0])
    run.finish()


if __name__ == "__main__":
    main()
