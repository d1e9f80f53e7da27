"""Makes a page of a training run: what it is, its curves, its validation pictures, its scores.

    python report.py out/a2n                        # writes out/a2n/report.html
    python report.py out/srgan --output srgan.html

The page is one file that any browser shows, without a server or a network. Start the script where
the training was started, since the pictures are found by the paths of its command. A run that goes
on may be looked at as well; the report is then made anew each time.
"""

import common.start

import importlib
import re
import shlex
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from common.card import CARD
from common.curves import draw_panel
from common.data.degradation import own_files_refused
from common.data.load import load_pictures
from common.device import evaluating
from common.errors import UserError
from common.files import last_name, read_json_lines, shorten_command
from common.gallery import on_page
from common.hub import load_model
from common.images.strip import Versions
from common.images.tensors import to_float
from common.machine import set_up_cpu
from common.metrics import psnr_y, to_uint8
from common.network import CONFIG, WEIGHTS, SuperResolutionModel
from common.options import Arguments, Parser, whole
from common.page.page import Page, as_code, as_table, cannot_write_page, is_page
from common.record import of_steps, read_record
from common.tables import format_score, score_name
from common.terminal import say

MOST_SIDE = 512  # pixels of LR; of a larger picture the middle is shown
PHASES = ("pretrained", ".")  # of SRGAN: the folders of its networks


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    parser.add_argument("folder", type=Path, help="output folder of a training script")
    output = parser.group("output")
    output.add_argument(
        "--output", type=Path, help="file for the page (default: report.html in the folder)"
    )
    output.add_argument(
        "--pictures", type=whole(least=0), default=4, help="validation pictures to show"
    )
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an --output that exists, or a report.html that is no earlier report",
    )
    return parser.parse_args(argv)


def read_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Reads the record, the metrics and the times of a run.

    Raises:
        UserError: The folder is not that of a run.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Give the --output_dir of a training.")
    record = read_record(
        folder, "what run it is of. Give the --output_dir of a training.", "command"
    )
    files = (folder / name for name in ("metrics.jsonl", "times.jsonl"))
    metrics, times = (
        list(read_json_lines(file).lines.values()) if file.is_file() else [] for file in files
    )
    return record, metrics, times


def facts(
    record: dict[str, Any],
    metrics: list[dict[str, Any]],
    times: list[dict[str, Any]],
    network: SuperResolutionModel | None,
) -> list[tuple[str, str]]:
    """What the run is and how far it is, as its banner told."""
    args, hardware = record["args"], record.get("hardware", {})
    step = max((line["step"] for line in metrics), default=0)
    rows = [("", "")]  # no headings
    precision = args.get("mixed_precision") or "no"
    steps = (args.get("pretrain_steps") or 0) + (args.get("max_train_steps") or 0)
    if network:
        parameters = sum(parameter.numel() for parameter in network.parameters())
        scales = " ".join(f"x{scale}" for scale in network.scales)
        rows.append(("Network", f"{type(network).__name__} {scales}, {parameters:,} parameters"))
    rows += [
        ("Pictures", last_name(f"{args.get('train_data_dir') or args.get('dataset_name')}")),
        ("Steps", f"{step:,}{of_steps(steps)}"),
        ("Batch", f"{args.get('batch_size')} patches of {args.get('patch_size')} pixels of HR"),
        ("Precision", "float32" if precision == "no" else precision),
        ("Hardware", f"{hardware.get('gpu') or hardware.get('cpu') or 'not recorded'}"),
        ("Commit", f"{record.get('commit')}, PyTorch {record.get('torch')}"),
    ]
    if times:
        speed = times[-1].get("patches_per_second", 0)
        rows.append(("Time", f"{times[-1]['seconds'] / 3600:.2f} h, {speed:,.0f} patches a second"))
    return rows


def add_curves(page: Page, folder: Path, metrics: list[dict[str, Any]]) -> None:
    """Adds the curves of the losses, of the PSNR and of the run's own metrics."""

    def points(key: str) -> list[tuple[float, float]]:
        return [(line["step"], line[key]) for line in metrics if _is_number(line.get(key))]

    keys = list(dict.fromkeys(key for line in metrics for key in line))
    losses = {key: points(key) for key in keys if "loss" in key}
    scores = {score_name(key): points(key) for key in keys if key.startswith("psnr")}
    own = [key for key in score_keys(metrics) if not key.startswith(("psnr", "ssim"))]
    found = re.findall(r"bicubic: (\d+\.\d+) dB", read_card(folder))
    level = ("bicubic", float(found[0])) if len(found) == 1 else None
    content = draw_panel(scores, "steps", "PSNR on the validation pictures, dB", level)
    for key in own:
        content += draw_panel({key: points(key)}, "steps", score_name(key))
    for name, line in losses.items():
        content += draw_panel({name: line}, "steps", name, logarithmic=True)
    page.add_section("Curves", content)


