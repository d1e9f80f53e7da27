"""README and docs: their commands parse, their links lead somewhere, their examples run."""

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import accelerate.tracking
import numpy as np
import pytest
import torch
from accelerate.utils import LoggerType
from PIL import Image

import common
import common.hub
from common.data.find import SAMPLE_BENCHMARK, sample_pictures
from common.hub import load_model
from running import ROOT, run_here
from train_a2n import A2N

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEW_NETWORK = ROOT / "docs" / "add_a_network.md"
DEGRADATION = ROOT / "docs" / "degradation.md"
# Options that the pages name and that belong to launchers and to other programs.
FOREIGN = {
    "--shm",
    "--logdir",
    "--table",
    "--machine_rank",
    "--multi_gpu",
    "--node_rank",
    "--num_processes",
}
# What makes every run of an example a short one.
SHORT = "--max_train_steps 2 --validation_steps 2 --batch_size 2 --patch_size 48".split()
SHORT += "--num_workers 0 --cpu_threads 1".split()


def fences(page: Path, language: str) -> list[str]:
    """The blocks of a page between ``` of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """A page without the blocks between ```."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command: of indented blocks, of ```bash blocks, and inside a line."""
    blocks = re.findall(r"(?<=\n\n)(?:(?: {4}.*)?\n)+", prose(page)) + fences(page, "bash")
    inside = re.findall(r"`((?:python|accelerate launch) [^`]+)`", prose(page))
    for text in "".join(blocks).replace("\\\n", " ").splitlines() + inside:
        # (The last word may end with the quote of a command around it.)
        yield shlex.split(text.strip().removesuffix("'").partition(" # ")[0].replace("'", ""))


def scripts_in(page: Path) -> Iterator[tuple[str, list[str]]]:
    """(script, its options) of every command that starts a script of this repository."""
    for words in commands(page):
        starts = {"python", "launch"} & set(words)
        found = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
        if starts and "pytest" not in words and found is not None:
            yield words[found], words[found + 1 :]


def examples() -> list[Any]:
    """The same of all pages, each command once, as parameters of a test."""
    found: dict[tuple[str, ...], str] = {}
    for page in PAGES:
        for name, options in scripts_in(page):
            found.setdefault((name, *options), f"{page.stem}: {shlex.join([name, *options])[:60]}")
    return [pytest.param(name, options, id=label) for (name, *options), label in found.items()]


EXAMPLES = examples()
RUNNABLE = [
    example
    for example in EXAMPLES
    if "sample" in example.values[1] and not any("mine" in word for word in example.values[1])
    if example.values[0] in ("train_a2n.py", "evaluate.py")
]


@pytest.fixture
def new_network(tmp_path, monkeypatch) -> Iterator[None]:
    """Puts the script that docs/add_a_network.md writes where the others find it."""
    code, names = tmp_path / "code", tmp_path / "names"
    code.mkdir()
    (code / "train_mine.py").write_text("\n\n".join(fences(NEW_NETWORK, "python")))
    monkeypatch.syspath_prepend(code)
    monkeypatch.delitem(sys.modules, "train_mine", raising=False)  # a reader's own
    names.mkdir()  # where `find_network` looks which scripts there are
    for path in [*ROOT.glob("train_*.py"), code / "train_mine.py"]:
        (names / path.name).touch()
    monkeypatch.setattr(common.hub, "ROOT", names)
    yield
    sys.modules.pop("train_mine", None)


@pytest.fixture
def reader(new_network, tmp_path, monkeypatch) -> Path:
    """The folder of somebody who follows the pages: with models and a photograph."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for name in ("a2n", "trial"):
        A2N(2, num_features=8, num_blocks=1).save_pretrained(tmp_path / "out" / name)
    own = next(code for code in fences(DEGRADATION, "python") if "def dark" in code)
    (tmp_path / "my_degradation.py").write_text(own)
    script("train_mine.py").ESPCN(2).save_pretrained(tmp_path / "out" / "mine")
    with Image.open(sample_pictures(SAMPLE_BENCHMARK)[0]["hr"]["path"]) as image:
        image.crop((180, 60, 300, 140)).save(tmp_path / "photo.jpg")
    return tmp_path


def script(name: str) -> ModuleType:
    return importlib.import_module(name.removesuffix(".py"))


# ---------------------------------------------------------------------------------------- commands


