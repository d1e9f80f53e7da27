"""SRGAN: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative
Adversarial Network" (CVPR 2017).

    python train_srgan.py --scale 4

trains on DIV2K in two phases, by squared error (SRResNet) and against a discriminator, and writes
out/srgan, with the network of the first phase in out/srgan/pretrained. After the paper's million
steps that one has 32.05 dB on Set5 x4; 8,700 steps of 8 patches, 84 minutes on a CPU, reach 30.61.
"""

import common.start

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.data.load import load_pictures
from common.errors import UserError
from common.hub import load_matching
from common.losses import VGGContent, adversarial, probability_of_hr, total_variation
from common.network import SuperResolutionModel
from common.options import Arguments, Parser, real, whole
from common.training.optimizer import add_optimizer_arguments, clip_gradients, make_optimizer
from common.training.options import add_run_arguments
from common.training.recipe import add_recipe_arguments, fixed_recipe, modern
from common.training.run import Run
from common.training.schedule import learning_rate_factor
from common.weights import read_folder


class ResidualBlock(nn.Module):
    """Two convolutions with batch normalization, added to their input."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(num_features, num_features, kernel_size=3, padding=1),
            nn.BatchNorm2d(num_features),
            nn.PReLU(),
            nn.Conv2d(num_features, num_features, kernel_size=3, padding=1),
            nn.BatchNorm2d(num_features),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class Upsampler(nn.Sequential):
    """Enlargement by `factor`, whose pixels a convolution makes as channels."""

    def __init__(self, num_features: int, factor: int) -> None:
        super().__init__(
            nn.Conv2d(num_features, num_features * factor**2, kernel_size=3, padding=1),
            nn.PixelShuffle(factor),
            nn.PReLU(),
        )


class SRGAN(SuperResolutionModel):
    """The generator; trained by squared error alone, it is SRResNet.

    Args:
        scale: 2, 3, 4 or 8; x4 enlarges twice by 2, x8 three times.
        num_blocks: Residual blocks.
        variant: "srgan" is the paper's. "tutorial", of a well-known tutorial, maps its output to
            [0, 1] by (tanh + 1) / 2.
        num_features: Channels.
    """

    def __init__(
        self,
        scale: int,
        num_blocks: int = 16,
        variant: Literal["srgan", "tutorial"] = "srgan",
        num_features: int = 64,
    ) -> None:
        super().__init__([scale])
        if scale not in (2, 3, 4, 8) or variant not in ("srgan", "tutorial"):
            raise ValueError(
                f"there is no {variant} x{scale}; there are srgan and tutorial, x2, x3, x4 and x8"
            )
        self.variant = variant
        factors = {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]
        self.head = nn.Sequential(nn.Conv2d(3, num_features, kernel_size=9, padding=4), nn.PReLU())
        self.blocks = nn.Sequential(*(ResidualBlock(num_features) for _ in range(num_blocks)))
        self.trunk_end = nn.Sequential(
            nn.Conv2d(num_features, num_features, kernel_size=3, padding=1),
            nn.BatchNorm2d(num_features),
        )
        self.upsamplers = nn.Sequential(*(Upsampler(num_features, factor) for factor in factors))
        self.tail = nn.Conv2d(num_features, 3, kernel_size=9, padding=4)

    @property
    def margin(self) -> int:
        """Pixels of LR: the sum of what each convolution sees."""
        return 4 + 2 * len(self.blocks) + 1 + len(self.upsamplers) + ceil(4 / self.scale)

    def adapt_to(self, tensors: Mapping[str, Tensor]) -> None:
        """The tutorial's generator had a PReLU in place of the last normalization at first."""
        is_old = "trunk_end.1.weight" in tensors and "trunk_end.1.bias" not in tensors
        if is_old and self.variant == "tutorial" and isinstance(self.trunk_end[1], nn.BatchNorm2d):
            self.trunk_end[1] = nn.PReLU().to(self.tail.weight.device)

    def forward(self, lr: Tensor) -> Tensor:
        """RGB in [0, 1], (N, 3, h, w) -> (N, 3, h * scale, w * scale), not clamped."""
        features = self.head(lr)
        features = features + self.trunk_end(self.blocks(features))
        sr = self.tail(self.upsamplers(features))
        return (torch.tanh(sr) + 1) / 2 if self.variant == "tutorial" else sr


