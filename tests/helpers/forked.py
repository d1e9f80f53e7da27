"""Processes that begin with everything imported: a start takes a tenth of a second, not four.

A server of processes imports the scripts once. It never computes, so what it forks is as good as a
program that has just begun.
"""

import importlib
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from helpers.ports import reserve_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300  # seconds that a test waits for a process; only a test that fails takes them all
_context = multiprocessing.get_context("forkserver")
# Also what a training imports late, a thousand files in all.
_context.set_forkserver_preload(
    [
        *("torch._dynamo", "torch.distributed.fsdp", "torch.utils.tensorboard"),
        *("accelerate", "datasets", "evaluate"),
        *(path.stem for path in ROOT.glob("train_*.py")),
    ]
)


def _work(
    script: str, options: list[str], variables: dict[str, str], pipes: list[Connection]
) -> None:
    """What a forked process does: `python script options`, whose output goes into two pipes."""
    os.environ.update(variables)
    for descriptor, pipe in zip((1, 2), pipes, strict=True):
        os.dup2(pipe.fileno(), descriptor)
        pipe.close()
    os.chdir(ROOT)
    sys.argv = [script, *options]
    sys.path[:0] = [str(ROOT), str(Path(script).resolve().parent)]
    importlib.import_module(Path(script).stem).main()


def _read(pipe: Connection) -> str:
    """All that comes through a pipe, until no process can write to it any more."""
    with open(pipe.fileno(), closefd=False) as file:
        return file.read()


def run_forked(
    script: str,
    *options,
    processes: int = 1,
    machines: int = 1,
    check: bool = True,
    **variables: str,
) -> subprocess.CompletedProcess:
    """Runs a script on one or several processes, which find each other as under torchrun.

    Args:
        script: Path of the script, from the root of the repository.
        *options: Options of the script.
        processes: Number of processes.
        machines: Number of machines that the processes believe to be on, equally many on each.
        check: Whether the script must succeed.
        **variables: Environment variables.

    Returns:
        The largest exit status, and what all processes printed.
    """
    os.environ["PYTHONPATH"] = str(ROOT)  # for the server, when it is first needed
    world, local = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}, processes // machines
    if processes > 1:
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{reserve_port()}"}
        world |= {"WORLD_SIZE": f"{processes}", "LOCAL_WORLD_SIZE": f"{local}"}
    started, ends = [], []
    for rank in range(processes):
        own = world | variables
        if processes > 1:
            own |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank % local}"}
        readers, writers = zip(*(_context.Pipe(duplex=False) for _ in range(2)), strict=True)
        arguments = (str(script), list(map(str, options)), own, list(writers))
        process = _context.Process(target=_work, args=arguments)
        process.start()
        for writer in writers:
            writer.close()  # so that the pipe ends with the process
        started.append(process)
        ends += readers
    with ThreadPoolExecutor(len(ends)) as pool:
        texts = [pool.submit(_read, pipe) for pipe in ends]
        for process in started:
            process.join(PATIENCE)
            process.kill()
            process.join()
    for pipe in ends:
        pipe.close()
    output, errors = ("".join(text.result() for text in texts[first::2]) for first in range(2))
    status = max(process.exitcode or 0 for process in started)
    if check:
        assert status == 0, errors
    return subprocess.CompletedProcess([script, *options], status, output, errors)
