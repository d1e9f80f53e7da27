"""--degradation with wrong names, files and functions; no file from elsewhere is run as code."""

import json
from functools import partial
from pathlib import Path

import pytest

from common.data.degradation import _function_of, degradation_name
from common.training.folder import CHECKSUMS, seal
from running import LATEST, SCRIPT, SMALL, refusal, run_here

RULE = "is none of none, jpeg, photo, bsrgan, realesrgan, jpeg:QUALITY, and not FILE.py:FUNCTION"
QUALITY = "a quality of JPEG is a whole number from 1 to 95, as in jpeg:75"
OWN_SAMPLE = ("--benchmarks", "sample", "--degradation", "own.py:f")
GOOD = "def f(hr, scale, generator):\n    return hr[::scale, ::scale].copy()\n"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", RULE),
        ("JPEG", f"JPEG {RULE}"),
        ("jpeg ", RULE),
        *((f"jpeg:{text}", f"jpeg:{text}: {QUALITY}") for text in ("", "0", "96", "075", "²")),
        ("photo:75", f"photo:75 {RULE}"),
        ("own.py", f"own.py {RULE}"),
        ("own.py:", RULE),
        (":f", RULE),
        ("own.txt:f", RULE),
        ("own.py:f()", RULE),
        ("own.py:a.b", RULE),
        ("own.py:f@12345678", RULE),
        ("missing.py:f", "missing.py:f cannot be read: No such file or directory"),
        ("folder.py:f", "folder.py:f cannot be read: Is a directory"),
        ("own.py:g", "own.py:g cannot be loaded: ValueError: there is no function g in it"),
        ("own.py:number", "there is no function number in it"),
        ("wrong.py:f", "wrong.py:f cannot be loaded: SyntaxError: "),
        ("imports.py:f", "cannot be loaded: ModuleNotFoundError: No module named 'nowhere'"),
        ("exits.py:f", "exits.py:f cannot be loaded: SystemExit: 3"),
        ("binary.py:f", "binary.py:f cannot be loaded: "),
    ],
)
@pytest.mark.parametrize("script", [SCRIPT, "evaluate.py", "prepare_dataset.py"])
def test_names(script, value, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.py").mkdir()
    Path("own.py").write_text(GOOD + "number = 7\n")
    Path("wrong.py").write_text("def f(:\n")
    Path("imports.py").write_text("import nowhere\n")
    Path("exits.py").write_text("raise SystemExit(3)\n")
    Path("binary.py").write_bytes(bytes(range(256)))
    found = refusal(script, "--degradation", value)
    assert f"--degradation {message}" in found or message in found
    assert "Traceback" not in found


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return hr", "returned uint8 (88, 88, 3) for HR of (88, 88, 3). It must return a uint8"),
        ("return hr[::2, ::2] / 255", "returned float64 (44, 44, 3)"),
        ("return None", "returned NoneType"),
        ("return 1 / 0", "failed: ZeroDivisionError: division by zero"),
        ("return f(hr)", "failed: TypeError: "),
    ],
)
def test_functions(body, message, pictures_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(f"def f(hr, scale, generator):\n    {body}\n")
    base = (SCRIPT, *SMALL, "--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run")
    found = refusal(*base, "--scale", 2, "--degradation", "own.py:f")
    assert message in found
    assert "--degradation: own.py:f@" in found
    command = ("prepare_dataset.py", pictures_dir, "--scales", 2, "--degradation", "own.py:f")
    for options in (
        ("evaluate.py", "--model", "bicubic", "--scale", 2, *OWN_SAMPLE),
        (*command, "--output_dir", tmp_path / "set"),
        (*command, "--preview", tmp_path / "sheet.png"),
    ):
        found = refusal(*options)
        assert found.startswith("--degradation: own.py:f@") or "\n--degradation: own.py" in found
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_function_that_fails_later(workers, pictures_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = "import itertools\ncalls = itertools.count()\n"
    late = GOOD.replace(
        "    return", "    if next(calls) > 20:\n        raise OSError('a\\nb')\n    return"
    )
    Path("own.py").write_text(calls + late)
    base = (SCRIPT, *SMALL, "--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run")
    options = ("--scale", 2, "--degradation", "own.py:f", "--num_workers", workers)
    found = refusal(*base, *options)
    assert "--degradation: own.py:f@" in found
    assert found.endswith("failed: OSError: a b")


def test_a_file_that_changes_is_noticed(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(GOOD)
    name = degradation_name(f"{file}:f")
    file.write_text(GOOD + "\n")
    assert degradation_name(f"{file}:f") != name
    _function_of.cache_clear()  # as in a worker that begins later
    with pytest.raises(ValueError, match="changed since the program began"):
        _function_of(name)


def test_a_checkpoint_or_a_model_runs_no_file(train, tmp_path):
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'was_here')!r}, 'w')\n{GOOD}")
    train(SCRIPT, tmp_path / "run", steps=1)
    for name in ("args.json", "checkpoint-1/args.json", "config.json"):
        file = tmp_path / "run" / name
        content = json.loads(file.read_text())
        content.get("args", content)["degradation"] = f"{evil}:f@00000000"
        file.write_text(json.dumps(content))
        if "checkpoint" in name:  # sealed anew, as by somebody who means it
            (file.parent / CHECKSUMS).unlink()
            seal(file.parent.rename(f"{file.parent}.partial"), content)
    refused = partial(run_here, check=False)
    end = train(SCRIPT, tmp_path / "run", *LATEST, steps=2, runner=refused)
    assert f"--degradation was {evil}:f@00000000 and is none" in end.returncode
    train(SCRIPT, tmp_path / "run", *LATEST, "--allow_recipe_change", steps=2)
    run_here("evaluate.py", "--model", tmp_path / "run", "--benchmarks", "sample", check=False)
    file = tmp_path / "run" / "args.json"
    record = json.loads(file.read_text())
    for option in ("--degradation ", "--degr="):
        command = f"{record['command']} {option}{evil}:f"
        file.write_text(json.dumps(record | {"command": command}))
        printed = run_here("report.py", tmp_path / "run").stdout
        assert "The validation pictures cannot be had: train_srcnn.py: error: --degr" in printed
        assert f"{evil}:f is not run, since a record names it; only a file on your" in printed
    assert not (tmp_path / "was_here").exists()
