"""Ways out that messages name: each is taken, in the situation in which the message comes."""

import json
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from common.training.folder import way_on
from running import LATEST, SRGAN, flip_a_bit, refusal, run_here
from train_a2n import A2N
from train_srcnn import SRCNN

VDSR = "train_vdsr.py"
# (Under a cosine, another --max_train_steps would be another recipe.)
QUIET = ("--report_to", "none", "--lr_scheduler", "step")


class Way(NamedTuple):
    """A command line that is refused, and those that its message names.

    Attributes:
        script: Name of the script.
        wrong: Options; of words in braces, `place` tells the path.
        message: Part of the message, the way out in it.
        right: Command lines that the message names in place of the wrong one. The plain one, with
            no options, is taken once.
    """

    script: str
    wrong: str
    message: str
    right: list[str]


def srcnn(wrong: str, message: str, *right: str) -> Way:
    return Way("train_srcnn.py", wrong, message, list(right))


RESUME = "--resume_from_checkpoint"
WAYS = [
    # The folder of a run.
    srcnn(
        "--output_dir {run}",
        f"Go on with the run in it by {RESUME} latest, or name another folder.",
        f"--output_dir {{run}} {RESUME} latest",
        "--output_dir {new}",
    ),
    srcnn("--output_dir {data}", "is not empty and not that of a run. Name another.", ""),
    srcnn("--output_dir {file}", "is a file. Name a folder."),
    srcnn(
        f"--output_dir {{run}} {RESUME} latest --learning_rate 0.001",
        "Give the same options, or start a new run with --init_from and another --output_dir. If "
        "network, optimizer and average are the same, --allow_recipe_change goes on with the new "
        "recipe.",
        f"--output_dir {{run}} {RESUME} latest",
        "--init_from {run} --learning_rate 0.001",
        f"--output_dir {{run}} {RESUME} latest --learning_rate 0.001 --allow_recipe_change",
    ),
    srcnn(
        f"--output_dir {{run}} {RESUME} latest --ema_decay 0.9 --allow_recipe_change",
        "Give --ema_decay 0, or start a new run in another --output_dir, with --init_from.",
        "--init_from {run} --ema_decay 0.9",
    ),
    srcnn(
        f"--output_dir {{run}} {RESUME} latest --max_train_steps 7",
        "Give a larger --max_train_steps, or go on elsewhere from an earlier one.",
        f"{RESUME} {{run}}/checkpoint-5 --max_train_steps 7",
        f"--output_dir {{run}} {RESUME} latest --max_train_steps 12",
    ),
    srcnn(
        f"{RESUME} {{run}}",
        "is the folder of a run. Give `latest` with --output_dir",
        f"{RESUME} latest --output_dir {{run}}",
        f"{RESUME} {{run}}/checkpoint-10",
    ),
    srcnn(
        f"{RESUME} {{run}}/checkpoint-5 --output_dir {{run}}",
        "Name another --output_dir to go on from there.",
        f"{RESUME} {{run}}/checkpoint-5",
    ),
    srcnn(
        f"{RESUME} {{damaged}}/checkpoint-10 --output_dir {{damaged}}",
        "Use `latest`, which takes the one before it.",
        f"{RESUME} latest --output_dir {{damaged}}",
    ),
    srcnn(
        f"{RESUME} {{damaged}}/checkpoint-10",
        "is damaged: optimizer.bin is not what was written. Use another.",
        f"{RESUME} {{damaged}}/checkpoint-5",
    ),
    srcnn(
        f"{RESUME} latest --output_dir {{all_damaged}}",
        "Begin anew in another --output_dir, if you like with the weights that are here, by "
        "--init_from.",
        "",
        "--init_from {all_damaged}",
    ),
    srcnn(  # what a disk leaves that was too full for any checkpoint
        f"{RESUME} latest --output_dir {{no_checkpoint}}",
        "Name another --output_dir, if you like with --init_from",
        "--init_from {no_checkpoint}",
    ),
    srcnn(
        "--learning_rate 1e9",
        "Try a smaller --learning_rate, more --lr_warmup_steps, or bf16 instead of fp16, in "
        f"another --output_dir: anew, or by {RESUME} PATH --allow_recipe_change.",
        "--learning_rate 1e-5",
        "--learning_rate 1e-5 --lr_warmup_steps 3 --mixed_precision bf16",
        f"--learning_rate 1e-5 {RESUME} {{run}}/checkpoint-5 --allow_recipe_change",
    ),
    # Options of a training.
    srcnn("--patch_size 40", "is not a multiple of --scale 3; try 42.", "--patch_size 42"),
    srcnn("--patch_size 12", "at least 33 is usual.", "--patch_size 33"),
    srcnn("--gradient_accumulation_steps 3", "for example 6.", "--batch_size 6"),
    srcnn(
        "--mixed_precision fp16",
        "Use --mixed_precision bf16 or no.",
        "--mixed_precision bf16",
        "--mixed_precision no",
    ),
    srcnn("--revision v1", "--revision belongs to --init_from. Leave it out"),
    srcnn("--hub_private", "--hub_private belongs to --push_to_hub. Leave it out"),
    srcnn("--push_to_hub", "--push_to_hub needs a token. Log in by `hf auth login`, or"),
    srcnn("--streaming_images 5", "--streaming_images belongs to --streaming. Leave it out"),
    srcnn("--streaming", "--streaming reads from the Hub. Leave it out for pictures that are"),
    srcnn("--train_split x", "--train_split chooses in a data set, and --train_data_dir"),
    srcnn("--image_column x", "Leave it out."),
    srcnn(
        "--max_train_images 1",
        "name others with --validation_data_dir.",
        "--max_train_images 1 --validation_data_dir {data}",
    ),
    srcnn(
        "--validation_data_dir {small}",
        "Remove them, or name larger pictures with --validation_data_dir.",
        "--validation_data_dir {data}",
    ),
    srcnn("--patch_size 300", "Choose a smaller --patch_size or larger", "--patch_size 48"),
    srcnn(
        "--init_from {nothing}",
        "There is no folder or file ",
        "--init_from {run}",
        "--init_from {run}/model.safetensors",
    ),
    srcnn("--init_from {run} --revision v1", "is a folder here. Leave it out", "--init_from {run}"),
    Way(
        VDSR,
        "--clip_theta 1",
        "--optimizer sgd. Leave it out, or add that.",
        ["", "--clip_theta 1 --optimizer sgd"],
    ),
    Way(VDSR, "--scale 2 --patch_size 4", "48 is usual.", ["--scale 2 --patch_size 48"]),
    Way(
        SRGAN,
        "--init_from {srgan} --num_blocks 2",
        "Give the options that it was trained with, or train the rest first, by --pretrain_steps N",
        ["--init_from {srgan}", "--init_from {srgan} --num_blocks 2 --pretrain_steps 1"],
    ),
    Way(
        SRGAN,
        "--max_train_steps 0",
        "are both 0: nothing to train.",
        ["--max_train_steps 0 --pretrain_steps 1", "--max_train_steps 1"],
    ),
    # evaluate.py
    *(
        Way("evaluate.py", wrong, message, right)
        for wrong, message, right in [
            ("--model bicubic", "needs a --scale, for example 2.", ["--model bicubic --scale 2"]),
            ("--sr_dir {hr}", "--sr_dir needs a --scale, for", ["--sr_dir {hr} --scale 2"]),
            (
                "--model {run} --output {file}",
                "name another, or add --overwrite",
                ["--model {run} --output {file} --overwrite", "--model {run} --output {nothing}"],
            ),
            (
                "--model {run} --output {data}",
                "is a folder; name a file",
                ["--model {run} --output {nothing}"],
            ),
            (
                "--model {run} --save_images {saved}",
                "name another, or add --overwrite",
                ["--model {run} --save_images {saved} --overwrite"],
            ),
            (
                "--model {run} --save_images {benchmarks}/Tiny",
                "name another folder",
                ["--model {run} --save_images {nothing}"],
            ),
            (
                "--model {run} --comparison {nothing}.txt",
                "must end in one of .png",
                ["--model {run} --comparison {nothing}.png"],
            ),
            (
                "--model {run} --comparison_model {run}",
                "needs a --comparison or a --page",
                ["--model {run} --comparison_model {run} --comparison {nothing}.png"],
            ),
            (
                "--model {run} --benchmarks {benchmarks}/Tiny",
                "is no plain name; give its folder by --benchmark_dir",
                ["--model {run} --benchmarks Tiny --benchmark_dir {benchmarks}"],
            ),
            ("--model {run} --attention_window 8", "Leave it out.", ["--model {run}"]),
            ("--model {run}/config.json", "is a file. Give its folder, ", ["--model {run}"]),
            ("--model {run} --revision v1", "Leave it out, or rename that", ["--model {run}"]),
            ("--model {run} --scale 2", "is trained to enlarge by 3, not by 2.", ["--model {run}"]),
        ]
    ),
    # The others.
    *(
        Way("upscale.py", wrong, message, right)
        for wrong, message, right in [
            (
                "{small} --model {a2n} --tile 8 --attention_window 0",
                "Give a window, for example 64, or --tile 0.",
                [
                    "{small} --model {a2n} --tile 8 --attention_window 64",
                    "{small} --model {a2n} --attention_window 0 --tile 0",
                ],
            ),
            (
                "{small} --model {run} --attention_window 8",
                "Leave it out.",
                ["{small} --model {run}"],
            ),
            (
                "{small} --model {run} --suffix a/b",
                "folders are for --output",
                ["{small} --model {run} --suffix b --output {nothing}/a"],
            ),
            (
                "{small} {data}/0.png --model {run} --suffix _ --output {nothing}",
                "enlarge it alone",
                [
                    "{small} --model {run} --suffix _ --output {nothing}",
                    "{data}/0.png --model {run} --suffix _ --output {new}",
                ],
            ),
            (
                "{small}/0.png --model {run} --suffix= --output {small}",
                "give another --suffix or --output",
                [
                    "{small}/0.png --model {run} --suffix _b --output {small}",
                    "{small}/0.png --model {run} --suffix= --output {nothing}",
                ],
            ),
            (
                "{small} --model {run} --mixed_precision fp16",
                "Use --mixed_precision bf16 or no.",
                [
                    "{small} --model {run} --mixed_precision bf16",
                    "{small} --model {run} --mixed_precision no",
                ],
            ),
        ]
    ),
    Way(
        "prepare_dataset.py",
        "{data} --output_dir {run}",
        "more); name another, or empty it",
        ["{data} --output_dir {new}"],
    ),
    Way(
        "prepare_dataset.py",
        "{data} --output_dir {new} --patch_step 8",
        "--patch_step belongs to --patch_size. Leave it out, or add that.",
        [
            "{data} --output_dir {nothing}",
            "{data} --output_dir {new} --patch_step 8 --patch_size 48",
        ],
    ),
]


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory) -> Path:
    """Folders of small networks: `run`, of SRCNN with two checkpoints, `srgan`, `a2n`."""
    folder = tmp_path_factory.mktemp("trained")
    train("train_srcnn.py", folder / "run", *QUIET, "--checkpointing_steps", 5, steps=10)
    train(SRGAN, folder / "srgan", *QUIET, steps=1)
    A2N(2, "a2n-m", num_blocks=1).save_pretrained(folder / "a2n")
    return folder


