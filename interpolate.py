"""Makes a network between two others, by their weights: between PSNR and looks, for example.

    python interpolate.py out/srgan/pretrained out/srgan --alpha 0.7         # writes out/srgan-0.7
    python interpolate.py out/srgan/pretrained out/srgan --curve 11 --benchmarks Set14

Every weight is (1 - alpha) times that of the first network plus alpha times that of the second one
(Wang et al., "ESRGAN", 2018, arXiv:1809.00219, section 3.4). It works where the second network was
trained on from the first one, as SRGAN is from its SRResNet; between strangers there is nothing.
"""

import common.start

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from common.card import CARD, model_card
from common.curves import draw_panel
from common.data.benchmarks import open_benchmark
from common.data.degradation import add_degradation_argument, degradation_refused
from common.data.patches import BenchmarkDataset
from common.errors import UserError
from common.evaluation import evaluate, mean_scores
from common.files import (
    cannot_fill,
    cannot_write,
    filled_folder,
    last_name,
    replace_file,
    shorten_command,
)
from common.hub import load_model
from common.machine import check_processes_meet, set_up_cpu, versions
from common.metrics import Metric, make_lpips, protocol, psnr_y, ssim_y
from common.network import SuperResolutionModel
from common.options import Arguments, Parser, real, whole
from common.page.page import Page, as_code, as_table, cannot_write_page
from common.tables import format_score, score_name, text_table
from common.terminal import markdown, printable, say


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    parser.add_argument("first", help="model folder or name, at alpha 0")
    parser.add_argument("second", help="model folder or name of the same architecture, at alpha 1")
    model = parser.group("model", "The network between the two.")
    model.add_argument(
        "--alpha", type=real(least=0, most=1), help="share of the second network, 0 to 1"
    )
    data = parser.group("data", "What the curve over alpha is measured on.")
    data.add_argument(
        "--curve",
        type=whole(least=2, most=101),
        metavar="N",
        help="score N networks, at equal distances from alpha 0 to 1: PSNR, SSIM and LPIPS",
    )
    data.add_argument(
        "--benchmarks",
        nargs="+",
        only_with=("curve",),
        default=["Set5"],
        help="sets to score on, as evaluate.py takes them; `sample` needs no network",
    )
    data.add_argument(
        "--benchmark_dir",
        type=Path,
        only_with=("curve",),
        help="folder of the sets, as of evaluate.py",
    )
    data.add_argument(
        "--scale",
        type=whole(least=0),
        choices=range(2, 9),
        only_with=("curve",),
        help="factor of the --curve, for networks of several (default: the smallest)",
    )
    add_degradation_argument(data, only_with=("curve",))
    output = parser.group("output")
    output.add_argument(
        "--output_dir",
        type=Path,
        help="new folder for the model of that --alpha (default: out/srgan-0.7, for alpha 0.7 and "
        "a second network srgan)",
    )
    output.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        only_with=("curve",),
        help="file for a page with the curve",
    )
    output.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        only_with=("curve",),
        help="JSON file for the curve",
    )
    output.add_argument(
        "--overwrite", action="store_true", help="replace a --page or an --output that exists"
    )
    parser.completions.append(complete)
    parser.checks.append(check_options)
    return parser.parse_args(argv)


def complete(args: argparse.Namespace) -> None:
    """Fills in the default of --output_dir."""
    if args.alpha is not None and args.output_dir is None:
        args.output_dir = Path("out") / f"{Path(args.second).resolve().name}-{args.alpha:g}"


def check_options(args: argparse.Namespace) -> Iterator[str]:
    if args.alpha is None and args.output_dir:
        yield f"--output_dir {args.output_dir} needs an --alpha; give --alpha 0.7, or leave it out"
    elif args.alpha is None and not args.curve:
        yield "nothing to do; give --alpha 0.7 for a network, or --curve 11"
    if args.output_dir and (reason := cannot_fill(args.output_dir)):
        yield f"--output_dir {args.output_dir} {reason}"
    if args.output and (reason := cannot_write(args.output, args.overwrite)):
        yield f"--output {args.output} {reason}"
    if args.page and (reason := cannot_write_page(args.page, args.overwrite)):
        yield f"--page {args.page} {reason}"


def check_pair(first: SuperResolutionModel, second: SuperResolutionModel) -> None:
    """Checks that two networks have the same weights, but for their values.

    Raises:
        UserError: They have not.
    """
    names = [type(network).__name__ for network in (first, second)]
    if names[0] != names[1]:
        raise UserError(
            f"The first network is {names[0]} and the second {names[1]}. Between two there are "
            "others only if they have the same architecture."
        )
    ours, theirs = first.arguments, second.arguments
    different = [
        f"{key} is {ours.get(key)} and {theirs.get(key)}"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    ]
    if different:
        raise UserError(
            f"The two networks {names[0]} differ: {', '.join(different)}. Give two with the same "
            "arguments, the phases of one run for example."
        )


