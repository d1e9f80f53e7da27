"""Makes a data set of HR pictures and their LR: parquet, for --dataset_name, kept or pushed.

    python prepare_dataset.py photos --output_dir photos-sr
    python prepare_dataset.py photos --output_dir photos-sr --patch_size 480 --patch_step 240
    python prepare_dataset.py photos --output_dir photos-sr --push_to_hub user/photos-sr
    python prepare_dataset.py photos --degradation photo --preview sheet.png
    accelerate launch train_a2n.py --dataset_name photos-sr        # or user/photos-sr

Columns: `hr`, and by MATLAB's bicubic or a --degradation `lr_x2`, `lr_x3`, `lr_x4`, all PNG.
Training makes such LR by itself, and with a --degradation another one at every step; a prepared set
saves others that, and goes to the Hub as one.
"""

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np
from PIL import Image
from tqdm import tqdm

from common.data.cache import decode_pictures
from common.data.degradation import (
    add_degradation_argument,
    lr_in_words,
    open_degradation,
    picture_generator,
)
from common.data.find import find_pictures
from common.data.patches import PatchDataset
from common.files import cannot_make, cannot_write
from common.hub_api import check_token, push_folder
from common.images.formats import EXTENSIONS, Picture, read_rgb, write_picture
from common.images.resize import crop_to_multiple, imresize
from common.images.tensors import to_tensor
from common.options import Arguments, Parser, whole

CARD = """---
task_categories:
- image-to-image
tags:
- super-resolution
---
# {name}

{rows} pictures for single-image super-resolution. Columns: `hr`, and made of it {lr_by}
`{lr}`; all PNG. Train on them by

    accelerate launch train_a2n.py --dataset_name {name}
"""


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    parser.add_argument(
        "folder", type=Path, help="folder of HR pictures, searched with its subfolders"
    )
    parser.add_argument("--output_dir", type=Path, help="folder to write, new or empty")
    parser.add_argument(
        "--scales",
        type=whole(2, 8),
        nargs="+",
        default=[2, 3, 4],
        help="factors from LR to HR",
    )
    parser.add_argument(
        "--patch_size",
        type=whole(),
        help="cut the pictures into squares of this side (default: keep them whole)",
    )
    parser.add_argument(
        "--patch_step",
        type=whole(),
        help="pixels from one square to the next (default: half of --patch_size)",
    )
    add_degradation_argument(parser)
    parser.add_argument(
        "--preview",
        type=Path,
        metavar="FILE.png",
        help="picture to write of 16 patches, HR and LR side by side, at the first of the --scales",
    )
    parser.add_argument(
        "--push_to_hub", metavar="NAME", help="upload the data set to the Hub, as user/name"
    )
    parser.add_argument("--hub_private", action="store_true", help="make the data set private")
    parser.checks.append(check_options)
    return parser.parse_args(argv)