@pytest.fixture
def place(trained, pictures_dir, tiny_benchmark_dir, tmp_path) -> dict[str, str]:
    """The paths of words in braces; `new` and `nothing` are not there."""
    names = ("new", "nothing", "file", "small", "saved", "damaged", "all_damaged", "no_checkpoint")
    places = {name: tmp_path / name for name in names}
    for name in ("run", "damaged", "all_damaged", "no_checkpoint"):
        shutil.copytree(trained / "run", tmp_path / name)
    for name in ("damaged/checkpoint-10", "all_damaged/checkpoint-5", "all_damaged/checkpoint-10"):
        flip_a_bit(tmp_path / name / "optimizer.bin")
    for step in (5, 10):
        shutil.rmtree(tmp_path / "no_checkpoint" / f"checkpoint-{step}")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "small").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / "small" / f"{number}.png")
    (tmp_path / "saved" / "Tiny").mkdir(parents=True)
    (tmp_path / "saved" / "Tiny" / "0.png").touch()
    places |= {"run": tmp_path / "run", "srgan": trained / "srgan", "a2n": trained / "a2n"}
    places |= {"data": pictures_dir, "benchmarks": tiny_benchmark_dir}
    places["hr"] = tiny_benchmark_dir / "Tiny" / "HR"
    return {name: f"{path}" for name, path in places.items()}


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            way,
            id=f"{way.script} {way.wrong}",
            marks=[pytest.mark.slow] if way.script == SRGAN else [],
        )
        for way in WAYS
    ],
)
def test_ways_out_are_taken(way, place, train, pictures_dir, tmp_path):
    def take(number: int, line: str, runner) -> object:
        options = [word.format(**place) for word in shlex.split(line)]
        if way.script.startswith("train_"):
            output_dir = Path(place["new"] if runner is refusal else tmp_path / f"way-{number}")
            base = (*QUIET, "--checkpointing_steps", 5)
            steps = 10 if way.script == "train_srcnn.py" else 1
            return train(way.script, output_dir, *base, *options, steps=steps, runner=runner)
        if way.script == "evaluate.py":
            options = [*("--benchmark_dir", place["benchmarks"], "--benchmarks", "Tiny"), *options]
        if way.script == "upscale.py" and "--output" not in options:
            options += ["--output", tmp_path / f"way-{number}"]
        return runner(way.script, *options)

    assert way.message in take(0, way.wrong, refusal)
    for number, line in enumerate(way.right):
        take(number, line, run_here)


