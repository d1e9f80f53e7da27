"""Strips: a picture and its details as LR, bicubic, SR and HR side by side, for the eye."""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from common.images.resize import imresize

GAP, CAPTION, WIDEST = 8, 28, 640
COLORS = ("#ff3b30", "#34c759", "#0a84ff")  # of the frames around the details
BLUR = 9  # pixels over which a direction is looked for
MOST_SIDE = 4096  # of a picture that is shown; of a larger one it is the middle


class Versions(NamedTuple):
    """One picture as different methods enlarge it.

    Attributes:
        lr: LR, uint8, (3, h, w), on the CPU like the others.
        named: Pairs of a label and a picture of the size of the result, uint8, (3, H, W): Bicubic,
            each SR, and the original if it is known.
        shown: Number of the last SR, which is shown first where not all are.
    """

    lr: Tensor
    named: list[tuple[str, Tensor]]
    shown: int

    @classmethod
    def of(
        cls, lr: Tensor, results: Sequence[tuple[str, Tensor]], hr: Tensor | None = None
    ) -> "Versions":
        """Puts the bicubic enlargement before the results, and the original after them.

        Of sides of more than 4,096 pixels the middle is taken.

        Args:
            lr: LR, uint8, (3, h, w).
            results: Pairs of a label and an SR, uint8, (3, H, W).
            hr: HR, uint8, same shape as SR, or None.
        """
        size = results[0][1].shape[-2:]
        bicubic = torch.cat([imresize(channel, size) for channel in lr.split(1)])  # less memory
        original = [] if hr is None else [("Original", hr)]
        all_named = [("Bicubic", bicubic), *results, *original]
        named = [(label, _middle(image, size)) for label, image in all_named]
        return cls(_middle(lr, size), named, len(results))


def _middle(image: Tensor, size: Sequence[int]) -> Tensor:
    """The middle of a picture whose result has this height and width."""
    for axis, side in enumerate(size, start=1):
        length = max(1, round(image.shape[axis] * min(1, MOST_SIDE / side)))
        image = image.narrow(axis, (image.shape[axis] - length) // 2, length)
    return image


def find_details(aim: Tensor, bicubic: Tensor, size: int, most: int = 3) -> list[tuple[int, int]]:
    """Finds squares with much that bicubic loses and that has a direction: edges, lines, letters.

    Noise has none, so the squares are not simply those where the difference is greatest. With the
    eigenvalues a and b of the structure tensor (Förstner and Gülch 1987) of the difference, a pixel
    counts ((a - b) / (a + b))^4 times the root of a + b: all of a line, hardly any of noise.

    Args:
        aim: Picture with the detail, (3, H, W), uint8.
        bicubic: The same without, same shape.
        size: Side of a square, at most H and W.
        most: Number of squares; there are fewer where they would overlap.

    Returns:
        Top and left of each square, the most detailed first.
    """
    lost = (aim.float() - bicubic.float()).mean(dim=0)[None, None]
    lost = F.pad(lost, (0, 1, 0, 1), mode="replicate")
    across = lost[..., :-1, 1:] - lost[..., :-1, :-1]
    down = lost[..., 1:, :-1] - lost[..., :-1, :-1]
    products = torch.cat([across * across, down * down, across * down], dim=1)
    means = F.avg_pool2d(products, BLUR, stride=1, padding=BLUR // 2, count_include_pad=False)
    xx, yy, xy = means[0]
    energy = (xx + yy).clamp(min=1e-6)
    directed = (((xx - yy) ** 2 + 4 * xy**2) / energy**2) ** 2 * energy.sqrt()
    stride = max(1, size // 8)
    sums = F.avg_pool2d(directed[None], size, stride)[0]
    found: list[tuple[int, int]] = []
    while len(found) < most and (not found or bool((sums >= 0).any())):
        row, column = divmod(int(sums.argmax()), sums.shape[1])
        found.append((row * stride, column * stride))
        away = ceil(size / stride)
        rows = slice(max(0, row - away + 1), row + away)
        sums[rows, max(0, column - away + 1) : column + away] = -1
    return found


def make_strip(versions: Versions, size: int = 96, zoom: int = 2, most: int = 3) -> Image.Image:
    """Makes a labelled strip: the whole picture, and a few details of all its versions.

    The details are the same however SR looks there, if the original is known.

    Args:
        versions: The picture in its versions.
        size: Side of a detail in pixels of the result.
        zoom: Enlargement of a detail in the strip, without interpolation.
        most: Number of details; there are fewer where they would overlap.
    """
    lr, named = versions.lr, versions.named
    aim_label, aim = named[-1]  # the original, or where it is not known the last SR
    height, width = aim.shape[-2:]
    size = min(size, height, width)
    details = find_details(aim, named[0][1], size, most)
    side = size * zoom
    inner = len(details) * (side + GAP) - GAP
    scale = min(inner / height, WIDEST / width)
    whole = max(1, round(width * scale)), max(1, round(height * scale))
    labels = ["Input", *(label for label, _ in named)]
    strip = Image.new(
        "RGB", (whole[0] + len(labels) * (side + GAP), CAPTION + inner), color="white"
    )
    draw = ImageDraw.Draw(strip)
    strip.paste(_image(aim).resize(whole, Image.Resampling.LANCZOS), (0, CAPTION))
    draw.text((4, 3), aim_label, fill="black", font=ImageFont.load_default(18))
    for number, label in enumerate(labels):
        x = whole[0] + GAP + number * (side + GAP)
        draw.text((x + 4, 3), label, fill="black", font=ImageFont.load_default(18))
        image = _image(lr if number == 0 else named[number - 1][1])
        ratio = image.width / width, image.height / height
        for row, (top, left) in enumerate(details):
            right, bottom = left + size, top + size
            box = left * ratio[0], top * ratio[1], right * ratio[0], bottom * ratio[1]
            y = CAPTION + row * (side + GAP)
            panel = image.resize((side, side), Image.Resampling.NEAREST, box=box)
            strip.paste(panel, (x, y))
    for row, ((top, left), color) in enumerate(zip(details, COLORS, strict=False)):
        corners = [left * scale, CAPTION + top * scale]
        corners += [(left + size) * scale - 1, CAPTION + (top + size) * scale - 1]
        draw.rectangle(corners, outline=color, width=2)
        x, y = whole[0] + 2, CAPTION + row * (side + GAP)
        draw.rectangle([x, y, x + GAP - 5, y + side - 1], fill=color)
    return strip


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def stack_strips(strips: Sequence[Image.Image]) -> Image.Image:
    """Puts strips below one another, on white."""
    gaps = GAP * (len(strips) - 1)
    size = max(strip.width for strip in strips), sum(strip.height for strip in strips) + gaps
    sheet = Image.new("RGB", size, "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height + GAP
    return sheet


def patch_sheet(lr: Tensor, hr: Tensor, side: int = 192) -> Image.Image:
    """Puts up to 16 pairs of patches on a sheet, four in a row, HR left of its LR.

    Args:
        lr: LR patches, (N, 3, h, w), uint8.
        hr: HR patches, (N, 3, H, W), uint8.
        side: Pixels to which every patch is enlarged, as squares of one color.
    """
    pairs = list(zip(hr, lr, strict=True))[:16]
    cell = side + GAP
    sheet = Image.new("RGB", (8 * cell, -(-len(pairs) // 4) * cell), "white")
    for number, pair in enumerate(pairs):
        for half, patch in enumerate(pair):
            place = (2 * (number % 4) + half) * cell, number // 4 * cell
            sheet.paste(_image(patch).resize((side, side), Image.Resampling.NEAREST), place)
    return sheet