def check_options(args: argparse.Namespace) -> Iterator[str]:
    if args.patch_step and not args.patch_size:
        yield "--patch_step needs --patch_size; leave it out, or add that."
    if args.preview and args.preview.suffix.lower() not in EXTENSIONS:
        yield f"--preview {args.preview} must end in one of {' '.join(EXTENSIONS)}"
    elif args.preview and (reason := cannot_write(args.preview, overwrite=False)):
        yield f"--preview {args.preview} {reason}"
    folder = args.output_dir
    if folder is None:
        if args.push_to_hub or not args.preview:
            yield "--output_dir is missing: name a folder for the data set, or a --preview FILE.png"
    elif folder.exists() and (folder.is_file() or any(folder.iterdir())):
        yield f"--output_dir {folder} is not empty. Name another."
    elif reason := cannot_make(folder):
        yield f"--output_dir {folder} {reason}"


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
    files: Sequence[tuple[str, str]],
    scales: Sequence[int],
    size: int | None,
    step: int | None,
    degradation: str,
) -> Iterator[dict[str, Any]]:
    """The rows of the data set."""
    degrade = open_degradation(degradation)
    for name, file in tqdm(files, unit=" pictures"):
        try:
            picture = read_rgb(file)
        except Exception as error:  # decoders raise errors of many kinds for a damaged file
            tqdm.write(f"Left out {name}: {error}")
            continue
        if min(picture.shape[:2]) < (size or max(scales)):
            tqdm.write(f"Left out {name}, which is smaller than {size or max(scales)} pixels.")
            continue
        for number, hr in enumerate(squares(picture, size, step)):
            row = {"hr": png(hr)}
            for scale in scales:
                if degrade:
                    height, width = (side // scale * scale for side in hr.shape[:2])
                    key = f"{Path(name).with_suffix('')}/{number}" if size else name
                    lr = degrade(hr[:height, :width], scale, picture_generator(key))
                    row[f"lr_x{scale}"] = png(lr)
                else:
                    small = imresize(crop_to_multiple(to_tensor(hr), scale), 1 / scale)
                    row[f"lr_x{scale}"] = png(small.movedim(0, -1).contiguous().numpy())
            yield row


def write_preview(args: argparse.Namespace) -> None:
    """Writes a sheet of 16 patches as a training with the seed 0 would see them."""
    scale, side = args.scales[0], 192
    pictures, _ = decode_pictures(find_pictures(args.folder, []), [scale])
    degrade = open_degradation(args.degradation)
    size = min(side, int(pictures.sizes.min(axis=1).max())) // scale * scale
    patches = PatchDataset(pictures, [scale], size, 16, 0, degrade)
    sheet = Image.new("RGB", (8 * (side + 4), 4 * (side + 4)), "white")
    lr, hr = patches.__getitems__(range(16))
    for number, pair in enumerate(zip(hr, lr, strict=True)):
        for half, patch in enumerate(pair):
            picture = Image.fromarray(patch.permute(1, 2, 0).numpy())
            place = (2 * (number % 4) + half) * (side + 4), number // 4 * (side + 4)
            sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), place)
    args.preview.parent.mkdir(parents=True, exist_ok=True)
    write_picture(Picture(np.asarray(sheet)), args.preview)
    print(f"16 patches of x{scale}, HR and its LR {lr_in_words(args.degradation)}: {args.preview}")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.preview:
        write_preview(args)
        if not args.output_dir:
            return
    if args.push_to_hub:
        check_token()
    found = find_pictures(args.folder, [])
    files = [(source["name"], source["hr"]["path"]) for source in found]
    columns = ["hr", *(f"lr_x{scale}" for scale in args.scales)]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    # A cache of its own: another would find the rows again by the names of the files.
    with TemporaryDirectory(dir=args.output_dir) as cache:
        table = datasets.Dataset.from_generator(
            rows,
            gen_kwargs={
                "files": tuple(files),
                "scales": tuple(args.scales),
                "size": args.patch_size,
                "step": args.patch_step,
                "degradation": args.degradation,
            },
            features=datasets.Features(dict.fromkeys(columns, datasets.Image())),
            writer_batch_size=8,
            cache_dir=cache,
        )
        table.to_parquet(args.output_dir / "train.parquet", batch_size=8)
    name = args.push_to_hub or args.output_dir.resolve().name
    lr_by = lr_in_words(args.degradation)
    card = CARD.format(name=name, rows=len(table), lr=" ".join(columns[1:]), lr_by=lr_by)
    (args.output_dir / "README.md").write_text(card)
    print(f"{len(table)} rows are in {args.output_dir}; train by --dataset_name {args.output_dir}.")
    if args.push_to_hub:
        again = f"hf upload {args.push_to_hub} {args.output_dir} --repo-type dataset"
        url = push_folder(args.output_dir, args.push_to_hub, "dataset", args.hub_private, again)
        print(f"It is on the Hub now: {url}")


if __name__ == "__main__":
    main()
