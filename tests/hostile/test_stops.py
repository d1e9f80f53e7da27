"""Ctrl-C and the launcher's end, at moments at which a training has not begun yet or has ended."""

import os
import re
import signal
import sys
import threading
import time

import psutil
import pytest

from common.hub_api import push_folder
from common.training.state import Checkpoints
from helpers.forked import PATIENCE, ROOT
from helpers.hub_server import Handler
from running import RECIPE, SCRIPT, SMALL, refusal, run_here, start, train_from_hub

LAUNCHER = ("-m", "accelerate.commands.launch", "--cpu")
ENTRIES = [
    file
    for folder in ("", "benchmarks", "results")
    for file in sorted((ROOT / folder).glob("*.py"))
    if '__name__ == "__main__"' in file.read_text() and file.stem != "host"  # serves older clones
]
IMPORT = re.compile(r"(import|from) [\w.]+")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_a_launcher_that_ends_early_leaves_nothing_behind(number, pictures_dir, tmp_path):
    options = ("--train_data_dir", pictures_dir, "--scale", 2, *SMALL, *RECIPE)
    process = start(*LAUNCHER, SCRIPT, *options, "--output_dir", tmp_path / "run")
    while not (children := psutil.Process(process.pid).children()):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1 + number * 0.3)
    process.terminate()
    assert not psutil.wait_procs(children, timeout=15)[1]
    _, errors = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in errors


def test_a_training_does_not_begin_without_its_launcher():
    code = "import os\nwhile os.getppid() == {}: pass\nimport common.start\nprint('begun')"
    command = f"""
import os, subprocess, sys
own = dict(ACCELERATE_DYNAMO_BACKEND="no", PYTHONPATH=".")
subprocess.Popen([sys.executable, "-c", {code!r}.format(os.getpid())], env=own)
os._exit(0)
"""
    output, errors = start("-c", command).communicate(timeout=PATIENCE)
    assert (output, errors) == ("", "The launcher has ended, so this script does not begin.\n")


def test_every_script_takes_ctrl_c_from_its_first_line_on():
    """Before it imports anything that is slow, which only Python's own modules are not."""
    for file in ENTRIES:
        imports = [line.split()[1] for line in file.read_text().splitlines() if IMPORT.match(line)]
        others = [name for name in imports if name.split(".")[0] not in sys.stdlib_module_names]
        assert others[0] == "common.start", file


@pytest.mark.parametrize("name", ["torch", "datasets", "common.training.run"])
def test_ctrl_c_in_an_import_is_a_line(name):
    """Wherever in it: an import that swallows the exception cannot go on."""
    code = f"""
import common.start, os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "numpy.dtypes" or name == {name!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except BaseException:
                pass
sys.meta_path.insert(0, Finder())
import {name}
"""
    process = start("-c", code)
    assert process.communicate(timeout=PATIENCE) == ("", "\nSIGINT: stopped.\n")
    assert process.returncode == -signal.SIGINT  # 130 for a shell


@pytest.mark.parametrize("command", [("program.py",), ("-m", "program")])
def test_ctrl_c_in_a_script_cleans_up(command, tmp_path):
    (tmp_path / "program.py").write_text("""
import common.start, os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
finally:
    print("cleaned up", flush=True)
""")
    words = (tmp_path / command[0],) if len(command) == 1 else command
    process = start(*words, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    assert process.communicate(timeout=PATIENCE) == ("cleaned up\n", "\nSIGINT: stopped.\n")
    assert process.returncode == -signal.SIGINT


def test_a_program_that_imports_a_script_keeps_its_own_ways(tmp_path):
    (tmp_path / "script.py").write_text("import common.start")
    code = """
import script
import ctypes, signal, sys
number = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(number))  # PR_GET_PDEATHSIG
assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
print(number.value, sys.excepthook == sys.__excepthook__)
"""
    variables = {"ACCELERATE_DYNAMO_BACKEND": "no"}  # as below `accelerate launch`
    process = start("-c", code, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}", **variables)
    assert process.communicate(timeout=PATIENCE) == ("0 True\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_push(number, hub, tmp_path, monkeypatch):
    (tmp_path / "model.txt").write_text("weights")
    name = f"stopped-{number}"  # of its own, since nothing is pushed twice
    code = f"""
import common.start
from common.hub_api import push_folder
push_folder({str(tmp_path)!r}, "user/{name}", "model", False, again="python -m common.hub")
"""
    entered, may_go = threading.Event(), threading.Event()
    commit = Handler.commit

    def wait(handler, *args):
        entered.set()
        may_go.wait(PATIENCE)
        return commit(handler, *args)

    monkeypatch.setattr(Handler, "commit", wait)
    process = start("-c", code, HF_TOKEN="hf_test")
    assert entered.wait(PATIENCE)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == -number
    text = f"{number.name}: the push to user/{name} is not done. Repeat it by\n    python -m common"
    assert text in errors
    assert "Traceback" not in errors
    may_go.set()
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    push_folder(tmp_path, f"user/{name}", "model", False, again="")
    assert (hub.folder / "models/user" / name / "model.txt").read_text() == "weights"


def test_a_signal_during_the_last_step_is_no_push(hub, tmp_path, monkeypatch):
    save = Checkpoints.save

    def save_and_send(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return save(*args, **options)

    monkeypatch.setattr(Checkpoints, "save", save_and_send)
    options = ("--max_train_images", 4, "--push_to_hub")
    message = train_from_hub(tmp_path / "tiny", *options, runner=refusal, HF_TOKEN="hf_test")
    command = f"python -m common.hub {tmp_path / 'tiny'} tiny"
    assert f"SIGTERM: the model is not pushed. Push it by\n    {command}" in message
    assert not (hub.folder / "models/user/tiny").exists()
    assert run_here("common.hub", f"{tmp_path / 'tiny'}", "tiny", HF_TOKEN="hf_test").stdout
