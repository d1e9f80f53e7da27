"""Strips: one crop as LR, bicubic, SR and HR side by side, for the eye."""

from collections.abc import Sequence

import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from common.images.resize import imresize


def make_strip(
    lr: Tensor,
    results: list[tuple[str, Tensor]],
    hr: Tensor | None = None,
    size: int = 96,
    zoom: int = 3,
) -> Image.Image:
    """Makes a labelled strip of one crop: LR, bicubic, each SR, and the original if it is given.

    The crop is the one in which bicubic differs most from HR, however SR looks there. Without HR,
    the last SR takes its place.

    Args:
        lr: LR, uint8, (3, h, w), on the CPU like the others.
        results: Pairs of a label and an SR, uint8, (3, h * scale, w * scale).
        hr: HR, uint8, same shape as SR, or None.
        size: Side of the crop in HR pixels.
        zoom: Enlargement of the crop in the strip, without interpolation.
    """
    aim = results[-1][1] if hr is None else hr
    scale = aim.shape[-1] // lr.shape[-1]
    bicubic = imresize(lr, scale)
    size = min(size, *aim.shape[-2:]) // scale * scale
    error = (bicubic.float() - aim.float()).square().mean(dim=0)
    means = F.avg_pool2d(error[None], size, stride=scale)[0]
    top, left = (number * scale for number in divmod(int(means.argmax()), means.shape[1]))

    small = lr[:, top // scale :, left // scale :][:, : size // scale, : size // scale]
    panels = [("Input" if hr is None else "LR", small)] + [
        (label, image[:, top : top + size, left : left + size])
        for label, image in [("Bicubic", bicubic), *results, ("Original", hr)]
        if image is not None
    ]
    side, gap, caption = size * zoom, 8, 28
    strip = Image.new("RGB", (len(panels) * (side + gap) - gap, side + caption), "white")
    draw = ImageDraw.Draw(strip)
    for number, (label, panel) in enumerate(panels):
        picture = Image.fromarray(panel.permute(1, 2, 0).numpy())
        x = number * (side + gap)
        strip.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x, caption))
        draw.text((x + 4, 3), label, fill="black", font=ImageFont.load_default(18))
    return strip


def stack_strips(strips: Sequence[Image.Image]) -> Image.Image:
    """Puts strips below one another, on white."""
    size = max(strip.width for strip in strips), sum(strip.height for strip in strips)
    sheet = Image.new("RGB", size, "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet
