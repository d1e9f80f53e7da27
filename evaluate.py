"""Scores a model on benchmark sets by the protocol of the SR papers.

    python evaluate.py                                                 # all models in pretrained/
    python evaluate.py --model out/a2n --benchmark_dir DIR             # DIR/Set5/HR/*.png ...
    python evaluate.py --model bicubic --scale 4 --benchmarks sample
    python evaluate.py --sr_dir RESULTS --scale 2 --benchmark_dir DIR  # pictures any method made

Under `accelerate launch`, the processes share the pictures and print the same figures.
"""

import common.start

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from common.card import CARD, add_to_card
from common.data.benchmarks import open_benchmark
from common.data.degradation import NONE, add_degradation_argument, degradation_refused
from common.data.layouts import describe_kinds
from common.errors import UserError
from common.evaluated import EvaluatedPictures
from common.evaluation import (
    Bicubic,
    count_multiply_adds,
    evaluate,
    load_subject,
    mean_scores,
    picture_keys,
    score_pictures,
)
from common.files import cannot_make, cannot_write, replace_file
from common.hub import find_here
from common.images.kinds import FORMATS
from common.inference import SelfEnsemble
from common.machine import check_processes_meet, set_up_cpu, versions
from common.metrics import (
    Metric,
    make_lpips,
    make_pyiqa,
    protocol,
    psnr_rgb,
    psnr_y,
    ssim_rgb,
    ssim_y,
)
from common.network import SuperResolutionModel
from common.options import Arguments, Parser, whole
from common.page.page import cannot_write_page
from common.pretrained import choose_all
from common.tables import enumerate_first, score_row, text_table

ALL = "all"  # models in pretrained/


def parse_args(argv: Sequence[str] | None = None) -> Arguments:
    parser = Parser(__file__, __doc__)
    subject = parser.group("model", "What is scored, at most one of these.").exclusive()
    subject.add_argument(
        "--model",
        default=ALL,
        help="name of a model in pretrained/, folder that a training script wrote, checkpoint in "
        "it, user/name on the Hub, `bicubic`, or `all` models in pretrained/",
    )
    subject.add_argument(
        "--sr_dir",
        type=Path,
        help="folder of pictures to score, DIR/Set5/baby.png or babyx2.png, as --save_images "
        "writes them",
    )
    how = parser.group("run", "By which pictures and metrics it is scored.")
    how.add_argument(
        "--benchmarks",
        nargs="+",
        default=["Set5", "Set14"],
        help="Set5, Set14, BSD100 and Urban100, which the Hub has, folders in --benchmark_dir, or "
        "`sample`: astronaut and coffee of the scikit-image package",
    )
    how.add_argument(
        "--benchmark_dir",
        type=Path,
        help="folder with SET/HR/* for each set, and SET/LR_bicubic/X2/*x2.* where LR is not to be "
        "made from HR, or other usual layouts (default: the sets are downloaded from the Hub)",
    )
    how.add_argument("--revision", help="branch, tag or commit of a --model on the Hub")
    how.add_argument(
        "--scale",
        type=whole(least=0),
        choices=range(2, 9),
        help="factor, for `bicubic`, --sr_dir, and models of several (default: the model's "
        "smallest)",
    )
    how.add_argument(
        "--self_ensemble",
        action="store_true",
        help="take the mean over 8 flips and rotations: a little better, 8 times as slow",
    )
    how.add_argument(
        "--attention_window",
        type=whole(),
        default=0,
        help="for A2N: side in pixels of LR over which its attention takes means, as upscale.py "
        "does in tiles (default: the whole picture)",
    )
    how.add_argument("--rgb", action="store_true", help="also print PSNR and SSIM of RGB")
    how.add_argument(
        "--lpips",
        action="store_true",
        help="also print LPIPS, for networks like SRGAN, whose PSNR says little; lower is better",
    )
    how.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="METRIC",
        help="also print these of the package pyiqa, which you install: niqe, musiq and so on",
    )
    add_degradation_argument(how)
    output = parser.group("output", "What is written besides the table.")
    output.add_argument("--per_image", action="store_true", help="also print each picture's score")
    output.add_argument("--output", type=Path, help="JSON file to write all figures to")
    output.add_argument(
        "--add_to_card",
        action="store_true",
        help="write the table into the README.md of --model, for the Hub to show when it is pushed",
    )
    output.add_argument(
        "--save_images",
        type=Path,
        help="folder for the SR pictures, DIR/SET/NAME.png, and for the --comparison strips of the "
        "first 20, DIR/SET.png",
    )
    output.add_argument(
        "--comparison",
        type=Path,
        nargs="?",
        const=Path("comparison.png"),
        metavar="FILE",
        help="file for strips of the first 20 pictures of the first set: each, and details of it "
        "as LR, bicubic, SR and HR (without a FILE: comparison.png)",
    )
    output.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="file for a page of HTML, to compare bicubic, SR and HR of all pictures in a browser",
    )
    output.add_argument("--overwrite", action="store_true", help="replace files that exist already")
    output.add_argument(
        "--comparison_model",
        metavar="MODEL",
        help="folder of another model, whose SR the --comparison and the --page show as well",
    )
    parser.checks.append(check_options)
    return parser.parse_args(argv)


