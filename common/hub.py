"""Networks as folders: `config.json`, `model.safetensors`, `README.md`, as on the Hugging Face Hub.

    model = load_model("out/a2n")
    sr = model(lr)

Nothing but JSON and safetensors is read, and `config.json` can name nothing but a `train_*.py`.
"""

import importlib
import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from common.errors import UserError

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
    """

    def __init__(self, scales: Sequence[int]) -> None:
        super().__init__()
        if not scales or min(scales) < 2:
            raise ValueError(f"scales must be 2 or more, not {', '.join(map(str, scales)) or None}")
        self.scales = sorted(set(scales))
        self.scale = self.scales[0]

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


def load_model(folder: str | Path) -> SuperResolutionModel:
    """Loads the network in a folder that `save_pretrained` or a training script wrote.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: The folder holds no network of this repository, or weights of another one.
    """
    folder = Path(folder)
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} is no model: it has no {' and no '.join(missing)}. "
            "A model is the folder that a training script wrote, or `bicubic`."
        )
    try:
        architecture = json.loads((folder / CONFIG).read_text())["architecture"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f'{folder / CONFIG} does not say which network it is ("architecture").'
        ) from None
    network = find_network(architecture)
    try:
        return network.from_pretrained(folder)
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        lines = str(error).split("\n\t")  # PyTorch names every tensor that does not fit
        others = f" (and {len(lines) - 2} more)" if len(lines) > 2 else ""
        raise UserError(
            f"{folder} does not fit the network {architecture}: {' '.join(lines[:2])}{others}"
        ) from None


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


def load_matching(model: nn.Module, path: str | Path) -> tuple[bool, str]:
    """Copies those tensors of a model folder or a `.safetensors` file that fit, by name and shape.

    So a x4 network starts from the weights of a x2 one, with its last stage fresh.

    Returns:
        Whether the model is as it was saved, no tensor fresh or left over, and a line that tells
        how many were copied and how many of each other kind there are.

    Raises:
        UserError: There are no such weights, or none of them fits.
    """
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise UserError(f"{path} is neither a folder with {WEIGHTS} nor a .safetensors file.")
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


def model_card(model: SuperResolutionModel, training: str = "") -> str:
    """The README.md of a model folder.

    Args:
        model: The network.
        training: Markdown on its training and results.
    """
    metadata = ModelCardData(
        license="apache-2.0",
        pipeline_tag="image-to-image",
        tags=["super-resolution", model.architecture()],
    )
    scales = model.scales
    call = "model(lr)" if len(scales) == 1 else f"model(lr, scale={scales[0]})"
    return f"""---
{metadata.to_yaml()}
---
# {type(model).__name__} {" ".join(f"x{scale}" for scale in scales)}

Single-image super-resolution by a factor of {" or ".join(map(str, scales))}.

## Use

In a clone of the repository that has `train_{model.architecture()}.py`:

```python
from common.hub import load_model

model = load_model("path/of/this/folder")
sr = {call}  # RGB in [0, 1], (N, 3, h, w) -> (N, 3, {scales[0]} * h, {scales[0]} * w), not clamped
```
{training}"""


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file such that at any moment either the old or the new one is there, whole."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        partial.unlink(missing_ok=True)  # a full disk needs the room
        raise
    os.replace(partial, path)
