"""Options of the data: which pictures to train on and to validate on."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from common.data.degradation import add_degradation_argument
from common.options import Group, Parser, whole

DIV2K = "yangtao9009/DIV2K"


def add_data_arguments(parser: Parser) -> None:
    """Adds the options that name pictures. They may change when a run resumes: pictures may move.

    Whether the pictures are the same is found by their names and sizes.
    """
    data = parser.group(
        "data", "Where the pictures are. They may move between two starts of a run, not change."
    )
    source = data.exclusive()
    source.add_argument(
        "--dataset_name",
        default=DIV2K,
        help="data set on the Hugging Face Hub, a folder in the layout of one, or `sample`: the "
        "photographs in the scikit-image package",
    )
    source.add_argument(
        "--train_data_dir",
        type=Path,
        help="folder of HR pictures, instead of a data set; with subfolders train/ and val/, those "
        "are to train and to validate on; LR that lies beside it is read (with --degradation, "
        "refused)",
    )
    data.add_argument(
        "--validation_data_dir",
        type=Path,
        help="folder of HR pictures to choose the best weights by (default: the last pictures of "
        "the training set, a tenth but at most 10, which are then not trained on)",
    )
    data.add_argument("--dataset_config_name", help="configuration of a data set that has several")
    data.add_argument("--dataset_revision", help="branch, tag or commit of the data set")
    data.add_argument("--train_split", default="train", help="split of the data set to train on")
    data.add_argument(
        "--validation_split",
        help="split of the data set to choose the best weights by (default: none, see "
        "--validation_data_dir)",
    )
    data.add_argument(
        "--data_files",
        nargs="+",
        default=[],
        metavar="FILE",
        help="files of the data set to train on, if not all; may have wildcards",
    )
    data.add_argument(
        "--validation_data_files",
        nargs="+",
        default=[],
        metavar="FILE",
        help="files of the data set that make up the --validation_split",
    )
    data.add_argument(
        "--image_column", help="column of HR pictures (default: `hr`, or the only one of pictures)"
    )
    data.add_argument(
        "--max_train_images",
        type=whole(),
        help="number of pictures to train on, the first ones, for a trial (default: all)",
    )
    parser.checks.append(_check_data)


def add_patch_arguments(recipe: Group) -> None:
    """Adds the options that decide which patches are cut from which pictures at which step."""
    add_degradation_argument(recipe)
    recipe.add_argument(
        "--permute_channels",
        action="store_true",
        help="train on patches with their red, green and blue in any order, which helps where the "
        "pictures have few colors",
    )
    recipe.add_argument(
        "--streaming",
        action="store_true",
        help="for data sets larger than the disk: read the pictures over the network while "
        "training, and keep only some of them; needs a validation split or folder",
    )
    recipe.add_argument(
        "--streaming_images",
        type=whole(),
        default=500,
        only_with=("streaming",),
        help="with --streaming: pictures to train on at a time; twice as many are on the disk",
    )
    recipe.add_argument(
        "--patches_per_image",
        type=whole(),
        default=64,
        only_with=("streaming",),
        help="with --streaming: patches cut from each picture on average, before the next pictures "
        "replace them",
    )


def _check_data(args: argparse.Namespace) -> Iterator[str]:
    own = f"--train_data_dir {args.train_data_dir}" if args.train_data_dir else ""
    if args.dataset_name == "sample":
        own = "--dataset_name sample"
    of_data_sets: dict[str, object] = dict.fromkeys(
        ("dataset_config_name", "dataset_revision", "image_column", "validation_split")
    )
    of_data_sets |= {"train_split": "train", "data_files": [], "validation_data_files": []}
    for name, default in of_data_sets.items() if own else ():
        if getattr(args, name) != default:
            yield f"--{name} chooses in a data set, and {own} is none. Leave it out."
    if args.dataset_revision and args.dataset_name and Path(args.dataset_name).is_dir():
        yield (
            f"--dataset_revision is for the Hub, and {args.dataset_name} is a folder here. Leave "
            "it out."
        )
    if args.streaming and (args.train_data_dir or args.dataset_name == "sample"):
        yield "--streaming reads from the Hub. Leave it out for pictures that are here."
    if args.streaming and not (
        args.validation_split or args.validation_data_dir or args.max_train_images
    ):
        yield (
            "--streaming cannot keep the last pictures for validation. Name a --validation_split "
            "or --validation_data_dir (or, for a trial, --max_train_images)."
        )
    if args.validation_data_files and args.validation_split is None:
        yield (
            "--validation_data_files needs --validation_split NAME. Any name will do; those files "
            "become that split."
        )