def check_options(args: argparse.Namespace) -> Iterator[str]:
    if args.model == ALL and not args.sr_dir:
        for name in ("revision", "attention_window", "save_images", "comparison", "page"):
            if getattr(args, name):
                yield f"--{name} needs one --model, not all that are in pretrained/"
    if args.sr_dir and (args.save_images or args.comparison or args.page):
        yield "--save_images, --comparison and --page need a --model to make pictures"
    if args.sr_dir and (args.self_ensemble or args.attention_window or args.add_to_card):
        yield "--self_ensemble, --attention_window and --add_to_card need a --model"
    if args.revision and (args.sr_dir or args.model == "bicubic"):
        yield "--revision needs a --model on the Hub"
    if args.sr_dir and args.scale is None:
        yield "--sr_dir needs a --scale, for example 2."
    if args.model == "bicubic" and args.scale is None:
        yield "--model bicubic needs a --scale, for example 2."
    if args.add_to_card and args.degradation != NONE:
        yield "--add_to_card is for benchmarks as the papers have them, without --degradation"
    if args.add_to_card and not ((folder := find_here(args.model)) and (folder / CARD).is_file()):
        yield "--add_to_card needs a --model folder that has a README.md to write to"
    if args.add_to_card and (args.self_ensemble or args.attention_window):
        yield "--add_to_card is for the model as it is, without ensemble and window"
    if args.comparison_model and not (args.comparison or args.page):
        yield "--comparison_model needs a --comparison or a --page to show the other model in"
    if args.comparison and args.comparison.suffix.lower() not in FORMATS:
        yield f"--comparison {args.comparison} must end in one of {' '.join(FORMATS)}"
    if args.save_images and args.benchmark_dir:
        folder = args.save_images.resolve()
        if folder.is_relative_to(args.benchmark_dir.resolve()):
            yield (
                f"--save_images {args.save_images} is in --benchmark_dir, where it might overwrite "
                "the pictures; name another folder"
            )
    checks = {"output": cannot_write, "comparison": cannot_write, "page": cannot_write_page}
    for name, check in checks.items():
        file = getattr(args, name)
        if file and (reason := check(file, args.overwrite)):
            yield f"--{name} {file} {reason}"
    if args.save_images and (reason := cannot_make(args.save_images)):
        yield f"--save_images {args.save_images} {reason}"
    for name in args.benchmarks:
        if Path(name).name != name:
            yield f"--benchmarks {name} is no plain name; give its folder by --benchmark_dir"


