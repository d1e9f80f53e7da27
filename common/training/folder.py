"""The folder of a run and the checkpoints in it.

A checkpoint is a folder `checkpoint-{step}` in Accelerate's format. The checksums of its files are
in `SHA256SUMS`, which `sha256sum -c` reads as well. A folder of that name is always whole: it is
written as `checkpoint-{step}.partial`, flushed to the disk and then renamed, and renamed back
before it is deleted. So a program can be killed at any moment.
"""

import errno
import json
import os
import re
import shutil
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from common import files
from common.curves import METRICS
from common.errors import UserError
from common.files import (
    CHECKSUMS,
    TEMPORARY,
    delete_leftovers,
    flush_to_disk,
    read_json_lines,
    unused,
)
from common.network import CONFIG, WEIGHTS
from common.options import Arguments
from common.record import RECORD
from common.tables import enumerate_first
from common.terminal import say
from common.training.length import take_length
from common.training.recipe import check_network, check_recipe, read_recipe
from common.training.together import Processes

LOCK = ".lock"
# Files of every checkpoint. Accelerate goes on without some of them, and says nothing.
NEEDED = (
    "model.safetensors",
    "optimizer.bin",
    "random_states_0.pkl",
    "custom_checkpoint_0.pkl",
    RECORD,
)
PATIENCE = 15  # seconds, since the processes of a loader outlive a killed run by some five


class Claim(NamedTuple):
    """Output folder that belongs to this run.

    Attributes:
        checkpoint: Checkpoint to go on from, or None to begin.
        differences: Differences between its recipe and this one, all allowed.
        lock: Lock of the folder, on the main process.
    """

    checkpoint: Path | None
    differences: list[str]
    lock: FileLock | None


def claim_together(args: Arguments, processes: Processes) -> Claim:
    """Claims the output folder; all processes go by what the main one finds there.

    Raises:
        UserError: The folder or its checkpoint cannot be used.
    """
    locks: list[FileLock] = []

    def claim() -> tuple[Path | None, list[str]]:
        locks.append(claim_folder(args.output_dir, args.resume_from_checkpoint))
        if not args.resume_from_checkpoint:
            return None, []
        checkpoint, notes = choose_checkpoint(args.output_dir, args.resume_from_checkpoint)
        for note in notes:
            processes.warn(note)
        if checkpoint:
            check_network(args, checkpoint)
            take_length(args, checkpoint)
        return checkpoint, check_recipe(args, checkpoint) if checkpoint else []

    checkpoint, differences = processes.from_main(claim)
    folder = checkpoint or args.output_dir
    if not all(processes.gather(folder.is_dir())):
        processes.fail(
            f"{folder} is on the disk of the first machine only. Name an --output_dir that all "
            "machines see."
        )
    if checkpoint:
        take_length(args, checkpoint)
    return Claim(checkpoint, differences, locks[0] if locks else None)


def claim_folder(output_dir: Path, wanted: str | None) -> FileLock:
    """Makes the output folder, and keeps other runs out of it.

    Args:
        output_dir: Folder, which may be missing.
        wanted: `--resume_from_checkpoint`.

    Returns:
        Lock that holds the folder until it is released, or the program ends in whatever way.

    Raises:
        UserError: The folder holds something that would be overwritten, cannot be written to, or
            belongs to another run at the moment.
    """
    _check_folder(output_dir, wanted)
    # (One object a path: in a notebook, a run that failed may still be held by its traceback.)
    lock = FileLock(output_dir / LOCK, is_singleton=True)
    made = [path for path in (output_dir, *output_dir.parents) if not path.exists()]
    if not (output_dir / LOCK).exists():
        weakref.finalize(lock, _leave_nothing, output_dir, made)  # also at the program's end
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        _acquire(lock)
    except Timeout:
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