def interpolate(
    first: SuperResolutionModel, second: SuperResolutionModel, alpha: float
) -> SuperResolutionModel:
    """Network between two of the same architecture. Counters are those of the second one."""
    network = type(first)(**first.arguments).eval()
    ours, theirs = first.state_dict(), second.state_dict()
    network.load_state_dict(
        {
            name: torch.lerp(ours[name], tensor, alpha) if tensor.is_floating_point() else tensor
            for name, tensor in theirs.items()
        }
    )
    network.scale = first.scale
    return network


def score_curve(
    number: int,
    first: SuperResolutionModel,
    second: SuperResolutionModel,
    benchmarks: Sequence[BenchmarkDataset],
    device: torch.device,
) -> list[dict[str, float]]:
    """Scores a number of networks from alpha 0 to 1: means of the means of the benchmarks."""
    metrics: list[Metric] = [psnr_y, ssim_y]
    try:
        metrics.append(make_lpips(device))
    except UserError as error:
        say(f"The curve is without LPIPS. {error}")
    rows = []
    for index in range(number):
        alpha = index / (number - 1)
        network = interpolate(first, second, alpha).to(device)
        means = [
            mean_scores(evaluate(network.enlarge, each, device, metrics)) for each in benchmarks
        ]
        keys = [metric.__name__ for metric in metrics]
        scores = {key: statistics.fmean(mean[key] for mean in means) for key in keys}
        rows.append({"alpha": alpha, **scores})
    return rows


def write_model(args: Arguments, network: SuperResolutionModel) -> None:
    """Writes the network between as a model folder, with a card that tells what it is."""
    command = shorten_command(args.command)
    names = [markdown(last_name(name)) for name in (args.first, args.second)]
    training = (
        f"\n## Training\n\nNot trained: every weight is {1 - args.alpha:g} times that of "
        f"{names[0]} plus {args.alpha:g} times that of {names[1]} (network interpolation, [ESRGAN]"
        f"(https://arxiv.org/abs/1809.00219)).\n\n    {printable(command)}\n"
    )
    name = type(network).__name__
    with filled_folder(args.output_dir) as folder:
        network.save(folder)
        card = model_card(name, network.architecture(), network.scales, training=training)
        (folder / CARD).write_text(card)
    print(f"The model of alpha {args.alpha:g} is in {args.output_dir}.")


@degradation_refused()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    check_processes_meet(state.num_processes)
    set_up_cpu()
    first, second = load_model(args.first, scale=args.scale), load_model(args.second)
    check_pair(first, second)
    if args.alpha is not None and state.is_main_process:
        write_model(args, interpolate(first, second, args.alpha))
    benchmarks, rows = [], []
    if args.curve:
        if args.scale is None and state.is_main_process and (said := first.scale_in_words()):
            print(said)
        benchmarks = [
            open_benchmark(name, first.scale, args.benchmark_dir, args.degradation)
            for name in args.benchmarks
        ]
        rows = score_curve(args.curve, first, second, benchmarks, state.device)
    state.destroy_process_group()  # while all are still there
    if not (rows and state.is_main_process):
        return
    cells = [
        {"alpha": f"{row['alpha']:.2f}"}
        | {score_name(key): format_score(key, row[key]) for key in row if key != "alpha"}
        for row in rows
    ]
    lr = " or ".join(dict.fromkeys(benchmark.lr for benchmark in benchmarks))
    if args.output:
        record = {"command": shorten_command(args.command), **versions()}
        figures = {"benchmarks": args.benchmarks, "protocol": protocol(lr), "curve": rows}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        replace_file(args.output, (json.dumps(record | figures, indent=2) + "\n").encode())
    print(f"{type(first).__name__} x{first.scale}, means over {', '.join(args.benchmarks)}")
    print(f"Protocol: {protocol(lr)}.\n\n{text_table(cells)}")
    if args.output:
        print(f"\nWritten: {args.output}")
    if args.page:
        page = Page(f"From {last_name(args.first)} to {last_name(args.second)}")
        drawn = [
            draw_panel({key: [(row["alpha"], row[key]) for row in rows]}, "alpha", score_name(key))
            for key in rows[0]
            if key != "alpha"
        ]
        page.add_section("Curves", "".join(drawn))
        table = as_table([list(cells[0]), *(list(row.values()) for row in cells)])
        page.add_section("Scores", f"{table}{as_code(shorten_command(args.command))}")
        page.write(args.page)
        print(f"{args.page} is a page to open in a browser.")


if __name__ == "__main__":
    main()
