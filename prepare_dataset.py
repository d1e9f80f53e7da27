"""Makes a data set of HR pictures and their LR: parquet, for --dataset_name, kept or pushed.

    python prepare_dataset.py photos --output_dir photos-sr
    python prepare_dataset.py photos --output_dir photos-sr --patch_size 480 --patch_step 240
    python prepare_dataset.py photos --output_dir photos-sr --push_to_hub user/photos-sr
    python prepare_dataset.py photos --degradation photo --preview sheet.png
    python train_a2n.py --dataset_name photos-sr                   # or user/photos-sr

Columns: `hr`, and by MATLAB's bicubic or a --degradation `lr_x2`, `lr_x3`, `lr_x4`, all PNG.
Training makes such LR by itself, and with a --degradation another one at every step; a prepared set
saves others that, and goes to the Hub as one.
"""

import common.start

import argparse
import io
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet
from PIL import Image
from tqdm import tqdm

from common.data.cache import decode_pictures
from common.data.degradation import (
    add_degradation_argument,
    degradation_refused,
    maker_of_lr,
    open_degradation,
    picture_generator,
)
from common.data.find import find_pictures
from common.data.hub_sets import cannot_be_data_set
from common.data.layouts import describe_kinds
from common.data.patches import PatchDataset
from common.errors import UserError
from common.files import cannot_fill, cannot_write, filled_folder
from common.hub_api import check_token, push_folder
from common.images.formats import Picture, PictureError, read_picture, to_rgb
from common.images.kinds import FORMATS
from common.images.resize import crop_to_multiple, imresize
from common.images.strip import patch_sheet
from common.images.tensors import to_tensor
from common.images.writing import write_picture
from common.options import Arguments, Parser, whole
from common.tables import enumerate_first, plural
from common.terminal import say

CARD = """---
task_categories:
- image-to-image
tags:
- super-resolution
---
# {name}

{rows} pictures for single-image super-resolution. Columns: `hr`, and made of it {lr_by}
`{lr}`; all PNG. Train on them by

    python train_a2n.py --dataset_name {name}
"""


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    parser.add_argument(
        "folder",
        type=Path,
        help="folder of HR pictures, searched with its subfolders, or of HR and bicubic LR",
    )
    data = parser.group("data", "What the data set holds.")
    data.add_argument(
        "--scales",
        type=whole(2, 8),
        nargs="+",
        default=[2, 3, 4],
        help="factors from LR to HR",
    )
    data.add_argument(
        "--patch_size",
        type=whole(),
        help="cut the pictures into squares of this side (default: keep them whole)",
    )
    data.add_argument(
        "--patch_step",
        type=whole(),
        only_with=("patch_size",),
        help="pixels from one square to the next (default: half of --patch_size)",
    )
    add_degradation_argument(data)
    output = parser.group("output", "What is written: a data set, a preview, or both.")
    output.add_argument(
        "--output_dir",
        type=Path,
        help="folder to write the data set to, new or empty: parquet files and their card",
    )
    output.add_argument(
        "--preview",
        type=Path,
        metavar="FILE.png",
        help="picture to write of 16 patches, HR and LR side by side, at the first of the --scales",
    )
    output.add_argument(
        "--overwrite", action="store_true", help="replace a --preview that exists already"
    )
    output.add_argument(
        "--push_to_hub", metavar="NAME", help="upload the data set to the Hub, as user/name"
    )
    output.add_argument(
        "--hub_private",
        action="store_true",
        only_with=("push_to_hub",),
        help="make the data set on the Hub private",
    )
    parser.checks.append(check_options)
    return parser.parse_args(argv)


def check_options(args: argparse.Namespace) -> Iterator[str]:
    if args.preview and args.preview.suffix.lower() not in FORMATS:
        yield f"--preview {args.preview} must end in one of {' '.join(FORMATS)}"
    elif args.preview and (reason := cannot_write(args.preview, args.overwrite)):
        yield f"--preview {args.preview} {reason}"
    folder = args.output_dir
    if folder is None:
        if args.push_to_hub or not args.preview:
            yield "--output_dir is missing: name a folder for the data set, or a --preview FILE.png"
        return
    if reason := cannot_fill(folder):
        yield f"--output_dir {folder} {reason}"
    if reason := cannot_be_data_set(folder):
        yield f"--output_dir {folder} {reason}. Name another."


