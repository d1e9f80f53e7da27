"""Networks as folders: `config.json`, `model.safetensors`, `README.md`, as on the Hugging Face Hub.

    model = load_model("out/a2n")  # or "user/name", of the Hub
    sr = model(lr)
    push_model("out/a2n", "user/name")

Nothing but JSON and safetensors is read, and `config.json` can name nothing but a `train_*.py`.
"""

import argparse
import importlib
import inspect
import json
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import (
    ModelCard,
    PyTorchModelHubMixin,
    hf_hub_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from common.card import CARD, model_card
from common.errors import UserError
from common.files import replace_file

ROOT = Path(__file__).resolve().parent.parent
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class SuperResolutionModel(nn.Module, PyTorchModelHubMixin):
    """Base of the networks.

    `forward(lr)`: RGB (N, 3, h, w) in [0, 1] -> (N, 3, h * scale, w * scale).

    A network is saved with the arguments of its constructor, which must be JSON values, and with
    the name of its script, by which `load_model` finds the class again.

    Attributes:
        scales: What it is trained to enlarge by.
        scale: Which of them `forward(lr)` enlarges by, at first the smallest.
        attention_window: Of a network that takes means of the whole picture: side of the part of
            it, in pixels of LR, to take them of instead; 0 for the whole. None for the others.
    """

    attention_window: int | None = None

    def __init__(self, scales: Sequence[int]) -> None:
        super().__init__()
        if not scales or min(scales) < 2:
            raise ValueError(f"scales must be 2 or more, not {', '.join(map(str, scales)) or None}")
        self.scales = sorted(set(scales))
        self.scale = self.scales[0]

    @property
    def margin(self) -> int:
        """How many pixels of LR around a tile have a part in what it becomes.

        Raises:
            UserError: The network does not say, so it cannot be applied in tiles.
        """
        raise UserError(
            f"{type(self).__name__} cannot be applied in tiles, since it has no `margin`. Give "
            "--tile 0, or add that property to its class."
        )

    @classmethod
    def architecture(cls) -> str:
        """`a2n` for the network in `train_a2n.py`."""
        return Path(inspect.getfile(cls)).stem.removeprefix("train_")

    @classmethod
    def from_published(
        cls, tensors: dict[str, Tensor], scales: Sequence[int]
    ) -> "SuperResolutionModel":
        """The network with weights that its authors published, under their names.

        Raises:
            UserError: No weights of this network are known.
            KeyError, RuntimeError, ValueError: The tensors are not those of this network, or it
                cannot have these scales.
        """
        raise UserError(f"There is no known set of published weights for {cls.architecture()}.")

    @classmethod
    def single_scale(cls, scales: Sequence[int]) -> int:
        """The scale of a network that is for one.

        Raises:
            UserError: There are several.
        """
        if len(scales) > 1:
            several = " and ".join(map(str, scales))
            raise UserError(f"{cls.__name__} is for one scale, not for {several}.")
        return scales[0]

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """For a folder that has no README.md yet."""
        return ModelCard(model_card(self))

    def save(self, folder: Path) -> None:
        """Writes weights and configuration; at any moment the old or the new files are there.

        (`save_pretrained` of the mixin deletes the old configuration first, and so might a full
        disk then.)
        """
        folder.mkdir(parents=True, exist_ok=True)
        arguments = self._hub_mixin_config or {}
        assert isinstance(arguments, dict)  # the mixin would also keep a dataclass; we have none
        config = {"architecture": self.architecture(), **arguments}
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        replace_file(folder / WEIGHTS, save(tensors, {"format": "pt"}))
        replace_file(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        map_location: str = "cpu",
        strict: bool = True,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **arguments: Any,
    ) -> "SuperResolutionModel":
        model = cls(**arguments)
        path = Path(model_id, WEIGHTS)
        if not path.parent.is_dir():
            path = Path(
                hf_hub_download(
                    model_id,
                    WEIGHTS,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        model.load_state_dict(load_file(path, device=map_location), strict=strict)
        return model.eval()


def ask_hub(kind: str, name: str, revision: str | None = None) -> tuple[str, list[str]] | None:
    """Asks the Hub for a repository: one quick question, before anything retries a dead network.

    Args:
        kind: "dataset" or "model".
        name: `user/name`.
        revision: Branch, tag or commit. Default: the main branch.

    Returns:
        Its commit and the names of its files; None with `HF_HUB_OFFLINE=1`: no questions then.

    Raises:
        UserError: It cannot be had.
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return None
    endpoint = huggingface_hub.constants.ENDPOINT
    kind_of = {"dataset": "data set"}.get(kind, kind)
    what = f"{kind_of} {name}" + f" at revision {revision}" * (revision is not None)
    try:
        api = huggingface_hub.HfApi()
        ask: Any = api.dataset_info if kind == "dataset" else api.model_info
        found = _answer_within(3.5, lambda: ask(name, revision=revision, timeout=3))
    except HFValidationError:
        raise UserError(
            f"{name} is neither a folder nor a {kind_of} of the Hub, user/name."
        ) from None
    except GatedRepoError:
        raise UserError(
            f"The {what} asks for your consent. Give it at {endpoint}, and log in by `hf auth "
            "login` or HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"There is no {what} on {endpoint}. Check the revision.") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"There is no {what} on {endpoint}, or it is private. Check the name, or log in by "
            "`hf auth login` or HF_TOKEN."
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"The Hub does not give out the {what}: {error}") from None
    except Exception as error:  # the HTTP client's own, which differs between versions
        raise UserError(
            f"Cannot reach {endpoint} for the {what} ({error}). HF_HUB_OFFLINE=1 uses what was "
            "downloaded before."
        ) from None
    return found.sha or "", [file.rfilename for file in found.siblings or []]


def _answer_within(seconds: float, question: Callable[[], Any]) -> Any:
    """The answer, or the exception, of a question that may also hang, as one to a name server.

    Raises:
        TimeoutError: There is none.
    """
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(question())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def find_model(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: that folder itself, or the files of the Hub's `user/name`, downloaded.

    Raises:
        UserError: There is no such folder, and no such model on the Hub; or there is a folder,
            which has no revisions.
    """
    folder = Path(name)
    if folder.exists() and revision is not None:
        raise UserError(
            f"Revision {revision} is of models on the Hub, and {name} is a folder here. Leave it "
            "out, or rename that folder."
        )
    if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", f"{name}"):
        return folder
    try:
        found = ask_hub("model", f"{name}", revision)
    except UserError as error:
        raise UserError(f"There is no folder {name}. {error}") from None
    missing = [file for file in (CONFIG, WEIGHTS) if found and file not in found[1]]
    if missing:
        raise UserError(f"The model {name} on the Hub has no {' and no '.join(missing)}.")
    try:
        paths = [hf_hub_download(f"{name}", file, revision=revision) for file in (CONFIG, WEIGHTS)]
    except Exception as error:  # of the network or the disk, of many kinds
        raise UserError(f"Cannot download the model {name}: {error}") from None
    return Path(paths[0]).parent


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `load_model` takes: `--model`, `--revision`, `--scale`."""
    parser.add_argument(
        "--model",
        required=True,
        help="folder that a training script wrote, or user/name on the Hub",
    )
    parser.add_argument("--revision", help="of --model on the Hub: branch, tag or commit")
    parser.add_argument(
        "--scale",
        type=int,
        choices=range(2, 9),
        help="for models of several (default: the smallest)",
    )


def load_model(
    name: str | Path, revision: str | None = None, scale: int | None = None
) -> SuperResolutionModel:
    """Loads a network that `save_pretrained` or a training script wrote.

    Args:
        name: Its folder, or `user/name` on the Hub.
        revision: Of the Hub's; default: the latest.
        scale: By which it is to enlarge; default: the smallest that it is for.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: There is no network of this repository, it has weights of another one, or it is
            not for that scale.
    """
    folder = find_model(name, revision)
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} is no model: it has no {' and no '.join(missing)}. A model is the folder "
            "that a training script wrote, or `user/name` on the Hub."
        )
    try:
        architecture = json.loads((folder / CONFIG).read_text())["architecture"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f'{folder / CONFIG} does not say which network it is ("architecture").'
        ) from None
    network = find_network(architecture)
    try:
        model = network.from_pretrained(folder)
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        lines = str(error).split("\n\t")  # PyTorch names every tensor that does not fit
        others = f" (and {len(lines) - 2} more)" if len(lines) > 2 else ""
        raise UserError(
            f"{folder} does not fit the network {architecture}: {' '.join(lines[:2])}{others}"
        ) from None
    if scale is not None and scale not in model.scales:
        scales = " or ".join(map(str, model.scales))
        raise UserError(f"{name} is trained to enlarge by {scales}, not by {scale}.")
    model.scale = scale or model.scale
    return model


def find_network(architecture: str) -> type[SuperResolutionModel]:
    """The one network class in `train_<architecture>.py`.

    Raises:
        UserError: There is no such script.
    """
    known = sorted(path.stem.removeprefix("train_") for path in ROOT.glob("train_*.py"))
    if architecture not in known:
        raise UserError(
            f"Unknown architecture {architecture!r}. This repository has: {', '.join(known)}."
        )
    module = importlib.import_module(f"train_{architecture}")
    (network,) = (
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, SuperResolutionModel)
        and value.__module__ == module.__name__
    )
    return network


def load_matching(
    model: nn.Module, name: str | Path, revision: str | None = None
) -> tuple[bool, str]:
    """Copies those tensors of a saved model that fit, by name and shape.

    So a x4 network starts from the weights of a x2 one, with its last stage fresh.

    Args:
        model: Gets them.
        name: A model folder, a `.safetensors` file, or `user/name` on the Hub.
        revision: Of the Hub's.

    Returns:
        Whether the model is as it was saved, no tensor fresh or left over, and a line that tells
        how many were copied and how many of each other kind there are.

    Raises:
        UserError: There are no such weights, or none of them fits.
    """
    path = find_model(name, revision)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise UserError(
            f"{path} is neither a folder with {WEIGHTS}, nor a .safetensors file, nor a model of "
            "the Hub, user/name."
        )
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} cannot be read: {error}") from None

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
    return len(fitting) == len(own) == len(tensors), (
        f"{len(fitting)} of {len(own)} tensors copied from {file}; {len(own) - len(fitting)} keep "
        f"their fresh values ({other_shape} of them have another shape there); "
        f"{sum(name not in own for name in tensors)} of the file are not used"
    )


def push_model(folder: str | Path, name: str, private: bool = False) -> str:
    """Uploads a model folder to the Hub: its weights, configuration and card.

    Args:
        folder: That a training script wrote.
        name: `user/name`, or a name alone for the user of the token. Is made if it is not there.
        private: Whether a repository that is made is for its owner only.

    Returns:
        Where it is.

    Raises:
        UserError: It could not be uploaded. The folder stays as it is.
    """
    load_model(folder)  # nobody needs what cannot be loaded
    again = f"python -m common.hub {folder} {name}" + " --private" * private
    return push_folder(folder, name, "model", private, again, [CONFIG, WEIGHTS, CARD])


def push_folder(
    folder: str | Path,
    name: str,
    kind: str,
    private: bool,
    again: str,
    files: list[str] | None = None,
) -> str:
    """Uploads a folder to the Hub.

    Args:
        folder: With the files.
        name: `user/name`, or a name alone for the user of the token. Is made if it is not there.
        kind: "dataset" or "model".
        private: Whether a repository that is made is for its owner only.
        again: The command by which the user tries again.
        files: Which of them, if not all.

    Returns:
        Where it is.

    Raises:
        UserError: It could not be uploaded. The folder stays as it is.
    """
    api = huggingface_hub.HfApi()
    try:
        repository = api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository.repo_id,
            repo_type=kind,
            folder_path=folder,
            allow_patterns=files,
            commit_message=f"Upload a super-resolution {kind}",
        )
    except Exception as error:  # of the network, the token, the name
        raise UserError(
            f"Could not push {folder} to {name} on the Hub: {error}. It is all still in {folder}; "
            f"try again by\n    {again}"
        ) from None
    return str(repository)


def check_token() -> None:
    """To be called before long work whose result is to be pushed.

    Raises:
        UserError: There is no token, or the Hub does not know it.
    """
    if huggingface_hub.get_token() is None:
        raise UserError("--push_to_hub needs a token. Log in by `hf auth login`, or set HF_TOKEN.")
    try:
        _answer_within(3.5, huggingface_hub.HfApi().whoami)
    except Exception as error:
        raise UserError(
            f"--push_to_hub: {huggingface_hub.constants.ENDPOINT} does not accept the token, or "
            f"cannot be reached ({error}). Log in by `hf auth login`, or push later by "
            "`python -m common.hub`."
        ) from None


def main() -> None:
    """Pushes a model folder to the Hub."""
    parser = argparse.ArgumentParser(description="Pushes a model folder to the Hugging Face Hub.")
    parser.add_argument("folder", help="that a training script wrote")
    parser.add_argument("name", help="on the Hub: user/name, or the name alone")
    parser.add_argument("--private", action="store_true", help="for its owner only")
    args = parser.parse_args()
    print(push_model(args.folder, args.name, args.private))


if __name__ == "__main__":
    from common import hub  # under the name by which the networks know it

    hub.main()
