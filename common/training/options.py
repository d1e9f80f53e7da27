"""Options of a run that do not change what is trained: where, how fast, how long, what is kept."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from common.data.degradation import NONE
from common.data.options import add_data_arguments
from common.options import Condition, Group, Parser, real, whole
from common.training.compiling import MODES, check_compile
from common.training.length import check_minutes, fill_in_minutes
from common.training.parts import AUTO
from common.training.trackers import TENSORBOARD, check_trackers


def add_run_arguments(
    parser: Parser,
    output_dir: str,
    max_train_steps: int,
    *,
    least_steps: int = 1,
    parts_change_results: Condition | None = None,
) -> Group:
    """Adds the options that all training scripts share, those of the data included.

    Args:
        parser: Parser of the script.
        output_dir: Default of `--output_dir`.
        max_train_steps: Default of `--max_train_steps`.
        least_steps: Smallest `--max_train_steps`.
        parts_change_results: Condition under which `--gradient_accumulation_steps` belongs to the
            recipe. Default: never, as for networks without batch normalization.

    Returns:
        The group `run`.
    """
    add_data_arguments(parser)
    run = parser.group("run", "How long and how fast. May change when a run resumes.")
    run.add_argument(
        "--max_train_steps",
        type=whole(least_steps),
        default=max_train_steps,
        recipe_if=lambda args: args.lr_scheduler == "cosine",
        help="optimizer steps of the run; belongs to the recipe where the learning rate falls by a "
        "cosine",
    )
    run.add_argument(
        "--max_train_minutes",
        type=real(above=0),
        help="minutes of training: the run measures its speed in its warm-up, and then sets "
        "--max_train_steps to what they allow, at most to that of the command, with a whole "
        "schedule",
    )
    run.add_argument(
        "--gradient_accumulation_steps",
        type=_parts,
        default=1,
        recipe_if=parts_change_results,
        metavar="N|auto",
        help="parts of a batch, one after the other, where it is too large for the memory; "
        "auto: as few as fit",
    )
    if parts_change_results:
        parser.checks.append(_check_parts)
    run.add_argument(
        "--init_from",
        help="weights to start from: name of a model in pretrained/, model folder, checkpoint, "
        ".safetensors file, or user/name on the Hub (default: fresh weights)",
    )
    run.add_argument(
        "--revision",
        only_with=("init_from",),
        help="branch, tag or commit of --init_from on the Hub",
    )
    run.add_argument(
        "--mixed_precision",
        choices=["no", "fp16", "bf16"],
        help="type of the numbers in the network: no is float32; bf16 for a GPU of 2020 or later, "
        "fp16 for an older one (default: what `accelerate launch` or `accelerate config` says, "
        "else no)",
    )
    run.add_argument(
        "--compile",
        nargs="?",
        const=MODES[0],
        choices=MODES,
        metavar="MODE",
        help="compile the network with torch.compile, by its mode default, reduce-overhead (on a "
        "GPU adds CUDA graphs) or max-autotune (also tries kernels, for minutes); without MODE by "
        "default (default: no)",
    )
    run.add_argument(
        "--pictures_on",
        choices=["device", "loader", "auto"],
        default="auto",
        help="where patches are cut, the same ones; device: there, in whose memory all pictures "
        "lie; loader: by the CPU; auto: on a GPU if they fit into a quarter of its free memory",
    )
    run.add_argument(
        "--num_workers",
        type=whole(0, 1000),
        help="processes that load patches, 0: the training itself (default: 2 on a GPU with large "
        "batches, with --degradation there one a core, at most 16; otherwise 0, as small ones are "
        "cut faster than sent)",
    )
    run.add_argument(
        "--cpu_threads",
        type=whole(most=10_000),
        help="threads of a process that computes on the CPU (default: OMP_NUM_THREADS, or its "
        "share of the cores)",
    )
    output = parser.group("output", "What is written. May change when a run resumes.")
    output.add_argument(
        "--output_dir",
        type=Path,
        default=Path(output_dir),
        help="folder of this run alone: the model (model.safetensors, config.json, and its card "
        "README.md), logs, and checkpoints",
    )
    output.add_argument(
        "--logging_steps", type=whole(), default=100, help="steps between two logs of the mean loss"
    )
    output.add_argument(
        "--validation_steps",
        type=whole(),
        default=5000,
        help="steps between two validations, which keep the weights if they are the best (in "
        "SRGAN's second phase always); the first comes at step 100 if this is larger",
    )
    output.add_argument(
        "--checkpointing_steps",
        type=whole(),
        default=1000,
        help="steps between two checkpoints, which hold all that resuming needs",
    )
    output.add_argument(
        "--checkpoints_total_limit",
        type=whole(),
        default=2,
        help="number of checkpoints to keep, the newest ones",
    )
    run.add_argument(
        "--resume_from_checkpoint",
        metavar="latest|PATH",
        help="go on with a run: from the `latest` checkpoint in --output_dir, or from the folder "
        "of one; where there is none yet, `latest` begins",
    )
    run.add_argument(
        "--allow_recipe_change",
        action="store_true",
        help="resume even if the recipe differs, and go on with the new one",
    )
    output.add_argument(
        "--report_to",
        nargs="+",
        default=[TENSORBOARD],
        metavar="TRACKER",
        help="programs that show curves and pictures, one or several of those that Accelerate "
        "knows: tensorboard, wandb, trackio, mlflow, aim, clearml, comet_ml, dvclive, swanlab; or "
        "none. metrics.jsonl is written in any case",
    )
    output.add_argument(
        "--tracker_project_name",
        default="super-resolution",
        help="project of the run in wandb, trackio, mlflow and others",
    )
    output.add_argument(
        "--push_to_hub", action="store_true", help="upload the model when all steps are done"
    )
    output.add_argument(
        "--hub_model_id",
        only_with=("push_to_hub",),
        help="name of the model on the Hub, user/name (default: that of --output_dir)",
    )
    output.add_argument(
        "--hub_private",
        action="store_true",
        only_with=("push_to_hub",),
        help="make the model on the Hub for yourself only",
    )
    output.add_argument(
        "--push_onnx",
        action="store_true",
        only_with=("push_to_hub",),
        help="with --push_to_hub: upload the network as an ONNX file too, which needs no PyTorch",
    )
    output.add_argument(
        "--license",
        type=_license,
        help="license of the weights in the card, as the Hub names it: apache-2.0, mit, cc-by-4.0, "
        "other (default: none is claimed, since the pictures may have terms of their own)",
    )
    output.add_argument(
        "--repository_url",
        help="address of this code in the card (default: that of the git remote `origin`, if it "
        "is on a public host)",
    )
    parser.completions.append(fill_in_minutes)
    parser.checks += [_check_run, check_compile, check_minutes, check_trackers]
    return run


def _parts(text: str) -> int | str:
    return AUTO if text == AUTO else whole()(text)


def _license(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9.+-]+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no license as the Hub names them: apache-2.0, mit, cc-by-4.0, other"
        )
    return text


def _check_parts(args: argparse.Namespace) -> Iterator[str]:
    if args.gradient_accumulation_steps == AUTO:
        yield (
            "--gradient_accumulation_steps auto: the parts belong to the recipe of this network, "
            "so the memory must not choose them. Give a number."
        )


def _check_run(args: argparse.Namespace) -> Iterator[str]:
    if args.pictures_on == "device" and args.degradation != NONE:
        yield (
            f"--pictures_on device has no LR made by --degradation {args.degradation}, which "
            "loaders make. Leave it out, or give --pictures_on loader."
        )