def add_scores(page: Page, folder: Path, metrics: list[dict[str, Any]]) -> None:
    """Adds a table of the last validations, and of those of saved weights, which are bold."""
    lines, keys = [line for line in metrics if "psnr_y" in line], score_keys(metrics)
    if not lines:
        return
    cards = "".join(read_card(folder / phase) for phase in PHASES)
    saved = set(map(int, re.findall(r"alidation, at step (\d+), ", cards)))
    shown = [line for line in lines if line in lines[-20:] or line["step"] in saved]
    rows = [
        [
            f"{line['step']:,}",
            *(format_score(key, line[key]) if _is_number(line.get(key)) else "" for key in keys),
        ]
        for line in shown
    ]
    marked = [number for number, line in enumerate(shown) if line["step"] in saved]
    page.add_section("Validations", as_table([["Step", *map(score_name, keys)], *rows], marked))


def score_keys(metrics: list[dict[str, Any]]) -> list[str]:
    """Names of all scores of the validations, own metrics among them."""
    keys = dict.fromkeys(key for line in metrics if "psnr_y" in line for key in line)
    return [key for key in keys if key != "step"]


def read_card(folder: Path) -> str:
    """Text of the card in a folder, "" where there is none."""
    card = folder / CARD
    return card.read_text("utf-8", errors="replace") if card.is_file() else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def load_networks(folder: Path) -> dict[str, SuperResolutionModel]:
    """Loads the networks that a run has saved, the last phase last, by what they are called."""
    networks = {}
    for phase in PHASES:
        if (folder / phase / CONFIG).is_file() and (folder / phase / WEIGHTS).is_file():
            network = load_model(folder / phase)
            networks[type(network).__name__ if phase == "." else phase] = network
    return networks


@evaluating()
def add_pictures(
    page: Page, networks: dict[str, SuperResolutionModel], record: dict[str, Any], most: int
) -> str:
    """Adds validation pictures as the saved networks of a run enlarge them.

    Returns:
        Why there are none, or "".
    """
    if not networks:
        return "The run has saved no model yet."
    network = list(networks.values())[-1]
    script = importlib.import_module(f"train_{network.architecture()}")
    try:
        with redirect_stderr(StringIO()) as mistakes, own_files_refused():
            words = [*shlex.split(record["command"])[2:], "--report_to", "none"]  # nothing is sent
            args = script.parse_args(words)
        benchmark = load_pictures(args, network.scales, say).validation[0]
    except UserError as error:
        return f"The validation pictures cannot be had: {error}"
    except SystemExit:
        return f"The validation pictures cannot be had: {mistakes.getvalue().splitlines()[0]}"
    for index in range(min(most, len(benchmark))):
        name, lr, hr = benchmark[index]
        tops = [(side - min(side, MOST_SIDE)) // 2 for side in lr.shape[1:]]
        scale = benchmark.scale
        lr, hr = (
            image[:, tops[0] * factor :, tops[1] * factor :][
                :, : MOST_SIDE * factor, : MOST_SIDE * factor
            ]
            for image, factor in ((lr, 1), (hr, scale))
        )
        results = []
        for label, network in networks.items():
            network.scale = scale
            sr = network.enlarge(to_float(lr, torch.device("cpu"))[None])[0]
            results.append((label, to_uint8(sr)))
        versions = Versions.of(lr, results, hr)
        values = [
            (label, psnr_y(image / 255, hr / 255, scale)) for label, image in versions.named[:-1]
        ]
        caption = "PSNR-Y " + ", ".join(
            f"{label} {format_score('psnr_y', value)}" for label, value in values
        )
        page.add(on_page(name, versions)._replace(caption=f"{caption} dB"))
    return ""


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    record, metrics, times = read_run(args.folder)
    output = args.output or args.folder / "report.html"
    # An earlier report is replaced; what --output names may be another page.
    ours = args.output is None and output.is_file() and is_page(output)
    if reason := cannot_write_page(output, args.overwrite or ours):
        raise UserError(f"--output {output} {reason}.")
    set_up_cpu()
    page = Page(f"Run {args.folder.resolve().name}")
    networks = load_networks(args.folder)
    missing = add_pictures(page, networks, record, args.pictures)
    network = list(networks.values())[-1] if networks else None
    page.add_section("Run", as_table(facts(record, metrics, times, network)))
    add_curves(page, args.folder, metrics)
    add_scores(page, args.folder, metrics)
    page.add_section("Command", as_code(shorten_command(record["command"])))
    if missing:
        page.add_section("Validation pictures", as_code(missing))
        print(missing)
    page.write(output)
    print(f"{output} is a page to open in a browser.")


if __name__ == "__main__":
    main()
