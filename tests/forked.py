"""Processes that begin with everything imported: a start takes a tenth of a second, not four.

A server of processes imports the scripts once. It never computes, so what it forks is as good as a
program that has just begun.
"""

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ports import reserve_port

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 300  # seconds that a test waits for a process; only a test that fails takes them all
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["accelerate", "datasets", *(path.stem for path in ROOT.glob("train_*.py")), "evaluate"]
)


def _work(script: str, options: list[str], variables: dict[str, str], folder: str) -> None:
    """What a forked process does: `python script options` with its output in two files."""
    os.environ.update(variables)
    for descriptor in (1, 2):
        os.dup2(os.open(f"{folder}/{descriptor}", os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(ROOT)
    sys.argv = [script, *options]
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    importlib.import_module(Path(script).stem).main()


def run_forked(
    script: str, *options, processes: int = 1, check: bool = True, **variables: str
) -> subprocess.CompletedProcess:
    """Runs a script on one or several processes, which find each other as under torchrun.

    Returns:
        The largest exit status, and what all processes printed.
    """
    os.environ["PYTHONPATH"] = str(ROOT)  # for the server, when it is first needed
    world = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    if processes > 1:
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{reserve_port()}"}
        world |= {"WORLD_SIZE": f"{processes}", "LOCAL_WORLD_SIZE": f"{processes}"}
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, f"{rank}") for rank in range(processes)]
        started = []
        for rank, folder in enumerate(folders):
            folder.mkdir()
            own = world | variables
            if processes > 1:
                own |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}
            arguments = (script, list(map(str, options)), own, f"{folder}")
            process = _context.Process(target=_work, args=arguments)
            process.start()
            started.append(process)
        for process in started:
            process.join(PATIENCE)
            process.kill()
            process.join()
        output, errors = (
            "".join((folder / f"{descriptor}").read_text() for folder in folders)
            for descriptor in (1, 2)
        )
    status = max(process.exitcode or 0 for process in started)
    if check:
        assert status == 0, errors
    return subprocess.CompletedProcess([script, *options], status, output, errors)