def _leave_nothing(output_dir: Path, made: Sequence[Path]) -> None:
    """Deletes the lock, and the folders made for it, of a run that ended before it began."""
    with suppress(OSError):  # the folder may be gone
        if [path.name for path in output_dir.iterdir()] == [LOCK]:
            (output_dir / LOCK).unlink()
        for folder in made:
            folder.rmdir()


def _acquire(lock: FileLock) -> None:
    """Takes a lock.

    Raises:
        Timeout: Another program holds it for longer than we wait.
        OSError: The folder cannot be written to.
    """
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"Waiting {PATIENCE} seconds for another program that holds {lock.lock_file}.")
        lock.acquire(timeout=PATIENCE)
    except NotImplementedError:
        pass  # a file system that knows no locks
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        # The same, in other words: NFS without a lock daemon, for example.


def _check_folder(output_dir: Path, wanted: str | None) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir} is a file. Name a folder.")
    used = _is_used(output_dir)
    # (A run that has lost its record has one in each checkpoint.)
    if used and not (output_dir / RECORD).exists() and not list_checkpoints(output_dir):
        raise UserError(
            f"--output_dir {output_dir} is not empty and not that of a run. Name another."
        )
    if used and not wanted:
        raise UserError(
            f"--output_dir {output_dir} is not empty. Go on with the run in it by "
            "--resume_from_checkpoint latest, or name another folder."
        )


def choose_checkpoint(output_dir: Path, wanted: str) -> tuple[Path | None, list[str]]:
    """Chooses the checkpoint to go on from: the one that is named, or the newest whole one.

    Remains of a checkpoint that was being written or deleted are removed, and a damaged checkpoint
    gets another name.

    Args:
        output_dir: Folder that this run has claimed.
        wanted: `latest`, or the path of a checkpoint.

    Returns:
        (checkpoint or None if there is none yet, lines about those that were passed over).

    Raises:
        UserError: There is no such checkpoint, or none that is whole.
    """
    notes = []
    for folder in (output_dir, *output_dir.glob("*/")):
        delete_leftovers(folder)
    for partial in output_dir.glob("checkpoint-*.partial"):
        ours = re.fullmatch(r"checkpoint-\d+\.partial", partial.name)
        if ours and partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial)
            notes.append(f"Passed over {partial.name}, which is not whole, and removed it.")
    checkpoints = list_checkpoints(output_dir)
    if wanted != "latest":
        return _named_checkpoint(output_dir, Path(wanted), checkpoints), notes

    damaged = {}
    while checkpoints and (damage := find_damage(checkpoints[-1])):
        damaged[checkpoints.pop()] = damage
    if damaged and not checkpoints:
        reasons = enumerate_first([f"{path.name}: {why}" for path, why in damaged.items()], 2)
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
        new = unused(path.with_name(f"{path.name}.damaged"))
        path.rename(new)
        notes.append(f"Passed over {path.name}, which is damaged: {damage}. It is {new.name} now.")
    return checkpoints[-1] if checkpoints else None, notes


def _steps_without_checkpoint(output_dir: Path) -> int:
    """Last step in the log, if there must have been a checkpoint before it; otherwise 0."""
    log = output_dir / METRICS
    steps = [line["step"] for line in read_json_lines(log).lines.values()] if log.is_file() else []
    try:
        first = read_recipe(output_dir)["args"].get("checkpointing_steps", 0)
    except UserError:
        first = 0
    step = max(steps, default=0)
    damaged = any(output_dir.glob("checkpoint-*.damaged"))
    return step if damaged or not isinstance(first, int) or step > first else 0


