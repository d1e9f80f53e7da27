"""Draws the curves of runs into one picture: loss and PSNR, over steps and over minutes.

    python -m results.compare out/paper out/modern --output compare.svg

reads `metrics.jsonl` and `times.jsonl` of each folder. (A loss is comparable only with the same
loss; PSNR only on the same validation pictures.)
"""

import common.start

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.curves import draw_curves, read_curves
from common.errors import UserError
from common.files import cannot_write, replace_file


def names_of(folders: Sequence[Path]) -> list[str]:
    """The folders' names; where two have the same, their paths as they were given."""
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [f"{folder}" for folder in folders]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--output", type=Path, default=Path("compare.svg"), help="default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file of that name")
    args = parser.parse_args(argv)
    if args.output.suffix.lower() != ".svg":
        raise UserError(
            f"--output {args.output}: curves are written as SVG, which browsers and GitHub show at "
            "any size. Name a file that ends in .svg."
        )
    if len(set(args.folders)) < len(args.folders):
        raise UserError("A run is named twice. Give each folder once.")
    if reason := cannot_write(args.output, args.overwrite):
        raise UserError(f"--output {args.output} {reason}.")
    curves = [read_curves(folder) for folder in args.folders]
    picture = draw_curves(dict(zip(names_of(args.folders), curves, strict=True)))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    replace_file(args.output, picture.encode())
    print(f"Written to {args.output}.")


if __name__ == "__main__":
    main()
