"""The card of a run: what strangers are told of the data, the recipe and its changes, the terms."""

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from common.card import CARD, EXAMPLE, model_card
from common.data.degradation import degradation_refused, open_degradation, picture_generator
from common.data.find import SAMPLE_BENCHMARK, sample_pictures
from common.device import evaluating
from common.files import last_name, replace_file, shorten_command
from common.images.resize import crop_to_multiple, imresize
from common.images.strip import Versions, make_strip, stack_strips
from common.images.tensors import to_float, to_tensor
from common.machine import repository_address
from common.metrics import protocol, to_uint8
from common.network import SuperResolutionModel
from common.options import LARGEST, Arguments
from common.terminal import markdown, printable

PHOTOGRAPH = (160, 40, 352, 184)  # left, top, right, bottom: a face, and the flag behind it
DIV2K = "DIV2K's are for [academic research only](https://data.vision.ee.ethz.ch/cvl/DIV2K/)"
TERMS = {"sample": "the photographs of the scikit-image package come with theirs in its LICENSE"}


class EarlierRecipe(NamedTuple):
    """Recipe of a run until it was changed.

    Attributes:
        until: Step at which it changed.
        command: Command line, "" if the checkpoint did not tell.
        changes: What changed then, in words.
    """

    until: int
    command: str
    changes: list[str]


class RunCard:
    """Writes the card of a run, and the pictures beside it.

    Attributes:
        recipes: Earlier recipes of a run that changed its own.
    """

    def __init__(self, args: Arguments, scales: Sequence[int], trained_on: str, lr: str) -> None:
        """
        Args:
            args: Options of the run.
            scales: Factors that the network is trained for.
            trained_on: Training pictures in words.
            lr: Where the LR of the validation pictures comes from, in words.

        Raises:
            UserError: A degradation of the user's own fails on the photograph of the card.
        """
        self._args, self._trained_on, self._lr = args, trained_on, lr
        self.recipes: list[EarlierRecipe] = []
        self._pairs = {scale: _example_pair(args.degradation, scale) for scale in scales}
        weights = args.init_from or ""
        is_on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", weights) and not Path(weights).exists()
        self._base_model = weights if is_on_hub else None
        self._code = args.repository_url or repository_address()

    def write(
        self,
        folder: Path,
        network: SuperResolutionModel,
        result: str,
        scores: Mapping[int, Mapping[str, float]],
    ) -> None:
        """Writes the card of a model folder.

        Args:
            folder: Folder of the model.
            network: Network that is saved there, in float32.
            result: Scores in words.
            scores: Scores on the validation pictures, by the scale.

        Raises:
            OSError: A file cannot be written.
        """
        args = self._args
        replace_file(folder / EXAMPLE, self._example(network))
        dataset = args.dataset_name
        on_hub = dataset and dataset != "sample" and not Path(dataset).is_dir()
        text = model_card(
            type(network).__name__,
            network.architecture(),
            network.scales,
            training=self._sections(result),
            scores=scores,
            dataset=dataset if on_hub else None,
            license=args.license,
            base_model=self._base_model,
            code=self._code,
            has_example=True,
        )
        replace_file(folder / CARD, text.encode())

    def _example(self, network: SuperResolutionModel) -> bytes:
        """A strip of the photograph at each scale, as PNG."""
        device, before = next(network.parameters()).device, network.scale
        strips = []
        for scale, (lr, hr) in self._pairs.items():
            network.scale = scale
            with evaluating():
                sr = to_uint8(network.enlarge(to_float(lr, device)[None])[0]).cpu()
            strips.append(make_strip(Versions.of(lr, [(type(network).__name__, sr)], hr)))
        network.scale = before
        content = BytesIO()
        stack_strips(strips).save(content, "PNG")
        return content.getvalue()

    def _sections(self, result: str) -> str:
        """Markdown. Strangers read it, so paths of this machine are cut to their end."""
        args, recipe = self._args, []
        for key, value in vars(args).items():
            words = [last_name(f"{w}") for w in (value if isinstance(value, list) else [value])]
            is_measured = key != "max_train_steps" or value < LARGEST
            if value is not None and words and is_measured:
                recipe.append(f"- `{key}`: {markdown(' '.join(words))}\n")
        return (
            f"\n## Results\n\n{result}\n\nProtocol: {protocol(self._lr)}.\n\n"
            f"## Training\n\n    {_shown(args.command)}\n\n"
            f"on {markdown(self._trained_on)}, with\n\n{''.join(recipe)}"
            f"{self._changes()}\n## License\n\n{self._terms()}\n"
        )

    def _changes(self) -> str:
        """Markdown on the earlier recipes, "" if there was one alone."""
        parts = []
        for until, command, changes in self.recipes:
            told = markdown("; ".join(map(_without_folders, changes)))
            told = f"Until step {until:,} the recipe was another one. Then {told}."
            parts.append(f"\n{told}\n" + (f"\n    {_shown(command)}\n" if command else ""))
        return "".join(parts)

    def _terms(self) -> str:
        args, name = self._args, f"{self._args.dataset_name}"
        claim = "No license is claimed for the weights."
        if args.license:
            claim = f"License of the weights: {markdown(args.license)}."
        if "div2k" in f"{name} {self._trained_on}".lower():
            terms = f"The training pictures have terms of their own: {DIV2K}."
        elif args.dataset_name and name in TERMS:
            terms = f"The training pictures have terms of their own: {TERMS[name]}."
        else:
            terms = "The training pictures may have terms of their own, which are not known here."
        return f"{claim} {terms}"


def _without_folders(change: str) -> str:
    """A change like `--degradation was none and is /home/me/own.py:f`, with the file alone."""
    return "".join(map(last_name, re.split("( was | and is )", change)))


def _shown(command: str) -> str:
    return printable(shorten_command(command))


@degradation_refused()
def _example_pair(name: str, scale: int) -> tuple[Tensor, Tensor]:
    """LR and HR, uint8, of the photograph that stands in every card: anybody may show it."""
    source = sample_pictures(SAMPLE_BENCHMARK)[0]
    with Image.open(source["hr"]["path"]) as image:
        hr = crop_to_multiple(to_tensor(np.array(image.convert("RGB").crop(PHOTOGRAPH))), scale)
    if degradation := open_degradation(name):
        pixels = hr.permute(1, 2, 0).contiguous().numpy()
        return to_tensor(degradation(pixels, scale, picture_generator(source["name"]))), hr
    return imresize(hr, 1 / scale), hr


def recipes_of(record: Mapping[str, Any]) -> list[EarlierRecipe]:
    """Earlier recipes of a run by the record of a checkpoint."""
    return [EarlierRecipe(**recipe) for recipe in record.get("recipes", [])]
