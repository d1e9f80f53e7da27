"""The base of all networks: what a network must say of itself to be saved, loaded and applied."""

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from common.bands import band_height, map_in_bands
from common.card import model_card
from common.device import forget, is_out_of_memory
from common.errors import UserError
from common.files import replace_file

LEAST_ROWS = 16  # of a band
CONFIG, WEIGHTS = "config.json", "model.safetensors"
MOST_PARAMETERS, MOST_MODULES = 250_000_000, 20_000  # of a network that comes from elsewhere


class SuperResolutionModel(nn.Module, PyTorchModelHubMixin):
    """Base of the networks.

    `forward(lr)`: RGB (N, 3, h, w) in [0, 1] -> (N, 3, h * scale, w * scale).

    A network is saved with the arguments of its constructor, which must be JSON values, and with
    the name of its script, by which `common.hub.load_model` finds the class again.

    Attributes:
        arguments: Arguments of the constructor, with the defaults of those that were not given.
        scales: Factors that the network is trained to enlarge by.
        scale: Factor by which `forward(lr)` enlarges, at first the smallest of `scales`.
        attention_window: Side, in pixels of LR, of the part of a picture over which the network
            takes its means; 0 for the whole picture. None for networks without such means.
    """

    arguments: dict[str, Any]
    attention_window: int | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "SuperResolutionModel":
        model = super().__new__(cls, *args, **kwargs)
        # (Partial: copy.deepcopy calls this without arguments, and then sets all attributes.)
        given = inspect.signature(cls.__init__).bind_partial(model, *args, **kwargs)
        given.apply_defaults()
        _, *arguments = given.arguments.items()  # without `self`
        model.__dict__["arguments"] = dict(arguments)  # nn.Module is not set up yet
        for name, value in arguments:
            try:
                json.dumps(value)
            except TypeError:
                raise TypeError(
                    f"{cls.__name__}({name}={value!r}): an argument of a network is saved in "
                    f"{CONFIG}, so it must be a JSON value, and a {type(value).__name__} is none"
                ) from None
        return model

    def __init__(self, scales: Sequence[int]) -> None:
        super().__init__()
        if not scales or min(scales) < 2:
            raise ValueError(f"scales must be 2 or more, not {', '.join(map(str, scales)) or None}")
        self.scales = sorted(set(scales))
        self.scale = self.scales[0]

    @property
    def margin(self) -> int | None:
        """Pixels of LR around a tile that have a part in the result of the tile.

        None for a network that does not say, which is applied to whole pictures only.
        """
        return None

    def scale_in_words(self) -> str:
        """Says which of its scales a network of several is used at; "" for one of one scale."""
        if len(self.scales) == 1:
            return ""
        scales = ", ".join(f"x{scale}" for scale in self.scales)
        return f"Scale: x{self.scale} of {scales}; --scale for another."

    def enlarge(self, lr: Tensor, *, halves: bool = True) -> Tensor:
        """Like `forward`, but a large picture goes through the network in bands of its rows.

        The result is that of the whole picture, but for rounding, and the memory is bounded.

        Args:
            lr: Images.
            halves: Whether to go on in bands of half the height when the memory is too small, down
                to `LEAST_ROWS`.

        Raises:
            torch.OutOfMemoryError: Or the error of another part for the same. Not even small bands
                fit.
        """
        height, width = lr.shape[-2:]
        if self.margin is None:
            return self(lr)
        rows = band_height(height, width, self.scale)
        first: Exception | None = None
        while True:
            try:
                return self(lr) if rows >= height else self.in_bands(lr, rows)
            except Exception as error:
                first = first or error
                if not halves or not is_out_of_memory(error):
                    raise
            forget(first)  # outside of `except`, which would keep the tensors of the error
            if rows <= LEAST_ROWS:
                raise first
            rows = max(LEAST_ROWS, -(-rows // 2))

    def in_bands(self, lr: Tensor, rows: int) -> Tensor:
        """`forward` in bands of so many rows of LR, for networks that are local.

        One that takes means of the whole picture has its own.
        """
        assert self.margin is not None
        return map_in_bands(self, [lr], rows, self.margin, scale=self.scale)

    @classmethod
    def architecture(cls) -> str:
        """Name of the network: `a2n` for the one in `train_a2n.py`."""
        return Path(inspect.getfile(cls)).stem.removeprefix("train_")

    def configuration(self) -> str:
        """Content of `config.json`, by which `common.hub.load_model` makes the network again."""
        config = {"architecture": self.architecture(), **self.arguments}
        return json.dumps(config, indent=2) + "\n"

    def adapt_to(self, tensors: Mapping[str, Tensor]) -> None:
        """Changes a layer to the one that older weights are of, before they are loaded.

        Most networks have never changed. An optimizer must not have the parameters yet.
        """

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Loads weights, also those of an older form of the network, see `adapt_to`."""
        self.adapt_to(state_dict)
        return super().load_state_dict(state_dict, *args, **kwargs)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Makes the README.md of a folder that has none yet."""
        return ModelCard(model_card(type(self).__name__, self.architecture(), self.scales))

    def save(self, folder: Path) -> None:
        """Writes weights and configuration; at any moment the old or the new files are there.

        (`save_pretrained` of the mixin deletes the old configuration first. On a full disk nothing
        would be left.)
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        replace_file(folder / WEIGHTS, save(tensors, {"format": "pt"}))
        replace_file(folder / CONFIG, self.configuration().encode())

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


def check_size(network: type[SuperResolutionModel], arguments: Mapping[str, Any]) -> None:
    """Makes a network without memory, and stops when it grows beyond all bounds.

    A `config.json` from elsewhere could ask for more layers than the memory holds.

    Args:
        network: Class of the network.
        arguments: Arguments of its constructor.

    Raises:
        UserError: It would have more than 250 million parameters or 20,000 modules.
    """
    counts = {"parameters": 0, "modules": 0}

    def count(what: str, number: int, most: int) -> None:
        counts[what] += number
        if counts[what] > most:
            raise UserError(f"The network would have more than {most:,} {what}.")

    hooks = [
        register_module_parameter_registration_hook(
            lambda _module, _name, tensor: count("parameters", tensor.numel(), MOST_PARAMETERS)
        ),
        register_module_module_registration_hook(
            lambda _module, _name, _part: count("modules", 1, MOST_MODULES)
        ),
    ]
    try:
        with torch.device("meta"):
            network(**arguments)
    finally:
        for hook in hooks:
            hook.remove()
