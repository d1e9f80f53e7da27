"""Models by name: loaded from a folder or the Hugging Face Hub, and pushed there.

    model = load_model("a2n-x2")  # of this repository; or "out/a2n", a folder; or "user/name"
    sr = model(lr)
    push_model("out/a2n", "user/name")

A model is a folder with `config.json`, `model.safetensors` and `README.md`. Nothing but JSON and
safetensors is read, and `config.json` can name nothing but a `train_*.py`.
"""

if __name__ == "__main__":
    import common.start

import argparse
import importlib
import inspect
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import hf_hub_download
from torch import nn

from common.arguments import check_arguments
from common.card import CARD, EXAMPLE, give_address
from common.curves import CURVES
from common.errors import UserError
from common.exports.checks import check_packages
from common.exports.writing import export_beside
from common.hub_api import ask_hub, full_name, push_folder, why
from common.launcher import says_first
from common.machine import ROOT
from common.network import CONFIG, WEIGHTS, SuperResolutionModel, check_size
from common.pretrained import find_pretrained, for_scale, models_in_words, pretrained_names
from common.tables import enumerate_first
from common.terminal import say
from common.weights import STATE, config_of, load_whole, read_config, read_folder, read_weights

FILES = (CONFIG, WEIGHTS)

__all__ = ["SuperResolutionModel", "load_matching", "load_model", "push_model"]


def find_here(name: str | Path) -> Path | None:
    """Finds a model on this machine: a folder or file of that path, or a name in `pretrained/`.

    Raises:
        UserError: There is such a name, and something is missing in its folder.
    """
    return Path(name) if Path(name).exists() else find_pretrained(f"{name}")


def find_model(name: str | Path, revision: str | None = None) -> Path:
    """Finds the folder of a model; the files of a model on the Hub are downloaded.

    Raises:
        UserError: There is no such folder, and no such model in `pretrained/` and on the Hub; or a
            revision is asked for of a folder, which has none.
    """
    if folder := find_here(name):
        if revision is not None:
            raise UserError(
                f"Revision {revision} is of models on the Hub, and {name} is a folder here. Leave "
                "it out, or rename that folder."
            )
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", f"{name}"):
        what = "folder or file" if len(Path(name).parts) > 1 else "model, folder or file"
        raise UserError(f"There is no {what} {name}. {_others_beside(name)}{models_in_words()}")
    missing: list[str] = []
    try:
        found = ask_hub("model", f"{name}", revision)
        missing = [file for file in FILES if found and file not in found[1]]
        if not missing:
            files = [hf_hub_download(f"{name}", file, revision=revision) for file in FILES]
            return Path(files[0]).parent
    except (
        UserError,
        Exception,
    ) as error:  # besides ask_hub's, errors of many kinds: network, disk
        reason = f"{error}" if isinstance(error, UserError) else f"Cannot download it: {why(error)}"
    if missing:
        raise UserError(f"The model {name} on the Hub has no {' and no '.join(missing)}.")
    parent = Path(name).parent
    if parent.is_dir() or parent.name == "out":  # the default of --output_dir: no user of the Hub
        others_here = _others_beside(name) or "Train a model first. "
        raise UserError(f"There is no folder {name}. {others_here}{models_in_words()}")
    others = f" {models_in_words()}" if pretrained_names() else ""
    raise UserError(f"There is no folder {name}. {reason[:250]}{others}")


