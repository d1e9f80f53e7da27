"""The options of the training scripts: those of the recipe, and those of a run."""

import argparse
from collections.abc import Callable, Sequence
from math import cos, lcm, pi
from pathlib import Path

from common.data import DIV2K
from common.errors import UserError


def positive_int(text: str) -> int:
    """For argparse: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def add_recipe_arguments(
    parser: argparse.ArgumentParser,
    description: str,
    *,
    batch_size: int,
    max_train_steps: int,
    lr_scheduler: str,
    lr_step_size: int,
    lr_gamma: float,
    lr_warmup_steps: int = 0,
) -> argparse._ArgumentGroup:
    """Adds the group of the recipe, with the options that mean the same in all scripts.

    Args:
        parser: Gets the group.
        description: Where the defaults come from.
        batch_size: Default of `--batch_size`; so the others.
        max_train_steps: In optimizer steps.
        lr_scheduler: "step" or "cosine".
        lr_step_size: In optimizer steps.
        lr_gamma: In (0, 1].
        lr_warmup_steps: In optimizer steps.

    Returns:
        The group, to which a script adds what else its recipe has.
    """
    recipe = parser.add_argument_group("recipe", description)
    default = "(default: %(default)s)"
    recipe.add_argument(
        "--batch_size",
        type=positive_int,
        default=batch_size,
        help=f"patches of one optimizer step, over all processes {default}",
    )
    recipe.add_argument(
        "--gradient_accumulation_steps",
        type=positive_int,
        default=1,
        help="compute a batch in so many parts, one after the other, where it is too large for the "
        f"memory; the recipe stays the same {default}",
    )
    recipe.add_argument(
        "--max_train_steps",
        type=int,
        default=max_train_steps,
        help=f"optimizer steps {default}",
    )
    recipe.add_argument(
        "--lr_scheduler",
        choices=["step", "cosine"],
        default=lr_scheduler,
        help="step: the learning rate is multiplied by --lr_gamma every --lr_step_size steps; "
        f"cosine: it falls to zero {default}",
    )
    recipe.add_argument(
        "--lr_step_size", type=positive_int, default=lr_step_size, help=f"steps {default}"
    )
    recipe.add_argument("--lr_gamma", type=float, default=lr_gamma, help=default)
    recipe.add_argument(
        "--lr_warmup_steps",
        type=int,
        default=lr_warmup_steps,
        help=f"the rate rises linearly first {default}",
    )
    return recipe


def add_run_arguments(parser: argparse.ArgumentParser, output_dir: str) -> None:
    """Adds the options that all training scripts share and that `Run` reads."""
    run = parser.add_argument_group("run", "The same in all scripts.")
    pictures = run.add_mutually_exclusive_group()
    pictures.add_argument(
        "--dataset_name",
        default=DIV2K,
        help="data set on the Hugging Face Hub, or `sample`: the photographs in the scikit-image "
        "package (default: %(default)s)",
    )
    run.add_argument("--dataset_config_name", help="configuration of the data set")
    run.add_argument("--dataset_revision", help="its branch, tag or commit")
    run.add_argument("--train_split", default="train", help="to train on (default: %(default)s)")
    run.add_argument(
        "--validation_split",
        help="to choose the best weights by (default: as of --validation_data_dir)",
    )
    run.add_argument(
        "--data_files",
        nargs="+",
        default=[],
        metavar="FILE",
        help="files of the data set to train on, if not all; may have wildcards",
    )
    run.add_argument(
        "--validation_data_files",
        nargs="+",
        default=[],
        metavar="FILE",
        help="files of the data set to validate on",
    )
    run.add_argument("--image_column", help="its column of HR pictures (default: the only one)")
    run.add_argument(
        "--max_train_images",
        type=positive_int,
        help="train on the first so many pictures, for a trial",
    )
    run.add_argument(
        "--streaming",
        action="store_true",
        help="for data sets larger than the disk: read the pictures over the network while "
        "training, and keep only some of them; wants a validation split or folder",
    )
    run.add_argument(
        "--streaming_images",
        type=positive_int,
        default=500,
        help="pictures of a stream to train on at a time; twice as many are on the disk (default: "
        "%(default)s)",
    )
    run.add_argument(
        "--patches_per_image",
        type=positive_int,
        default=64,
        help="of a stream: how many patches its pictures give on average before the next ones take "
        "their place (default: %(default)s)",
    )
    pictures.add_argument(
        "--train_data_dir",
        type=Path,
        help="folder of HR pictures, instead of a data set of the Hub; with subfolders train/ and "
        "val/, those are to train and to validate on",
    )
    run.add_argument(
        "--validation_data_dir",
        type=Path,
        help="folder of HR pictures to choose the best weights by (default: the last pictures of "
        "the training set, a tenth but at most 10, which are then not trained on)",
    )
    run.add_argument(
        "--output_dir", type=Path, default=Path(output_dir), help="default: %(default)s"
    )
    run.add_argument(
        "--init_from",
        help="model folder, .safetensors file, or user/name on the Hub, to start from",
    )
    run.add_argument("--revision", help="of --init_from on the Hub: branch, tag or commit")
    run.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    run.add_argument(
        "--ema_decay",
        type=float,
        default=0.0,
        help="validate and save an exponential moving average of the weights, e.g. 0.999 "
        "(default: off)",
    )
    run.add_argument(
        "--mixed_precision",
        choices=["no", "fp16", "bf16"],
        help="default: what `accelerate launch` or `accelerate config` says, else no",
    )
    run.add_argument(
        "--compile", action="store_true", help="compile the network with torch.compile"
    )
    run.add_argument(
        "--num_workers", type=int, default=2, help="loader processes (default: %(default)s)"
    )
    run.add_argument(
        "--cpu_threads",
        type=positive_int,
        help="threads of a process that computes on the CPU (default: its share of the cores)",
    )
    for name, default, what in (
        ("logging_steps", 100, "log the mean loss"),
        (
            "validation_steps",
            5000,
            "validate, and keep the weights if they are the best (SRGAN's second phase: always)",
        ),
        ("checkpointing_steps", 1000, "save all that resuming needs"),
    ):
        help_text = f"{what} every so many steps (default: %(default)s)"
        run.add_argument(f"--{name}", type=positive_int, default=default, help=help_text)
    run.add_argument(
        "--checkpoints_total_limit",
        type=positive_int,
        default=2,
        help="keep so many (default: %(default)s)",
    )
    run.add_argument(
        "--resume_from_checkpoint",
        help="`latest` in --output_dir, or the path of a checkpoint folder",
    )
    run.add_argument(
        "--allow_recipe_change",
        action="store_true",
        help="resume even if options differ that make the weights, and go on with the new ones",
    )
    run.add_argument("--report_to", choices=["tensorboard", "none"], default="tensorboard")
    run.add_argument(
        "--push_to_hub", action="store_true", help="upload the model when all steps are done"
    )
    run.add_argument(
        "--hub_model_id", help="its name there, user/name (default: that of --output_dir)"
    )
    run.add_argument("--hub_private", action="store_true", help="make it for yourself only")


def learning_rate_factor(args: argparse.Namespace) -> Callable[[int], float]:
    """The schedule of the command line as a factor of the learning rate, for `LambdaLR`."""

    def factor(step: int) -> float:
        if step < args.lr_warmup_steps:
            return (step + 1) / args.lr_warmup_steps
        if args.lr_scheduler == "step":
            return args.lr_gamma ** (step // args.lr_step_size)
        progress = (step - args.lr_warmup_steps) / max(
            1, args.max_train_steps - args.lr_warmup_steps
        )
        return (1 + cos(pi * min(progress, 1.0))) / 2

    return factor


def check_arguments(args: argparse.Namespace, scales: Sequence[int]) -> None:
    """Checks what `argparse` cannot.

    Raises:
        UserError: With the option, its value, the rule, and the way out.
    """
    divisor = lcm(*scales)
    rules = {
        f"--patch_size {args.patch_size} is not a multiple of --scale "
        f"{' '.join(map(str, scales))}; try {-(-args.patch_size // divisor) * divisor}.": (
            args.patch_size % divisor == 0
        ),
        f"--lr_gamma {args.lr_gamma} is not in (0, 1].": 0 < args.lr_gamma <= 1,
        f"--ema_decay {args.ema_decay} is not in [0, 1).": 0 <= args.ema_decay < 1,
        f"--learning_rate {args.learning_rate} is not above 0.": args.learning_rate > 0,
        f"--lr_warmup_steps {args.lr_warmup_steps} is below 0.": args.lr_warmup_steps >= 0,
        f"--num_workers {args.num_workers} is below 0.": args.num_workers >= 0,
        f"--seed {args.seed} is not in [0, 2^32).": 0 <= args.seed < 2**32,
        "--streaming reads from the Hub. Leave it out for pictures that are here.": (
            not args.streaming or args.dataset_name not in (None, "sample")
        ),
        "--streaming cannot keep the last pictures for validation. Name a --validation_split or "
        "--validation_data_dir (or, for a trial, --max_train_images).": (
            not args.streaming
            or bool(args.validation_split or args.validation_data_dir or args.max_train_images)
        ),
        "--validation_data_files are of a --validation_split. Name it, as you like.": (
            not args.validation_data_files or args.validation_split is not None
        ),
    }
    for message, kept in rules.items():
        if not kept:
            raise UserError(message)