class Discriminator(nn.Module):
    """Tells HR from SR: eight convolutions, of which every second halves the image.

    Args:
        patch_size: Side of the images.
        head: "dense", the paper's two dense layers, or "pooled", a global mean and two 1x1
            convolutions.
    """

    def __init__(self, patch_size: int, head: Literal["dense", "pooled"] = "dense") -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, kernel_size=3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        side = patch_size
        channels = [64, 64, 128, 128, 256, 256, 512, 512]
        for index, (before, after) in enumerate(pairwise(channels)):
            stride = 1 if index % 2 else 2
            side = -(-side // stride)
            layers += [
                nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        if head == "pooled":
            side = 1
            layers.append(nn.AdaptiveAvgPool2d(1))
        # A dense layer on the pooled channels is a 1x1 convolution.
        layers += [
            nn.Flatten(),
            nn.Linear(512 * side**2, 1024),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(1024, 1),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """RGB in [0, 1], (N, 3, patch_size, patch_size) -> logits of being HR, (N, 1)."""
        return self.layers(images)


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    recipe = add_recipe_arguments(
        parser,
        "Defaults are the paper's. --max_train_steps and the schedule are those of the second "
        "phase, which follows on --pretrain_steps; 0 leaves it out.",
        batch_size=16,
        lr_scheduler="step",
        lr_step_size=100_000,
        lr_gamma=0.1,
        recipes={
            "modern": modern(1e-4, first_phase_steps),
            "cpu": fixed_recipe(
                batch_size=8, pretrain_steps=2000, max_train_steps=0, learning_rate=5e-4
            ),
        },
    )
    recipe.add_argument(
        "--scale",
        type=whole(least=0),
        choices=[2, 3, 4, 8],
        default=4,
        help="factor of enlargement",
    )
    recipe.add_argument(
        "--pretrain_steps",
        type=whole(least=0),
        help="optimizer steps of the first phase (default: 1000000, or 0 with --init_from)",
    )
    recipe.add_argument(
        "--num_blocks", type=whole(most=1000), default=16, help="residual blocks of the generator"
    )
    recipe.add_argument(
        "--variant",
        choices=["srgan", "tutorial"],
        default="srgan",
        help="srgan: the paper's generator; tutorial: its output is (tanh + 1) / 2",
    )
    recipe.add_argument(
        "--discriminator",
        choices=["dense", "pooled"],
        default="dense",
        help="end of the discriminator; dense: the paper's; pooled: global mean and 1x1 "
        "convolutions in place of dense layers",
    )
    recipe.add_argument(
        "--patch_size",
        type=whole(),
        default=96,
        help="side of an HR patch in pixels, a multiple of the scale",
    )
    add_optimizer_arguments(parser, recipe, learning_rate=1e-4, of=" of both networks")
    recipe.add_argument(
        "--adversarial_loss",
        choices=["vanilla", "least_squares", "linear"],
        default="vanilla",
        help="vanilla: the paper's, by logarithms; least_squares: (1 - D)^2; linear: 1 - D",
    )
    for name, value, what in (
        ("adversarial", 1e-3, "adversarial loss"),
        ("content", 1.0, "squared difference of VGG's features, which are divided by 12.75"),
        ("mse", 0.0, "squared error"),
        ("tv", 0.0, "total variation"),
    ):
        recipe.add_argument(
            f"--{name}_weight", type=real(least=0), default=value, help=f"weight of the {what}"
        )
    recipe.add_argument(
        "--content_network",
        choices=["vgg16", "vgg19"],
        default="vgg19",
        help="network whose features the content loss compares: vgg19, the paper's, or vgg16",
    )
    recipe.add_argument(
        "--content_layer",
        help="layer whose features they are, as conv5_4, before the activation, relu5_4, after it, "
        "or pool5, after the pooling (default: relu5_4 of vgg19, relu5_3 of vgg16)",
    )
    run = add_run_arguments(
        parser,
        output_dir="out/srgan",
        max_train_steps=200_000,
        least_steps=0,
        # Batch normalization, of both networks, sees one micro-batch at a time.
        parts_change_results=lambda args: True,
    )
    run.add_argument(
        "--vgg_weights",
        type=Path,
        help="file of torchvision's state dict of --content_network, .safetensors or .pth "
        "(default: downloaded)",
    )
    parser.checks.append(check_steps)
    args = parser.parse_args(argv)
    args.pretrain_steps = first_phase_steps(args)
    if args.content_layer is None:
        args.content_layer = {"vgg16": "relu5_3", "vgg19": "relu5_4"}[args.content_network]
    return args


def first_phase_steps(args: argparse.Namespace) -> int:
    default = 0 if args.init_from else 1_000_000
    return default if args.pretrain_steps is None else args.pretrain_steps


def check_steps(args: argparse.Namespace) -> Iterator[str]:
    if not first_phase_steps(args) and not args.max_train_steps:
        yield (
            "--pretrain_steps and --max_train_steps are both 0: nothing to train. With --init_from "
            "--pretrain_steps is 0, unless given."
        )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    # Checks the machine, claims --output_dir, seeds.
    run = Run(args, total_steps=args.pretrain_steps + args.max_train_steps)
    accelerator = run.accelerator
    if accelerator.mixed_precision == "fp16":
        raise UserError(
            "SRGAN does not train in fp16, because its two losses would share one loss scale. Use "
            "--mixed_precision bf16 or no."
        )
    parts = args.gradient_accumulation_steps * accelerator.num_processes
    if args.batch_size == parts and args.patch_size <= (16 if args.max_train_steps else args.scale):
        raise UserError(
            f"--patch_size {args.patch_size}, one at a time, leaves a channel one value, of which "
            f"batch normalization has no spread. Give larger ones, or --batch_size {2 * parts}."
        )
    content = None
    if args.content_weight and args.max_train_steps:
        with accelerator.local_main_process_first():  # one downloads, the others wait
            content = VGGContent(args.content_network, args.content_layer, args.vgg_weights)
        content.check_patch_size(args.patch_size)

    generator = SRGAN(args.scale, args.num_blocks, args.variant)
    generator = generator.to(memory_format=torch.channels_last)
    if run.checkpoint:
        generator.adapt_to(read_folder(run.checkpoint))
    discriminator = Discriminator(args.patch_size, args.discriminator)
    discriminator = discriminator.to(memory_format=torch.channels_last)
    if args.init_from and not run.checkpoint:
        matching = load_matching(generator, args.init_from, args.revision)
        run.print(matching.summary)
        if not matching.complete and not args.pretrain_steps:
            raise UserError(
                f"--init_from {args.init_from} holds another generator than --scale {args.scale} "
                f"--num_blocks {args.num_blocks} --variant {args.variant}, and no adversarial "
                "training begins with parts of one. Give the options that it was trained with, or "
                "train the rest first, by --pretrain_steps N."
            )
    pictures = load_pictures(args, [args.scale], say=run.print)  # decoded once, then mapped
    # Each phase begins with an optimizer of its own.
    pretrain_optimizer, g_optimizer, d_optimizer = (
        make_optimizer(args, network.parameters())
        for network in (generator, generator, discriminator)
    )
    g_scheduler, d_scheduler = (
        torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(args))
        for optimizer in (g_optimizer, d_optimizer)
    )
    generator, pretrain_optimizer = accelerator.prepare(generator, pretrain_optimizer)
    g_optimizer, g_scheduler = accelerator.prepare(g_optimizer, g_scheduler)
    discriminator, d_optimizer, d_scheduler = accelerator.prepare(
        discriminator, d_optimizer, d_scheduler
    )
    run.begin(  # or resumes
        generator,
        pictures,
        [pretrain_optimizer, g_optimizer, d_optimizer],
        [g_scheduler, d_scheduler],
    )

    # Phase 1, SRResNet: squared error alone.
    if run.step < args.pretrain_steps:
        run.print(f"Phase 1, squared error, to step {args.pretrain_steps:,}.")
    for lr, hr in run.batches(until=args.pretrain_steps):
        with accelerator.accumulate(generator):
            loss = F.mse_loss(generator(lr), hr)
            accelerator.backward(loss)
            clip_gradients(args, accelerator, generator)
            pretrain_optimizer.step()
            pretrain_optimizer.zero_grad()
        run.end_step(loss=loss, learning_rate=args.learning_rate)
    if run.step == args.pretrain_steps > 0:
        run.save_copy("pretrained")

    # Phase 2. It costs PSNR, so the latest weights are kept from now on, not the best.
    if args.max_train_steps:
        run.print("Phase 2, against the discriminator: another loss, and PSNR falls.")
        run.keep_latest()
    if content:
        content.to(accelerator.device).to(memory_format=torch.channels_last)
        if args.compile:
            content.compile()
    for lr, hr in run.batches():
        with accelerator.accumulate(generator, discriminator):
            sr = generator(lr)

            # The discriminator learns to tell HR from SR.
            discriminator.requires_grad_(True)
            d_hr, d_sr = discriminator(hr), discriminator(sr.detach())
            d_loss = adversarial(d_hr, True, args.adversarial_loss)
            d_loss = d_loss + adversarial(d_sr, False, args.adversarial_loss)
            accelerator.backward(d_loss)
            clip_gradients(args, accelerator, discriminator)
            d_optimizer.step()
            d_optimizer.zero_grad()

            # The generator learns to pass SR off as HR.
            discriminator.requires_grad_(False)
            terms = {"adversarial": adversarial(discriminator(sr), True, args.adversarial_loss)}
            if content:
                with accelerator.autocast():
                    terms["content"] = content(sr, hr)
            if args.mse_weight:
                terms["mse"] = F.mse_loss(sr, hr)
            if args.tv_weight:
                terms["tv"] = total_variation(sr)
            weighted = [getattr(args, f"{name}_weight") * term for name, term in terms.items()]
            loss = torch.stack(weighted).sum()
            accelerator.backward(loss)
            clip_gradients(args, accelerator, generator)
            g_optimizer.step()
            g_optimizer.zero_grad()
            g_scheduler.step()
            d_scheduler.step()
        run.end_step(
            loss=loss,
            **terms,
            d_loss=d_loss,
            d_hr=probability_of_hr(d_hr, args.adversarial_loss).mean(),
            d_sr=probability_of_hr(d_sr, args.adversarial_loss).mean(),
            learning_rate=g_scheduler.get_last_lr()[0],
        )
    run.finish()


if __name__ == "__main__":
    main()