def load_model(
    name: str | Path, revision: str | None = None, scale: int | None = None
) -> SuperResolutionModel:
    """Loads a network that `save_pretrained` or a training script wrote.

    Args:
        name: Name of a model in `pretrained/`, folder of a model or of a checkpoint, or `user/name`
            on the Hub.
        revision: Branch, tag or commit on the Hub. Default: the main branch.
        scale: Factor to enlarge by. Default: the smallest that the network is trained for.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: There is no such model, its weights are those of another network, or it is not
            trained for that scale.
    """
    folder = find_model(name, revision)
    if folder.is_file():
        raise UserError(_instead_of_file(folder))
    config = config_of(folder)
    missing = [file.name for file in (config, folder / WEIGHTS) if not file.is_file()]
    if missing:
        lacks = f"{folder} is no model: it has no {' and no '.join(missing)}."
        raise UserError(f"{lacks} {_instead_of_folder(folder)}")
    architecture, arguments = read_config(config)
    network = find_network(architecture)
    tensors = read_folder(folder)
    arguments = _known_arguments(network, arguments, config)
    try:
        check_arguments(network, arguments)
        check_size(network, arguments)
        model = network(**arguments).eval()
        load_whole(model, tensors)
        # Arguments of a wrong type show here at the latest. (Some networks cannot carry this size.)
        with torch.no_grad(), suppress(RuntimeError, ValueError):
            model(torch.zeros(1, 3, 16, 16))
    except UserError as error:
        raise UserError(f"{config} is damaged, or not to be trusted: {error}") from None
    except Exception as error:  # errors of many kinds: whatever the arguments make of a network
        raise UserError(
            f"{folder} does not fit the network {architecture}: {f'{error}'[:300]}"
        ) from None
    for key, tensor in model.state_dict().items():
        if tensors[key].dtype != tensor.dtype:
            raise UserError(
                f"{folder / WEIGHTS} holds {tensors[key].dtype} in {key}, where the network has "
                f"{tensor.dtype}. Convert it where it was made."
            )
    if scale is not None and scale not in model.scales:
        scales = " or ".join(map(str, model.scales))
        others = f" Here {' and '.join(found)} can." if (found := for_scale(scale)) else ""
        raise UserError(f"{name} is trained to enlarge by {scales}, not by {scale}.{others}")
    model.scale = scale or model.scale
    return model


def _known_arguments(
    network: type[SuperResolutionModel], arguments: dict[str, Any], config: Path
) -> dict[str, Any]:
    """The arguments that the constructor takes. Others, of a later version, leave a warning."""
    known = inspect.signature(network).parameters
    if unknown := [f'"{name}"'[:60] for name in arguments if name not in known]:
        warning = (
            f"Warning: {config} has {enumerate_first(unknown, 3)}, which this version of "
            f"{network.__name__} does not know. It is left out. If you wrote it, correct the name."
        )
        if says_first(warning):
            say(warning, sys.stderr)
    return {name: value for name, value in arguments.items() if name in known}


def _others_beside(name: str | Path) -> str:
    """Says which models lie where one was looked for, checkpoints of the same run for example."""
    parent = Path(name).parent
    found = sorted(path.parent.name for path in parent.glob(f"*/{WEIGHTS}"))
    return f"In {parent} there are: {enumerate_first(found, 4)}. " if found else ""


def _instead_of_file(file: Path) -> str:
    """Says what to do where a model was asked for and a file is there."""
    if (file.parent / CONFIG).is_file():
        return f"{file} is a file. Give its folder, {file.parent}."
    if file.suffix == ".safetensors":
        return (
            f"{file} holds weights alone, and a model is a folder. For weights that a paper's "
            f"authors published: python convert_published.py {file} --architecture a2n --scale 2 "
            "--output_dir out/mine"
        )
    return (
        f"{file} is a file, and a model is a folder. `python convert_published.py --help` says how "
        "published weights become one."
    )


def _instead_of_folder(folder: Path) -> str:
    """Says what to do where a folder is no model."""
    checkpoints = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal()]
    if checkpoints:  # the run was killed before its first validation
        latest = max(checkpoints, key=lambda path: int(path.name[11:]))
        return f"The run in it has saved no model yet. Its latest checkpoint is one: {latest}"
    if (folder / WEIGHTS).is_file():
        return f"{CONFIG} tells which network the weights are of. Take it from where they came."
    return f"A model is the folder that a training script wrote. {models_in_words()}"


def find_network(architecture: str) -> type[SuperResolutionModel]:
    """Finds the one network class in `train_<architecture>.py`.

    Raises:
        UserError: There is no such script.
    """
    known = sorted(path.stem.removeprefix("train_") for path in ROOT.glob("train_*.py"))
    if architecture not in known:
        raise UserError(
            f"Unknown architecture {architecture!r}. This repository has: {', '.join(known)}."
        )
    module = importlib.import_module(f"train_{architecture}")
    networks = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, SuperResolutionModel)
        and value.__module__ == module.__name__
    ]
    if len(networks) != 1:
        names = ", ".join(network.__name__ for network in networks) or "none"
        raise UserError(
            f"train_{architecture}.py must have one subclass of SuperResolutionModel, by which a "
            f"saved model is found again, and has {len(networks)} ({names}). Make its parts plain "
            "nn.Modules, or give each network a script of its own."
        )
    return networks[0]


