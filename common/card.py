"""The model card: the README.md of a model folder, for people and for the Hugging Face Hub."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from common.files import replace_file, unused
from common.tables import enumerate_first, format_score, markdown_table, score_name
from common.terminal import markdown, printable

CARD = "README.md"
EXAMPLE = "example.png"  # a strip beside the card
VALIDATION = "validation pictures"  # name of their data set among the results
LIBRARY = "super-resolution-on-accelerate"  # which can load the model; PyTorch alone cannot
PLACE = "path/of/this/folder"  # where a model is, until it has a name on the Hub
ALONE = "## Without this repository\n"


def model_card(
    name: str,
    architecture: str,
    scales: Sequence[int],
    training: str = "",
    scores: Mapping[int, Mapping[str, float]] | None = None,
    dataset: str | None = None,
    license: str | None = None,
    address: str = PLACE,
    base_model: str | None = None,
    code: str = "",
    has_example: bool = False,
) -> str:
    """Makes the README.md of a model folder.

    Args:
        name: Name of the network, `A2N`.
        architecture: Name of its script without `train_` and `.py`.
        scales: Factors that it enlarges by.
        training: Markdown on its training and results.
        scores: Scores on the validation pictures, `psnr_y`, `ssim_y` and so on, by the scale.
        dataset: `user/name` of the training set, if it is on the Hub.
        license: License of the weights, as the Hub names it. Default: none is claimed.
        address: Name by which `load_model` finds the folder.
        base_model: `user/name` of the model whose weights the training began with.
        code: Address of this repository, or "".
        has_example: Whether a strip lies beside the card.
    """
    title = f"{name} {' '.join(f'x{scale}' for scale in scales)}"
    metadata = ModelCardData(
        license=license,
        library_name=LIBRARY,
        pipeline_tag="image-to-image",
        tags=["super-resolution", *(f"x{scale}" for scale in scales), architecture],
        datasets=[dataset] if dataset else None,
        base_model=base_model,
        metrics=["psnr", "ssim"],
        model_name=title,
        eval_results=[
            result
            for scale, values in (scores or {}).items()
            for result in _results(VALIDATION, dataset or "images", scale, values)
        ],
    )
    call = "model(lr)" if len(scales) == 1 else f"model(lr, scale={scales[0]})"
    choice = "" if len(scales) == 1 else f" --scale {scales[0]}"
    where = f"[the repository]({code})" if code else "the repository"
    example = (
        f"![A crop of a photograph: input, bicubic, {name}, original]({EXAMPLE})\n\n"
        "*Eileen Collins, photographed by NASA, in the public domain.*\n\n"
    )
    return f"""---
{metadata.to_yaml()}
---
# {title}

Single-image super-resolution by a factor of {" or ".join(map(str, scales))}.

{example if has_example else ""}## Use

In a clone of {where} that has `train_{architecture}.py`:

    python upscale.py photo.jpg --model {address}{choice}