def score_subject(
    args: argparse.Namespace, name: str | None, scale: int | None, device: torch.device
) -> tuple[str, list[dict[str, str]], dict[str, Any]]:
    """Scores a model or, without a name, the pictures of --sr_dir, on all benchmarks.

    Returns:
        (title of the table, its rows, all figures for --output).
    """
    network = load_subject(name, scale, device, args.revision) if name else None
    if args.attention_window:
        if not isinstance(network, SuperResolutionModel) or network.attention_window is None:
            raise UserError(
                f"--attention_window is for networks that take means of the whole picture, which "
                f"{name or args.sr_dir} is not. Leave it out."
            )
        network.attention_window = args.attention_window
    said = network.scale_in_words() if isinstance(network, SuperResolutionModel) else ""
    if said and scale is None and PartialState().is_main_process:
        print(said)
    scale = network.scale if network else args.scale
    other = load_subject(args.comparison_model, scale, device) if args.comparison_model else None
    assert scale is not None  # as the options were checked
    benchmarks = {
        name: open_benchmark(name, scale, args.benchmark_dir, args.degradation)
        for name in args.benchmarks
    }
    pictures = EvaluatedPictures(args, network, other) if network else None
    if pictures:
        pictures.check(benchmarks)
    metrics: list[Metric] = [psnr_y, ssim_y]
    if args.rgb:
        metrics += [psnr_rgb, ssim_rgb]
    if args.lpips:
        metrics.append(make_lpips(device))
    metrics += [make_pyiqa(name, device) for name in args.metrics]

    origins = {name: benchmark.lr for name, benchmark in benchmarks.items()}
    lr = origins[args.benchmarks[0]] if len(set(origins.values())) == 1 else "as told for each set"
    report: dict[str, Any] = {
        "model": name or str(args.sr_dir),
        "scale": scale,
        "self_ensemble": args.self_ensemble,
        "attention_window": args.attention_window,
        "degradation": args.degradation,
        "protocol": protocol(lr),
        "processes": PartialState().num_processes,
        "versions": versions(
            *(["torchmetrics", "torchvision"] if args.lpips else []),
            *(["pyiqa"] if args.metrics else []),
        ),
        "lr": origins,
        "lr_checksums": {},
        "benchmarks": {},
    }
    title = f"{report['model']}, x{scale}"
    if isinstance(network, SuperResolutionModel):
        report["parameters"] = sum(parameter.numel() for parameter in network.parameters())
        report["multiply_adds"] = count_multiply_adds(network)
        title = (
            f"{type(network).__name__} x{scale} ({name}): {report['parameters']:,} "
            f"parameters, {report['multiply_adds'] / 1e9:.1f} G multiply-adds for an output of "
            "1280x720"
        )
        if args.self_ensemble:
            title += ", 8 times over for the self-ensemble"

    rows = []
    for benchmark_name, benchmark in benchmarks.items():
        if args.sr_dir:
            folder = args.sr_dir / benchmark_name
            results = score_pictures(folder if folder.is_dir() else args.sr_dir, benchmark, metrics)
        else:
            assert network is not None  # as only --sr_dir has none
            assert pictures is not None
            pictures.begin(benchmark_name, benchmark)
            model = SelfEnsemble(network.enlarge) if args.self_ensemble else network.enlarge
            results = evaluate(model, benchmark, device, metrics, pictures.on_image)
        baseline = evaluate(Bicubic(scale), benchmark, device, [psnr_y])
        if pictures:
            pictures.end(results, {key: scores["psnr_y"] for key, scores in baseline.items()})
        if args.per_image:
            for picture, scores in results.items():
                rows.append(score_row(f"  {picture}", "", scores, baseline[picture]))
        means = mean_scores(results)
        rows.append(score_row(benchmark_name, f"{len(results)}", means, mean_scores(baseline)))
        images = dict(zip(picture_keys(list(results)), results.values(), strict=True))
        report["benchmarks"][benchmark_name] = means | {"images": images}
        if args.output and PartialState().is_main_process:
            report["lr_checksums"][benchmark_name] = benchmark.lr_checksum()
    if pictures:
        pictures.finish(title, report["protocol"], rows)
    return title, rows, report


@degradation_refused()
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    check_processes_meet(state.num_processes)
    set_up_cpu()
    scores_all = args.model == ALL and not args.sr_dir
    subjects: Sequence[tuple[str | None, int | None]]
    own = None if args.sr_dir else args.model
    subjects = choose_all(args.scale) if scores_all else [(own, args.scale)]
    folders = [args.benchmark_dir / name for name in args.benchmarks] if args.benchmark_dir else []
    for folder in [*folders, args.sr_dir] if state.is_main_process else ():
        if folder and folder.is_dir() and (said := describe_kinds(folder)):
            print(f"{folder}: {said}\n")
    titles, rows, reports = [], [], []
    for name, scale in subjects:
        title, its_rows, report = score_subject(args, name, scale, state.device)
        titles.append(title)
        rows += [{"model": f"{name} x{scale}", **row} if scores_all else row for row in its_rows]
        reports.append(report)
    state.destroy_process_group()  # while all are still there
    if not state.is_main_process:
        return
    if args.output:  # first: what is printed may meet a terminal that is gone
        args.output.parent.mkdir(parents=True, exist_ok=True)
        # JSON knows no infinity, which is the PSNR of equal pictures.
        figures = json.dumps(reports if scores_all else reports[0])
        content = json.loads(figures, parse_constant=lambda _: None)
        replace_file(args.output, (json.dumps(content, indent=2) + "\n").encode())
    print("\n".join(titles) + f"\nProtocol: {reports[0]['protocol']}.")
    origins = reports[0]["lr"]
    for name, origin in origins.items() if len(set(origins.values())) > 1 else ():
        print(f"LR of {name}: {origin}.")
    print(f"\n{text_table(rows)}")
    written = [args.output, args.save_images, args.comparison, args.page]
    if args.add_to_card:
        means = {
            name: {key: value for key, value in scores.items() if key not in ("images", "seconds")}
            for name, scores in reports[0]["benchmarks"].items()
        }
        folder = find_here(args.model)
        assert folder is not None  # as the options were checked
        if note := add_to_card(folder, reports[0]["scale"], means, reports[0]["protocol"]):
            print(f"\nWarning: {note}")
        written.append(folder / CARD)
    if files := [f"{path}" for path in written if path]:
        print(f"\nWritten: {enumerate_first(files)}")


if __name__ == "__main__":
    main()
