"""Ctrl-C and the launcher's end, at moments at which a training has not begun yet or has ended."""

import signal
import time

import psutil
import pytest

from helpers.forked import PATIENCE, ROOT
from running import RECIPE, SCRIPT, SMALL, start

LAUNCHER = ("-m", "accelerate.commands.launch", "--cpu")
ENTRIES = sorted(path.name for path in ROOT.glob("*.py"))


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
    for name in ENTRIES:
        imports = [line for line in (ROOT / name).read_text().splitlines() if "import" in line]
        assert "import common.start" in imports[:3], name


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


def test_ctrl_c_in_a_script_cleans_up():
    code = """
import common.start, os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
finally:
    print("cleaned up", flush=True)
"""
    process = start("-c", code)
    assert process.communicate(timeout=PATIENCE) == ("cleaned up\n", "\nSIGINT: stopped.\n")
    assert process.returncode == -signal.SIGINT