class Matching(NamedTuple):
    """Outcome of `load_matching`.

    Attributes:
        complete: Whether all tensors of the model and of the file matched.
        summary: One line: how many tensors were copied, left fresh, and ignored.
    """

    complete: bool
    summary: str


def load_matching(model: nn.Module, name: str | Path, revision: str | None = None) -> Matching:
    """Copies the tensors of a saved model that fit by name and shape.

    A x4 network starts from the weights of a x2 one in this way, with its last stage fresh.

    Args:
        model: Network that gets the tensors.
        name: Name of a model in `pretrained/`, folder of a model or of a checkpoint, `.safetensors`
            file, or `user/name` on the Hub.
        revision: Branch, tag or commit on the Hub.

    Raises:
        UserError: There are no such weights, or no tensor fits.
    """
    path = find_model(name, revision)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise UserError(
            f"{path} is neither a folder with {WEIGHTS} nor a .safetensors file. "
            f"{models_in_words()}"
        )
    tensors = read_folder(path) if path.is_dir() else read_weights(file)
    if isinstance(model, SuperResolutionModel):
        model.adapt_to(tensors)
    own = model.state_dict()
    fitting = {
        name: tensor
        for name, tensor in tensors.items()
        if name in own and own[name].shape == tensor.shape
    }
    if not fitting:
        raise UserError(
            f"None of the {len(tensors)} tensors in {file} fits this network by name and shape. "
            "Weights under the names of another code base go through convert_published.py first."
        )
    model.load_state_dict(fitting, strict=False)
    other_shape = sum(name in own for name in tensors) - len(fitting)
    return Matching(
        complete=len(fitting) == len(own) == len(tensors),
        summary=f"{len(fitting)} of {len(own)} tensors copied from {file}; "
        f"{len(own) - len(fitting)} keep their fresh values ({other_shape} of them have another "
        f"shape there); {sum(name not in own for name in tensors)} of the file are not used",
    )


def push_model(folder: str | Path, name: str, private: bool = False, onnx: bool = False) -> str:
    """Uploads a model folder to the Hub: its weights, configuration and card.

    The name is written into the card.

    Args:
        folder: Folder that a training script wrote.
        name: `user/name`, or a name alone for the user of the token. A repository that is not there
            is made.
        private: Whether a repository that is made is for its owner only.
        onnx: Whether to make and upload ONNX files too, and to tell in the card how to use them.

    Returns:
        Address of the model.

    Raises:
        UserError: The model could not be uploaded; the folder stays as it is.
    """
    model = load_model(folder)  # one that cannot be loaded is of no use there
    folder = find_model(folder)
    if (folder / STATE).is_file():
        raise UserError(f"{folder} is a checkpoint, which has no card. Give its run's folder.")
    again = push_command(folder, name, private, onnx)
    exported = export_beside(folder, model) if onnx else {}
    with suppress(OSError):  # a card that is missing, or cannot be written, goes as it is
        give_address(folder, full_name(name), exported)
    files = [CONFIG, WEIGHTS, CARD, EXAMPLE, CURVES, *exported.values()]
    return push_folder(folder, name, "model", private, again, files)


def push_command(folder: str | Path, name: str, private: bool, onnx: bool = False) -> str:
    """Command line that does what `push_model` does."""
    words = ["python", "-m", "common.hub", f"{folder}", name]
    if private:
        words.append("--private")
    if onnx:
        words.append("--onnx")
    return shlex.join(words)


def main(argv: Sequence[str] | None = None) -> None:
    """Pushes a model folder to the Hub."""
    parser = argparse.ArgumentParser(description="Pushes a model folder to the Hugging Face Hub.")
    parser.add_argument("folder", help="folder that a training script wrote")
    parser.add_argument("name", help="name on the Hub: user/name, or the name alone")
    parser.add_argument("--private", action="store_true", help="make it for its owner only")
    parser.add_argument("--onnx", action="store_true", help="make and upload an ONNX file too")
    args = parser.parse_args(argv)
    if args.onnx:
        check_packages("onnx", "--onnx")
    print(push_model(args.folder, args.name, args.private, args.onnx))


if __name__ == "__main__":
    main()