```python
from common.hub import load_model

model = load_model("{address}")
sr = {call}  # RGB in [0, 1], (N, 3, h, w) -> (N, 3, {scales[0]} * h, {scales[0]} * w), not clamped
```
{training}"""


def give_address(folder: Path, name: str, onnx: Mapping[int, str]) -> None:
    """Writes into a card its name on the Hub, and how the model is used without this code.

    Args:
        folder: Folder of the model.
        name: `user/name`.
        onnx: Names of the ONNX files beside the weights, by the scale. Where there are none, the
            section on them is left out.

    Raises:
        OSError: The card cannot be read or written.
    """
    text = (folder / CARD).read_text("utf-8", errors="surrogateescape")
    text = re.sub(f"{ALONE}.*?(?=^## |\\Z)", "", text, flags=re.DOTALL | re.MULTILINE)
    before, heading, rest = text.partition("## Use\n")
    end = re.search(r"^## ", rest, re.MULTILINE)
    use, after = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    # In place of the folder, or of the name of an earlier push.
    use = re.sub(r"""(--model |load_model\(")[\w.-]+/[\w./-]+""", rf"\g<1>{name}", use)
    if onnx:
        use = f"{use.rstrip()}\n\n{_alone(name, onnx)}"
    text = before + heading + use + after
    replace_file(folder / CARD, text.encode("utf-8", errors="surrogateescape"))


def _alone(name: str, onnx: Mapping[int, str]) -> str:
    """Section on the use of an ONNX file, in ten lines that need three packages."""
    scale, file = next(iter(onnx.items()))
    others = f" The files: {enumerate_first([*onnx.values()])}." if len(onnx) > 1 else ""
    return f"""{ALONE}
By `pip install onnxruntime huggingface_hub pillow`.{others}

```python
import numpy as np
from huggingface_hub import hf_hub_download
from onnxruntime import InferenceSession
from PIL import Image

session = InferenceSession(hf_hub_download("{name}", "{file}"))
lr = np.asarray(Image.open("photo.jpg").convert("RGB"), np.float32) / 255  # (h, w, 3)
(sr,) = session.run(None, {{"lr": lr.transpose(2, 0, 1)[None]}})  # (1, 3, {scale} * h, {scale} * w)
pixels = (sr[0].transpose(1, 2, 0).clip(0, 1) * 255).round().astype(np.uint8)
Image.fromarray(pixels).save("photo-sr.png")
```

"""


def add_to_card(
    folder: Path, scale: int, results: Mapping[str, Mapping[str, float]], protocol: str
) -> str:
    """Writes results on benchmarks into a model's card, for its readers and for the Hub to show.

    Earlier results on the same benchmark at the same scale are replaced.

    Args:
        folder: Folder of the model.
        scale: Scale that was evaluated.
        results: Values of `psnr_y` and so on, by the name of the benchmark.
        protocol: Protocol of the evaluation, in words.

    Returns:
        What was damaged in the card, and is mended, in words; "" if nothing was.

    Raises:
        OSError: The card cannot be read or written.
    """
    card, note = _read_card(folder)
    named = {printable(name): (printable(name.lower()), scores) for name, scores in results.items()}
    replaced = {f"{name} x{scale}" for name in named}
    before = card.data.eval_results or []
    all_results = [result for result in before if result.dataset_name not in replaced]
    for name, (kind, scores) in named.items():
        all_results += _results(name, kind, scale, scores)
    card.data.eval_results = all_results

    rows: dict[str, dict[str, float]] = {}
    for result in all_results:
        facts = result.dataset_name, result.metric_name, result.metric_value
        is_score = all(map(isinstance, facts, (str, str, int | float)))  # people edit cards
        if is_score and not result.dataset_name.startswith(VALIDATION):
            rows.setdefault(result.dataset_name, {})[result.metric_name] = result.metric_value
    keys = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = [["", *(markdown(score_name(key)) for key in keys)]]
    for name, row in sorted(rows.items()):
        lines.append(
            [markdown(name), *(format_score(key, row[key]) if key in row else "" for key in keys)]
        )
    section = f"## Benchmarks\n\n{markdown_table(lines)}\nProtocol: {protocol}.\n\n"
    text = re.sub(r"## Benchmarks\n.*?(?=^## |\Z)", "", card.text, flags=re.DOTALL | re.MULTILINE)
    start, use, end = text.partition("## Use\n")
    replace_file(
        folder / CARD, f"---\n{card.data.to_yaml()}\n---\n{start}{section}{use}{end}".encode()
    )
    return note


def _read_card(folder: Path) -> tuple[Any, str]:  # a ModelCard; its types are wrong
    """Reads a card, which people edit; returns it and what was damaged in it, "" if nothing.

    What cannot be read is left out of the card. A damaged card is kept under another name.
    """
    content = (folder / CARD).read_bytes()
    damage = ""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text, damage = content.decode(errors="backslashreplace"), "it is no UTF-8"
    text = text.replace("\r\n", "\n")
    if not re.match(r"---\n.*?\n---\n", text, re.DOTALL):
        text = f"---\nlibrary_name: {LIBRARY}\n---\n{text}"
    try:
        card = ModelCard(text)
    except Exception as error:  # those of YAML and of huggingface_hub
        damage = damage or f"its metadata cannot be read ({' '.join(f'{error}'.split())[:150]})"
        try:
            card = ModelCard(text, ignore_metadata_errors=True)  # it leaves out the results
        except Exception:
            body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
            card = ModelCard(f"---\nlibrary_name: {LIBRARY}\n---\n{body}")
    data: Any = card.data  # whose type knows no names
    if not isinstance(data.model_name, str):  # which results in the metadata need
        data.model_name = folder.resolve().name
    if damage:
        aside = unused(folder / f"{CARD}.damaged")
        replace_file(aside, content)
        damage = f"{CARD} was damaged: {damage}. What could be read stays; {aside.name} has it all."
    return card, damage


def _results(name: str, kind: str, scale: int, scores: Mapping[str, float]) -> list[EvalResult]:
    """Scores on one data set at one scale in the form that the Hub wants."""
    return [
        EvalResult(
            task_type="image-to-image",
            dataset_type=kind,
            dataset_name=f"{name} x{scale}",
            # By it the Hub tells the scales apart, and not by the name.
            dataset_config=f"x{scale}",
            metric_type=key.partition("_")[0],
            metric_name=key,
            metric_value=round(value, 4),
        )
        for key, value in scores.items()
    ]