def test_after_a_disk_too_full_for_any_checkpoint(place, train, tmp_path):
    text = way_on(Path(place["no_checkpoint"]))
    assert f"another --output_dir, with --init_from {place['no_checkpoint']} if there is a" in text
    train("train_srcnn.py", tmp_path / "anew", "--init_from", place["no_checkpoint"], steps=2)
    text = way_on(Path(place["run"]))
    assert f"The same command with {' '.join(LATEST)} goes on from checkpoint-10." in text
    train("train_srcnn.py", Path(place["run"]), *QUIET, *LATEST, steps=11)


def test_a_model_that_diverged_is_replaced(tmp_path):
    """Commands that write somewhere: a new folder in place of one that exists."""
    SRCNN(2).save_pretrained(tmp_path / "model")
    converted = tmp_path / "converted"
    converted.mkdir()
    (converted / "mine.txt").touch()
    options = (tmp_path / "model" / "model.safetensors", "--architecture", "srcnn", "--scale", 2)
    message = refusal("convert_published.py", *options, "--output_dir", converted)
    assert "is not empty (mine.txt); name another, or empty it." in message
    message = refusal("convert_published.py", *options, "--output_dir", tmp_path / "new")
    assert "Check --architecture and --scale." in message


def test_a_new_run_in_place_of_a_deleted_folder(place, train):
    folder = Path(place["no_checkpoint"])
    assert "or delete the folder." in train("train_srcnn.py", folder, *LATEST, runner=refusal)
    shutil.rmtree(folder)
    train("train_srcnn.py", folder, *LATEST, steps=2)
    assert json.loads((folder / "args.json").read_text())["args"]["max_train_steps"] == 2
