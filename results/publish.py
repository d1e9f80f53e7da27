r"""Takes the model of a finished run into `pretrained/`, with a card that says how it was made.

    python -m results.record out/a2n-x2 --row "A2N x2 on ..." --benchmark_dir DIR
    python -m results.publish out/a2n-x2 --data "T91 and BSDS200; their licenses are not known." \
        --purpose "Photographs made small without loss."

writes pretrained/a2n-x2 by the folder of the run and by results/a2n-x2.json.
"""

import common.start

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.card import CARD, add_to_card, model_card
from common.errors import UserError
from common.files import replace_file, write_checksums
from common.hub import load_model
from common.metrics import protocol
from common.network import CONFIG, WEIGHTS
from common.pretrained import FOLDER
from results.record import training
from results.table import RESULTS, read_row, runs_of, training_in_words

LARGEST = 5_000_000  # bytes of the weights: git keeps every version for ever


def training_section(facts: dict[str, Any], data: str, license: str, purpose: str) -> str:
    """Markdown: what the model is for, its data, and every command with commit and time."""
    lines = [
        f"\n## What it is for\n\n{purpose}\n\n## Training\n\nPictures: {data} License of the "
        f"weights: {license}.\n\nTraining in all: {training_in_words(facts)}.\n"
    ]
    for run in reversed(runs_of(facts)):
        lines.append(f"\n    {run['command']}\n\n")
        if "ended_at_step" in run:
            lines.append(f"Stopped at step {run['ended_at_step']:,}. ")
        lines.append(f"{run['seconds'] / 60:,.0f} minutes, by commit {run['commit']} and PyTorch ")
        lines.append(f"{run['torch']}.\n")
    return "".join(lines)


def publish(
    folder: Path,
    name: str,
    data: str,
    license: str,
    purpose: str,
    overwrite: bool = False,
) -> Path:
    """Writes `pretrained/NAME`.

    Args:
        folder: Folder of the run.
        name: Name of the model, and of its row in `results/`.
        data: Training pictures and what their licenses allow, in words.
        license: License of the weights, as the Hub names it.
        purpose: What the model is for, in words.
        overwrite: Whether a model of that name is replaced.

    Raises:
        UserError: The folder is not that of the row, its weights are too large, or there is a model
            of that name.
    """
    model, row, target = load_model(folder), read_row(RESULTS / f"{name}.json"), FOLDER / name
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists already. Give another --name, or --overwrite.")
    facts, recorded = training(folder), row.get("training", {})
    if any(recorded.get(key) != facts[key] for key in ("command", "commit", "seconds")):
        raise UserError(
            f"results/{name}.json is not of the run in {folder}. Record it by `python -m "
            f"results.record {folder} --output results/{name}.json` first."
        )
    size = (folder / WEIGHTS).stat().st_size
    if size > LARGEST:
        raise UserError(f"{folder / WEIGHTS} has {size:,} bytes, more than {LARGEST:,}.")
    model.save(target)
    section = training_section(recorded, data, license, purpose)
    kind = type(model).__name__
    card = model_card(
        *(kind, model.architecture(), model.scales), section, license=license, address=name
    )
    replace_file(target / CARD, card.encode())
    how = protocol("made from HR by MATLAB's bicubic")
    for scale in model.scales:
        add_to_card(target, scale, row["scales"][f"{scale}"], how)
        for options, scales in row.get("also", {}).items():
            how_else = options.lstrip("-").replace("_", "-")
            named = {f"{set_}, {how_else}": scores for set_, scores in scales[f"{scale}"].items()}
            add_to_card(target, scale, named, how)
    write_checksums(target, [CONFIG, WEIGHTS])  # the card may be edited
    return target


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the run")
    parser.add_argument("--name", help="default: the folder's name")
    parser.add_argument("--data", required=True, help="pictures and their licenses, in words")
    parser.add_argument("--license", default="other", help="default: %(default)s")
    parser.add_argument("--purpose", required=True, help="what the model is for, in words")
    parser.add_argument("--overwrite", action="store_true", help="replace a model of that name")
    args = parser.parse_args(argv)
    name = args.name or args.folder.resolve().name
    target = publish(args.folder, name, args.data, args.license, args.purpose, args.overwrite)
    print(f"Written to {target}. Read {CARD}, then commit all of it.")


if __name__ == "__main__":
    main()