def squares(pixels: np.ndarray, size: int | None, step: int | None) -> Iterator[np.ndarray]:
    """A picture (H, W, 3), or the squares of a grid in it; the last ones end at its borders."""
    if size is None:
        yield pixels
        return
    height, width = pixels.shape[:2]
    step = step or max(1, size // 2)
    for top in sorted({*range(0, height - size, step), height - size}):
        for left in sorted({*range(0, width - size, step), width - size}):
            yield pixels[top : top + size, left : left + size]


def png(pixels: np.ndarray) -> dict[str, Any]:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return {"bytes": content.getvalue(), "path": None}


def rows(
    files: Iterable[tuple[str, str]],
    scales: Sequence[int],
    size: int | None,
    step: int | None,
    left_out: dict[str, str],
    degradation: str,
) -> Iterator[dict[str, Any]]:
    """The rows of the data set.

    Args:
        files: Names and paths of the pictures.
        scales: Factors from HR to LR.
        size: Side of the squares, or None.
        step: Pixels from one square to the next.
        left_out: Gets the reason for each picture that is left out.
        degradation: Name of the degradation.
    """
    degrade = open_degradation(degradation)
    least = size or max(scales)
    for name, file in files:
        try:
            found = read_picture(file)
            if min(found.pixels.shape[:2]) < least:
                raise PictureError(f"it is smaller than {least} pixels")
        except PictureError as error:
            left_out[name] = f"{error}"
            say(f"Left out {name}: {error}.")
            continue
        if found.frames > 1:
            say(f"{name}: the first of its {found.frames} frames is taken.")
        for number, hr in enumerate(squares(to_rgb(found), size, step)):
            row = {"hr": png(hr)}
            for scale in scales:
                if degrade:
                    height, width = (side // scale * scale for side in hr.shape[:2])
                    key = f"{Path(name).with_suffix('')}/{number}" if size else name
                    own = hr[:height, :width].copy()  # a user's function may write to it
                    lr = degrade(own, scale, picture_generator(key))
                    row[f"lr_x{scale}"] = png(lr)
                else:
                    small = imresize(crop_to_multiple(to_tensor(hr), scale), 1 / scale)
                    row[f"lr_x{scale}"] = png(small.movedim(0, -1).contiguous().numpy())
            yield row


def write_parquet(file: Path, table: Iterator[dict[str, Any]], columns: Sequence[str]) -> int:
    """Writes rows of pictures, eight at a time.

    Returns:
        Number of rows.
    """
    schema = datasets.Features(dict.fromkeys(columns, datasets.Image())).arrow_schema
    count = 0
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(table, 8)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema))
            count += len(some)
    return count


def write_preview(args: argparse.Namespace) -> None:
    """Writes a sheet of 16 patches as a training with the seed 0 would see them."""
    scale, side = args.scales[0], 192
    sources = find_pictures(args.folder, [])
    sources = sources[:: max(1, len(sources) // 16)][:16]
    pictures, errors = decode_pictures(sources, [scale])
    degrade = open_degradation(args.degradation)
    size = min(side, int(pictures.sizes.min(axis=1).max(initial=0))) // scale * scale
    if not size:
        reasons = [f"{name} ({reason[:80]})" for name, reason in errors.items()]
        reasons += [f"{name} (smaller than {scale} pixels)" for name in pictures.names]
        raise UserError(
            f"--preview cannot show {enumerate_first(reasons, 2)} of {args.folder}. Mend or remove "
            "them, or name another folder."
        )
    patches = PatchDataset(pictures, [scale], size, 16, 0, degrade)
    sheet = patch_sheet(*patches.__getitems__(range(16)), side)
    args.preview.parent.mkdir(parents=True, exist_ok=True)
    write_picture(Picture(np.asarray(sheet)), args.preview)
    print(
        f"16 patches of x{scale}, HR and its LR by {maker_of_lr(args.degradation)}: {args.preview}"
    )


@degradation_refused()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.preview:
        write_preview(args)
        if not args.output_dir:
            return
    words = ["hf", "upload", f"{args.push_to_hub}", f"{args.output_dir}", "--repo-type", "dataset"]
    again = shlex.join([*words, *(["--private"] * args.hub_private)])
    if args.push_to_hub:
        check_token(again)
    found = find_pictures(args.folder, [])
    if said := describe_kinds(args.folder):
        print(said)
    files = [(source["name"], source["hr"]["path"]) for source in found]
    columns = ["hr", *(f"lr_x{scale}" for scale in args.scales)]
    left_out: dict[str, str] = {}
    with (
        filled_folder(args.output_dir) as folder,
        tqdm(files, unit=" pictures", disable=None) as shown,
    ):
        table = rows(
            shown, args.scales, args.patch_size, args.patch_step, left_out, args.degradation
        )
        count = write_parquet(folder / "train.parquet", table, columns)
        if not count:
            raise UserError(
                f"None of {plural(len(files), 'picture')} in {args.folder} can be used, see above. "
                "Nothing is written."
            )
        name = args.push_to_hub or args.output_dir.resolve().name
        lr_by = f"by {maker_of_lr(args.degradation)}"
        card = CARD.format(name=name, rows=count, lr=" ".join(columns[1:]), lr_by=lr_by)
        (folder / "README.md").write_text(card)
    if left_out:
        print(f"Left out {len(left_out)} of {plural(len(files), 'picture')}, see above.")
    print(f"{count} rows are in {args.output_dir}; train by --dataset_name {args.output_dir}.")
    if args.push_to_hub:
        url = push_folder(args.output_dir, args.push_to_hub, "dataset", args.hub_private, again)
        print(f"It is on the Hub now: {url}")


if __name__ == "__main__":
    main()
