"""Files of a model folder, read with distrust: they may be damaged, or somebody else's.

Nothing but JSON and tensors is read. A checkpoint is read like a model: of a run that averages its
weights, the average.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from common.errors import UserError
from common.files import CHECKSUMS, find_damage
from common.network import CONFIG, WEIGHTS
from common.tables import enumerate_first

LARGEST_CONFIG = 100_000  # bytes
LFS_POINTER = b"version https://git-lfs"
# Accelerate numbers what a run registers: the state of the run, then the average of its weights.
STATE, AVERAGE = "custom_checkpoint_0.pkl", "custom_checkpoint_1.pkl"
WRAPPERS = re.compile(r"^(?:_orig_mod\.|module\.)+")  # what torch.compile and DDP put before names


def config_of(folder: Path) -> Path:
    """The `config.json` of a model folder, or of a checkpoint, which may lie in its run's folder.

    Checkpoints of older versions have none of their own.
    """
    own = folder / CONFIG
    is_older = (folder / STATE).is_file() and not own.is_file()
    return folder.parent / CONFIG if is_older else own


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Reads the weights of a model folder or of a checkpoint.

    Raises:
        UserError: They are missing or damaged, or differ from the checksums in the folder.
    """
    tensors = read_weights(folder / WEIGHTS)
    names = [WEIGHTS] + [name for name in (CONFIG, AVERAGE) if (folder / name).exists()]
    if (folder / CHECKSUMS).is_file() and (damage := find_damage(folder, names)):
        raise UserError(
            f"{folder} is damaged, or was changed: {damage}, says {CHECKSUMS}. Take it from where "
            f"it came, or delete {CHECKSUMS} if you changed the files yourself."
        )
    if (folder / STATE).is_file() and (folder / AVERAGE).is_file():
        tensors = _read_average(folder / AVERAGE)
    return {WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}


def _read_average(file: Path) -> dict[str, Tensor]:
    """Reads the average that a checkpoint of a run with --ema_decay holds.

    Raises:
        UserError: The file holds something else.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        tensors = {name: value for name, value in state.items() if name != "n_averaged"}
        if tensors and all(map(torch.is_tensor, tensors.values())):
            return tensors
    except Exception:  # errors of many kinds: whatever a pickle holds
        pass
    raise UserError(
        f"{file} is not the average of the weights of a run with --ema_decay. Use another "
        "checkpoint, or the model in the run's folder."
    )


def read_config(file: Path) -> tuple[str, dict[str, Any]]:
    """Reads which network a `config.json` is of, and the arguments of its constructor.

    Raises:
        UserError: The file is no such thing.
    """
    reason = 'it does not say which network it is of ("architecture")'
    try:
        if file.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"it has more than {LARGEST_CONFIG:,} bytes")
        config = json.loads(file.read_text())
        if isinstance(config, dict) and isinstance(config.get("architecture"), str):
            return config.pop("architecture"), config
    except (ValueError, RecursionError, OSError) as error:
        reason = f"{error}"[:200] if isinstance(error, ValueError) else type(error).__name__
    raise UserError(f"{file} is damaged, or no configuration of a network: {reason}.")


def read_weights(file: Path) -> dict[str, Tensor]:
    """Reads a `.safetensors` file of finite numbers.

    Raises:
        UserError: The file is something else or damaged, or has weights that are infinite or no
            numbers, which would make black pictures or none.
    """
    try:
        with open(file, "rb") as opened:
            start = opened.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise UserError(
                f"{file} is a pointer of git-lfs in place of the weights. Get them by `git lfs "
                "pull`."
            )
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{file} cannot be read as .safetensors: {f'{error}'[:200]}. It is damaged, cut off, "
            "or something else."
        ) from None
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise UserError(
            f"{file} holds weights that are no finite numbers, in {len(bad)} of {len(tensors)} "
            f"tensors ({enumerate_first(bad, 2)}). Its training diverged, or the file is damaged. "
            "Use another checkpoint or model."
        )
    return tensors
