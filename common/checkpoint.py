"""The folder of a run and the checkpoints in it.

A checkpoint is a folder `checkpoint-{step}` in Accelerate's format, with the checksums of its files
in `SHA256SUMS`, which `sha256sum -c` reads as well. It bears that name only while it is whole: it
is written as `checkpoint-{step}.partial`, flushed to the disk and then renamed, and renamed back
before it is deleted. So a program can be killed at any moment.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import IO, Any

from common.errors import UserError

CHECKSUMS, LOCK, RECORD = "SHA256SUMS", ".lock", "args.json"
PATIENCE = 15  # seconds, since the loader's processes outlive a killed run by some five

# What may change when a run is resumed. Everything else is its recipe.
_NOT_RECIPE = {
    *("max_train_steps", "output_dir", "init_from", "resume_from_checkpoint", "report_to"),
    *("dataset_name", "dataset_config_name", "image_column", "train_data_dir", "data_files"),
    *("dataset_revision", "train_split", "validation_split", "max_train_images", "revision"),
    *("push_to_hub", "hub_model_id", "hub_private"),
    *(
        "validation_data_dir",
        "validation_data_files",
        "mixed_precision",
        "compile",
        "num_workers",
        "cpu_threads",
    ),
    *("logging_steps", "validation_steps", "checkpointing_steps", "checkpoints_total_limit"),
    *("gradient_accumulation_steps", "allow_recipe_change"),
    "vgg_weights",  # a path, which says nothing of what is in the file
}


def claim_folder(output_dir: Path, wanted: str | None) -> IO[bytes]:
    """Makes the output folder, and keeps it from other runs.

    Args:
        output_dir: May be missing.
        wanted: `--resume_from_checkpoint`.

    Returns:
        What holds the folder until it is closed, or the program ends in whatever way.

    Raises:
        UserError: The folder holds something that would be overwritten, cannot be written to, or
            is another run's at the moment.
    """
    _check_folder(output_dir, wanted)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = open(output_dir / LOCK, "ab")  # noqa: SIM115 (for the caller to keep)
        _acquire(lock)
    except BlockingIOError:
        raise UserError(
            f"Another program still trains in --output_dir {output_dir}. Wait until it ends, stop "
            "it, or name another folder."
        ) from None
    except OSError as error:
        raise UserError(
            f"Cannot write to --output_dir {output_dir}: {error}. Name another folder, or make "
            "room there and see who may write to it."
        ) from None
    _check_folder(output_dir, wanted)  # which may have changed while we waited
    return lock


def _check_folder(output_dir: Path, wanted: str | None) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir} is a file. Name a folder.")
    used = _is_used(output_dir)
    if used and not wanted:
        raise UserError(
            f"--output_dir {output_dir} is not empty. Go on with the run in it by "
            "--resume_from_checkpoint latest, or name another folder."
        )
    if used and not (output_dir / RECORD).exists():
        raise UserError(
            f"--output_dir {output_dir} is not empty and not that of a run. Name another."
        )


def choose_checkpoint(output_dir: Path, wanted: str) -> tuple[Path | None, list[str]]:
    """The checkpoint to go on from: the one that is named, or the newest whole one.

    What is left of one that was being written or deleted is removed, and a damaged one gets another
    name.

    Args:
        output_dir: Claimed.
        wanted: `latest`, or the path of a checkpoint.

    Returns:
        The checkpoint, or None if there is none yet, and what to tell of those passed over.

    Raises:
        UserError: There is no such checkpoint, or none that is whole.
    """
    notes = []
    for partial in (*output_dir.glob("*.partial"), *output_dir.glob("*/*.partial")):
        if partial.is_dir():
            shutil.rmtree(partial)
            notes.append(f"Passed over {partial.name}, which is not whole, and removed it.")
        else:
            partial.unlink()
    checkpoints = list_checkpoints(output_dir)
    if wanted != "latest":
        return _named_checkpoint(output_dir, Path(wanted), checkpoints), notes

    damaged = {}
    while checkpoints and (damage := find_damage(checkpoints[-1])):
        damaged[checkpoints.pop()] = damage
    if damaged and not checkpoints:
        reasons = "; ".join(f"{path.name}: {damage}" for path, damage in damaged.items())
        raise UserError(
            f"No checkpoint in {output_dir} is whole ({reasons}). Begin anew in another "
            "--output_dir, if you like with the weights that are here, by --init_from."
        )
    if not checkpoints and (lost := _steps_without_checkpoint(output_dir)):
        raise UserError(
            f"{output_dir} has no checkpoint, though its log goes to step {lost}. To begin anew "
            "would overwrite what it has. Name another --output_dir, if you like with --init_from "
            f"{output_dir}, or delete the folder."
        )
    for path, damage in damaged.items():
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        notes.append(
            f"Passed over {path.name}, which is damaged: {damage}. It is {aside.name} now."
        )
    return checkpoints[-1] if checkpoints else None, notes


def _steps_without_checkpoint(output_dir: Path) -> int:
    """The last step in the log, if there must have been a checkpoint before it; else 0."""
    log, record = output_dir / "metrics.jsonl", output_dir / RECORD
    if not log.exists() or not record.exists():
        return 0
    lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    step = json.loads(lines[-1])["step"] if lines else 0
    first = json.loads(record.read_text())["args"]["checkpointing_steps"]
    return step if step > first or any(output_dir.glob("checkpoint-*.damaged")) else 0


def _acquire(lock: IO[bytes]) -> None:
    """Locks a file, where the system and the file system know how to.

    Raises:
        BlockingIOError: Another program holds it for longer than we wait.
    """
    if os.name != "posix":
        return
    import fcntl

    for attempt in range(10 * PATIENCE):
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not attempt:
                print(f"Waiting {PATIENCE} seconds for another program that holds {lock.name}.")
            time.sleep(0.1)
        except OSError:
            return None
    raise BlockingIOError


def _named_checkpoint(output_dir: Path, path: Path, checkpoints: list[Path]) -> Path:
    if not path.is_dir() or not re.fullmatch(r"checkpoint-\d+", path.name):
        names = ", ".join(checkpoint.name for checkpoint in checkpoints) or "none"
        raise UserError(
            f"--resume_from_checkpoint {path} is no checkpoint folder. Use `latest`, or the path "
            f"of one. In {output_dir} there are: {names}."
        )
    if _is_used(output_dir) and (not checkpoints or not checkpoints[-1].samefile(path)):
        raise UserError(
            f"--output_dir {output_dir} holds a run that goes on from elsewhere than {path}. Name "
            "another --output_dir to go on from there."
        )
    if damage := find_damage(path):
        raise UserError(f"{path} is damaged: {damage}. Use another, or `latest`.")
    return path


def check_recipe(args: argparse.Namespace, checkpoint: Path) -> list[str]:
    """How the command differs from that of the checkpoint's run in what makes the weights.

    Half of one recipe and half of another would be neither.

    Returns:
        A line for each difference, none without `--allow_recipe_change`.

    Raises:
        UserError: There are differences, and they are not allowed.
    """
    before = json.loads((checkpoint / RECORD).read_text())["args"]
    # A longer cosine falls more slowly from its first step on.
    free = _NOT_RECIPE - ({"max_train_steps"} if args.lr_scheduler == "cosine" else set())
    differences = [
        f"--{key} was {before[key]} and is {value}"
        for key, value in vars(args).items()
        if key not in free and key in before and before[key] != value
    ]
    return allow_differences(differences, args, checkpoint)


def allow_differences(
    differences: list[str], args: argparse.Namespace, checkpoint: Path
) -> list[str]:
    """The same differences, if there are none or `--allow_recipe_change` is given.

    Raises:
        UserError: Else.
    """
    if differences and not args.allow_recipe_change:
        raise UserError(
            f"Cannot resume from {checkpoint} by another recipe: {', '.join(differences)}. Give "
            "the same options, start a new run with --init_from and another --output_dir, or go on "
            "with the new recipe by --allow_recipe_change."
        )
    return differences


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [
        path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def find_damage(checkpoint: Path) -> str | None:
    """What keeps a checkpoint from being as it was written; None if it is."""
    name = CHECKSUMS
    try:
        lines = (checkpoint / name).read_text(errors="replace").splitlines()
        sums = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in lines]
        if not all(sums) or not sums:
            return f"{name} is not what was written"
        for digest, name in (line.groups() for line in sums if line):
            if _sha256(checkpoint / name) != digest:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error}"
    return None


def seal(partial: Path, record: dict[str, Any]) -> None:
    """Makes a checkpoint of the folder `checkpoint-{step}.partial`, to which all have written.

    Args:
        partial: The folder.
        record: What `check_recipe` will read.

    Raises:
        OSError: There is no room, for example.
    """
    (partial / RECORD).write_text(json.dumps(record, indent=2, default=str) + "\n")
    sums = [f"{_sha256(path)}  {path.name}\n" for path in sorted(partial.iterdir())]
    (partial / CHECKSUMS).write_text("".join(sums))
    for path in partial.iterdir():
        with open(path, "r+b") as file:
            os.fsync(file.fileno())
    _sync_folder(partial)
    partial.rename(partial.with_suffix(""))
    _sync_folder(partial.parent)


def delete_oldest(folder: Path, keep: int) -> None:
    """Deletes all checkpoints but the newest ones."""
    for checkpoint in list_checkpoints(folder)[:-keep]:
        partial = checkpoint.rename(checkpoint.with_name(f"{checkpoint.name}.partial"))
        shutil.rmtree(partial, ignore_errors=True)  # the next start removes what is left


def _is_used(output_dir: Path) -> bool:
    free = {LOCK, f"{RECORD}.partial"}  # what a run leaves that ended before it began
    return output_dir.is_dir() and any(path.name not in free for path in output_dir.iterdir())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
