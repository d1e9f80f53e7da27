"""Sizes of results that a user asks for: `4000x3000`, `4000x`, `x3000`, or a factor.

Size.parse("1920x").of(600, 800)  # (1440, 1920): height and width
Size(factor=1.5).of(600, 800)     # (900, 1200)
"""

import re
from typing import NamedTuple

MOST = 65_535  # pixels of a side
LARGEST_FACTOR = 64
# A network is not applied once more for a last per cent, which bicubic adds.
TOLERANCE = 1.01


class Size(NamedTuple):
    """Size of a result. A picture is fit into it, undistorted, unless `stretch` is true.

    Attributes:
        width: Pixels, or None for what the height makes of it.
        height: Pixels, or None for what the width makes of it.
        factor: Factor of both sides, in place of width and height.
        stretch: Whether the result has exactly that width and height.
    """

    width: int | None = None
    height: int | None = None
    factor: float | None = None
    stretch: bool = False

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Reads `4000x3000`, `4000x` or `x3000`.

        Raises:
            ValueError: It is something else, or a side is not from 1 to 65,535.
        """
        match = re.fullmatch(r"(\d*)[xX](\d*)", text, re.ASCII)
        if not match or not (match[1] or match[2]):
            raise ValueError(
                f"{text[:40]} is no size; give 4000x3000 to fit into, or one side as 4000x or x3000"
            )
        width, height = (int(side[:9]) if side else None for side in match.groups())
        for side in (width, height):
            if side is not None and not 1 <= side <= MOST:
                raise ValueError(f"{text[:40]}: a side has from 1 to {MOST:,} pixels")
        return cls(width, height)

    @classmethod
    def make(cls, size: "Size | str | float") -> "Size":
        """Size of what a program gives: the text of one, a factor as a number, or a Size.

        Raises:
            ValueError: It is none of them, or the factor is not above 1 and at most 64.
        """
        if isinstance(size, Size):
            return size
        if isinstance(size, str):
            return cls.parse(size)
        if isinstance(size, int | float) and 1 < size <= LARGEST_FACTOR:
            return cls(factor=size)
        raise ValueError(
            f"{size!r} is no size; give a text, as '4000x3000', '4000x' or 'x3000', or a factor "
            f"above 1 and at most {LARGEST_FACTOR}"
        )

    @property
    def suffix(self) -> str:
        """End of the names of results: `_x1.5`, `_4000x3000`, `_w4000` or `_h3000`."""
        if self.factor:
            return f"_x{self.factor:g}"
        if self.width and self.height:
            return f"_{self.width}x{self.height}"
        return f"_w{self.width}" if self.width else f"_h{self.height}"

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result for a picture of so many pixels, each at least 1."""
        if self.stretch:
            assert self.height  # as the options were checked
            assert self.width
            return self.height, self.width
        factor = self.factor or min(
            wanted / side for wanted, side in ((self.height, height), (self.width, width)) if wanted
        )
        return max(1, round(height * factor)), max(1, round(width * factor))

    def factor_for(self, height: int, width: int) -> float:
        """The larger of the factors of both sides."""
        return factor_of((height, width), self.of(height, width))


def factor_of(old: tuple[int, int], new: tuple[int, int]) -> float:
    """The larger of the factors of both sides."""
    return max(after / before for before, after in zip(old, new, strict=True))


def passes(scales: list[int], factor: float) -> list[int]:
    """Factors by which a network enlarges, one after the other, until a factor is reached.

    Args:
        scales: Factors that the network is trained for.
        factor: Factor of the result. Up to 1 there is nothing to enlarge.
    """
    found = []
    while factor > TOLERANCE:
        reaching = [scale for scale in scales if scale >= factor / TOLERANCE]
        found.append(min(reaching, default=max(scales)))
        factor /= found[-1]
    return found
