"""Files of a model folder, read with distrust: they may be damaged, or somebody else's.

Nothing but JSON and tensors is read. A checkpoint is read like a model: of a run that averages its
weights, the average.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from common.errors import UserError
from common.files import CHECKSUMS, find_damage
from common.network import CONFIG, WEIGHTS, SuperResolutionModel
from common.tables import enumerate_first, plural

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


def load_whole(model: SuperResolutionModel, tensors: Mapping[str, Tensor]) -> None:
    """Loads all tensors of a network.

    Raises:
        ValueError: The tensors are those of another one; the reason, in words.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:  # PyTorch names every tensor that does not fit
        reason = _misfits(model.state_dict(), tensors) or f"{error}"
        raise ValueError(f"{reason}. Take {WEIGHTS} and {CONFIG} from the same model.") from None


def _misfits(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    missing = [name for name in own if name not in tensors]
    foreign = [name for name in tensors if name not in own]
    shapes = [
        f"{name} is {_shape(tensors[name])} and must be {_shape(tensor)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    facts = []
    if missing:
        names = enumerate_first([name[:40] for name in missing], 1)
        facts.append(f"{len(missing)} of its {plural(len(own), 'tensor')} are missing ({names})")
    if foreign:
        names = enumerate_first([name[:40] for name in foreign], 1)
        facts.append(f"{len(foreign)} of the file are of another network ({names})")
    if shapes:
        facts.append(f"{len(shapes)} have another shape ({enumerate_first(shapes, 1)})")
    return ", ".join(facts)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


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
