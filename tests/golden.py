"""Compares what a commit trains with what the working tree trains. pytest does not collect it.

    python tests/golden.py HEAD --scripts a2n srcnn --keep out/golden

Both train on this machine, because another one sums float32 in another order. Every training script
of the commit trains 20 steps: on one process, on two, resumed from its own checkpoint of step 10,
and resumed from the commit's checkpoint of step 10. The exit status is 1 if a run differs from the
commit's straight run. With --keep, the next call trains only the working tree.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import skimage
import torch
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
ONE, TWO, RESUMED, TAKEN_OVER = "1 process", "2 processes", "resumed", "resumed from COMMIT's"
TWO_PROCESSES = "-m torch.distributed.run --standalone --nproc_per_node 2".split()
# The options are not those of running.py, because a kept run must stay comparable when they change.
OPTIONS = """--batch_size 4 --patch_size 24 --cpu_threads 1 --num_workers 2 --max_train_steps 20
    --logging_steps 5 --validation_steps 10 --checkpointing_steps 10 --report_to none
    --ema_decay 0.9 --lr_scheduler step --lr_step_size 7 --lr_gamma 0.5 --lr_warmup_steps 0
    --learning_rate 2e-5""".split()
# SRGAN enters its second phase at step 10. It does without VGG, whose weights are a download.
SRGAN = "--pretrain_steps 10 --max_train_steps 10 --num_blocks 1 --content_weight 0".split()
OWN = {"train_srgan.py": SRGAN, "train_vdsr.py": "--scale 2 3 4".split()}
STATES = ("*.safetensors", "optimizer*.bin", "scheduler*.bin", "custom_checkpoint_*.pkl")


def make_pictures(folder: Path) -> None:
    """Cuts eight PNG pictures of 96x80 pixels from photographs of the scikit-image package."""
    folder.mkdir()
    for number, name in enumerate(["astronaut.png", "coffee.png"] * 4):
        left, top = 40 * number, 30 * number
        with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
            crop = image.convert("RGB").crop((left, top, left + 96, top + 80))
        crop.save(folder / f"{number}.png")


def train(tree: Path, script: str, kind: str, runs: Path, work: Path, source: Path | None) -> str:
    """Trains with the code in `tree` into runs/script/kind, unless that folder is there already.

    `source`: a finished run, whose step 10 is resumed. Returns the error message, or "".
    """
    folder, output = runs / script / kind, runs / script / f"{kind}, unfinished"
    if folder.exists():
        return ""
    shutil.rmtree(output, ignore_errors=True)  # an earlier call was interrupted
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *(TWO_PROCESSES if kind == TWO else []), tree / script, *OPTIONS]
    command += [*OWN.get(script, []), "--train_data_dir", work / "pictures", "--output_dir", output]
    needed = "over 2 processes" if kind == TWO else ""
    if source and not source.exists():
        return "failed: there is no run to resume"
    if source:
        shutil.copytree(source, output)
        shutil.rmtree(output / "checkpoint-20")
        if "at step 20, on" in (output / "README.md").read_text():  # not the model of step 10
            (output / "model.safetensors").unlink()
        command += ["--resume_from_checkpoint", "latest"]
        needed = f"Resuming from {output / 'checkpoint-10'}"
    own = {"PYTHONPATH": f"{tree}", "HF_HOME": f"{work}", "TMPDIR": f"{work}"}
    own |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    end = subprocess.run(command, cwd=tree, env=os.environ | own, capture_output=True, text=True)
    if end.returncode or needed not in end.stdout:
        return f"failed: {end.stderr.strip()[-1500:] or f'no {needed!r} in its output'}"
    output.rename(folder)
    return ""


def differences(ours: Path, theirs: Path) -> Iterator[str]:
    """Names what differs between the output folder `ours` and the commit's output folder."""
    for name in ("metrics.jsonl", "model.safetensors", "pretrained/model.safetensors"):
        new, old = (f.read_bytes() if f.exists() else None for f in (ours / name, theirs / name))
        if new != old:
            yield name
    one, two = ours / "checkpoint-20", theirs / "checkpoint-20"
    for name in sorted({p.name for part in STATES for p in (*one.glob(part), *two.glob(part))}):
        load = load_file if name.endswith(".safetensors") else torch.load
        new, old = (load(f / name) if (f / name).exists() else "no file" for f in (one, two))
        if name == "custom_checkpoint_0.pkl":  # to which the working tree may add keys
            for state, folder in ((new, one), (old, two)):
                if (folder / "scores.json").exists():
                    state |= json.loads((folder / "scores.json").read_text())
            new, old = new | {"seconds": 0}, old | {"seconds": 0}
            new = {key: new[key] for key in old if key in new}
        yield from unequal(new, old, name)


def unequal(new: object, old: object, name: str) -> Iterator[str]:
    """Names the tensors and plain values in nested containers that differ in a bit."""
    if isinstance(old, list | tuple) and type(new) is type(old):
        new, old = dict(enumerate(new)), dict(enumerate(old))
    if isinstance(new, dict) and isinstance(old, dict) and list(new) == list(old):
        for key in old:
            yield from unequal(new[key], old[key], f"{name}[{key!r}]")
    elif isinstance(new, torch.Tensor) and isinstance(old, torch.Tensor):
        same = new.dtype == old.dtype and new.shape == old.shape
        if not same or not torch.equal(*(t.reshape(-1).view(torch.uint8) for t in (new, old))):
            yield name
    elif repr(new) != repr(old):  # repr tells 1 from 1.0, and finds nan equal to nan
        yield name


def compare(commit: str, names: list[str] | None, keep: Path | None, work: Path) -> bool:
    """Trains, prints one line for each run, and returns whether all runs are equal."""
    full_name = ["git", "rev-parse", f"{commit}^0"]
    commit = subprocess.check_output(full_name, cwd=ROOT, text=True).strip()
    tree, before, after = work / "tree", (keep or work).resolve() / commit, work / "after"
    archive = subprocess.check_output(["git", "archive", "--prefix=tree/", commit], cwd=ROOT)
    subprocess.run(["tar", "-x", "-C", work], input=archive, check=True)
    make_pictures(work / "pictures")
    scripts = [f"train_{name}.py" for name in names or []]
    scripts = scripts or sorted(path.name for path in tree.glob("train_*.py"))

    def run(script: str, kind: str) -> str:
        sources = {RESUMED: after / script / ONE, TAKEN_OVER: before / script / ONE}
        if kind not in sources and (error := train(tree, script, kind, before, work, None)):
            return f"the commit's run {error}"
        if error := train(ROOT, script, kind, after, work, sources.get(kind)):
            return error
        theirs = before / script / (TWO if kind == TWO else ONE)
        found = list(differences(after / script / kind, theirs))
        return f"{len(found)} differ: {', '.join(found[:3])}" if found else ""

    failed = 0
    with ThreadPoolExecutor(2) as pool:
        for kinds in ((ONE, TWO), (RESUMED, TAKEN_OVER)):  # the latter go on from the former
            jobs = [(script, kind) for script in scripts for kind in kinds]
            errors = pool.map(run, *zip(*jobs, strict=True))
            for (script, kind), error in zip(jobs, errors, strict=True):
                failed += bool(error)
                print(f"{script}, {kind}: {error or 'equal'}", flush=True)
    return not failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commit", help="name of the commit, as git knows it")
    parser.add_argument("--scripts", nargs="+", metavar="NAME", help="a2n for train_a2n.py")
    parser.add_argument("--keep", type=Path, help="folder that keeps the runs of the commit")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        sys.exit(not compare(args.commit, args.scripts, args.keep, Path(folder)))