def _named_checkpoint(output_dir: Path, path: Path, checkpoints: list[Path]) -> Path:
    if not (path / CHECKSUMS).is_file():  # whatever its name is now
        raise UserError(_no_checkpoint(output_dir, path, checkpoints))
    if _is_used(output_dir) and (not checkpoints or not checkpoints[-1].samefile(path)):
        raise UserError(
            f"--output_dir {output_dir} holds a run that goes on from elsewhere than {path}. Name "
            "another --output_dir to go on from there."
        )
    if damage := find_damage(path):
        inside = path.resolve().parent == output_dir.resolve()
        way_out = "Use `latest`, which takes the one before it." if inside else "Use another."
        raise UserError(f"{path} is damaged: {damage}. {way_out}")
    return path


def _no_checkpoint(output_dir: Path, path: Path, checkpoints: list[Path]) -> str:
    """Says what a path is that is no checkpoint, and what is wanted."""
    if inner := list_checkpoints(path):
        return (
            f"--resume_from_checkpoint {path} is the folder of a run. Give `latest` with "
            f"--output_dir {path} to go on there, or {inner[-1]} with another --output_dir."
        )
    what = "is no checkpoint folder: it has no " + CHECKSUMS
    if not path.exists():
        what = "is not there"
    elif path.is_file():
        what = "is a file, no checkpoint folder"
    elif (path / WEIGHTS).exists() and (path / CONFIG).exists():
        what = "is a model, from which a new run can begin by --init_from"
    elif re.fullmatch(r"checkpoint-\d+", path.name):
        what = f"is damaged: {CHECKSUMS} is missing"
    names = ", ".join(checkpoint.name for checkpoint in checkpoints) or "none"
    return (
        f"--resume_from_checkpoint {path} {what}. Use `latest`, or the path of a checkpoint. In "
        f"{output_dir} there are: {names}."
    )


def list_checkpoints(folder: Path) -> list[Path]:
    """Lists the checkpoints in a folder, oldest first."""
    found = [
        path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def way_on(output_dir: Path) -> str:
    """Says what the user can do after a run in this folder has failed."""
    if checkpoints := list_checkpoints(output_dir):
        name = checkpoints[-1].name
        return f"The same command with --resume_from_checkpoint latest goes on from {name}."
    return (
        "No checkpoint was saved before, so nothing can go on: begin again in another --output_dir,"
        f" with --init_from {output_dir} if there is a model in it."
    )


def find_damage(checkpoint: Path) -> str | None:
    """Says how a checkpoint differs from what was written; None if it does not."""
    missing = (f"{name} is missing" for name in NEEDED if not (checkpoint / name).exists())
    return files.find_damage(checkpoint) or next(missing, None)


def seal(partial: Path, record: dict[str, Any]) -> None:
    """Makes a checkpoint of the folder `checkpoint-{step}.partial`, when all have written to it.

    Args:
        partial: The folder.
        record: Facts for resuming: options, fingerprint of the pictures, seconds of training.

    Raises:
        OSError: There is no room, for example.
    """
    (partial / RECORD).write_text(json.dumps(record, indent=2, default=str) + "\n")
    files.write_checksums(partial)
    for path in partial.iterdir():
        with open(path, "r+b") as file:
            flush_to_disk(file.fileno())
    _sync_folder(partial)
    partial.rename(partial.with_suffix(""))
    _sync_folder(partial.parent)


def delete_oldest(folder: Path, keep: int, spared: str = "") -> None:
    """Deletes all checkpoints but the newest ones, and one of the name `spared`."""
    checkpoints = [path for path in list_checkpoints(folder) if path.name != spared]
    for checkpoint in checkpoints[:-keep]:
        partial = checkpoint.rename(checkpoint.with_name(f"{checkpoint.name}.partial"))
        shutil.rmtree(partial, ignore_errors=True)  # the next start removes what is left


def _is_used(output_dir: Path) -> bool:
    free = {LOCK, f"{RECORD}.partial"}  # what runs leave, also older ones, that never began
    return output_dir.is_dir() and any(
        path.name not in free and not TEMPORARY.fullmatch(path.name)
        for path in output_dir.iterdir()
    )


def _sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        flush_to_disk(descriptor)
        os.close(descriptor)