def test_all_commands_are_found():
    assert ("train_a2n.py", ["--scale", "2", "--batch_size", "32"]) in list(scripts_in(PAGES[0]))
    assert len(EXAMPLES) > 35
    assert len(RUNNABLE) > 3
    slurm = [options for name, options in scripts_in(ROOT / "docs" / "resume.md")]
    job = "--mixed_precision bf16 --output_dir /nfs/a2n --resume_from_checkpoint latest"
    assert job.split() in slurm


@pytest.mark.parametrize(("name", "options"), EXAMPLES)
def test_commands_are_valid(name, options, reader, monkeypatch):
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: list(LoggerType))
    assert name == "train_mine.py" or (ROOT / name).is_file()
    if "--help" in options:
        with pytest.raises(SystemExit, match="0"):
            script(name).parse_args(options)
    else:
        script(name).parse_args(options)


def test_options_and_targets_exist():
    known = set(FOREIGN)
    for path in [*ROOT.glob("*.py"), ROOT / "common" / "hub.py"]:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        known |= set(re.findall(r"--\w+", run_here(module, "--help").stdout))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = " ".join(re.findall(r"`([^`]+)`", prose(page)))
        assert set(re.findall(r"(?<!\S)--\w+", named)) <= known, page
        made = re.findall(r"(?:`|^ {4})make ([\w-]+)", page.read_text(), re.MULTILINE)
        assert set(made) <= targets, page


@pytest.mark.parametrize(("name", "options"), RUNNABLE)
def test_commands_run(name, options, reader):
    if name.startswith("train_"):
        run_here(name, *options, *SHORT, "--output_dir", reader / "run")
        assert (reader / "run" / "model.safetensors").is_file()
    else:
        assert "over bicubic" in run_here(name, *options).stdout


# ------------------------------------------------------------------------------------------- links


def heading_ids(page: Path) -> set[str]:
    """What a link to a heading may name, as GitHub makes it."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        file, _, heading = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if heading:
            assert heading in heading_ids(target), link


def test_readme_is_one_page_and_names_all_others():
    readme = PAGES[0].read_text()
    assert len(readme.splitlines()) <= 200
    assert all(f"docs/{page.name}" in readme for page in PAGES[1:])


def test_the_cost_is_told_before_the_command():
    readme = PAGES[0].read_text()
    assert readme.index("540 hours") < readme.index("python train_a2n.py")


# ---------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize(
    ("page", "code"),
    [
        pytest.param(page, code, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, code in enumerate(fences(page, "python"))
        if page != NEW_NETWORK
    ],
)
def test_python_runs(page, code, reader):
    compiled = compile(code, page.name, "exec")
    if "out/a2n" in code:
        names = {}
        exec(compiled, names)
        if "larger" in names:
            assert names["larger"].size == (240, 160)
            assert names["exact"].size == (1920, 1280)
        if "write_picture" in names:
            assert (reader / "photo-sr.png").is_file()
        if "upscale" in names:
            assert (reader / "large" / "photo_x2.jpg").is_file()


def test_the_new_network_is_a_whole_one(reader):
    run = (*"train_mine.py --dataset_name sample --scale 2 --lr_scheduler step".split(), *SHORT)
    run += ("--output_dir", reader / "run", "--resume_from_checkpoint", "latest")
    run_here(*run)
    assert "Resuming from" in run_here(*run, "--max_train_steps", 3).stdout
    run_here("evaluate.py", "--model", reader / "run", "--benchmarks", "sample")

    # Tiles are as the whole, and the margin is what the network sees.
    for suffix, tile in (("whole", 0), ("tiles", 16)):
        options = ("--model", reader / "run", "--tile", tile, "--suffix", suffix, "--format", "png")
        run_here("upscale.py", reader / "photo.jpg", *options)
    whole, tiles = (
        np.asarray(Image.open(f"upscaled/photo{suffix}.png")).astype(int)
        for suffix in ("whole", "tiles")
    )
    assert whole.shape == (160, 240, 3)
    assert abs(whole - tiles).max() <= 1
    network = load_model(reader / "run").double()
    lr = torch.rand(1, 3, 21, 21, dtype=torch.float64, requires_grad=True)
    network(lr)[..., 20:22, 20:22].sum().backward()  # the pixels of one in the middle
    rows = lr.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten().tolist()
    assert (10 - rows[0], rows[-1] - 10) == (network.margin, network.margin)


def test_the_map_is_that_of_the_code():
    assert fences(NEW_NETWORK, "text")[0].strip() in common.__doc__
