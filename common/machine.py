"""The machine: its processor, memory and versions, the facts that stand beside every figure."""

import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import torch

# Imported while a process group exists, it would take that into the defaults of its functions and
# keep it alive: threads of gloo would then want Python when that has ended, and abort the process.
import torch.distributed.nn
from PIL import features

from common.errors import UserError
from common.launcher import ON_CPUS, is_launched, is_one_of_several
from common.workers import count_cores

PUBLIC = r"github\.com|gitlab\.com|bitbucket\.org|codeberg\.org|huggingface\.co"
ROOT = Path(__file__).resolve().parent.parent  # of the repository


def set_up_cpu(threads: int | None = None) -> None:
    """Sets the number of threads in which PyTorch computes, and rounds tiny numbers to 0.

    OMP_NUM_THREADS counts where the user has set it: under a launcher not if it is 1, to which
    `accelerate launch` and torchrun set it by themselves. Numbers below 1e-38 become 0: the weight
    decay of VDSR leaves many of them, and a CPU takes seven times as long with them. Call it before
    anything is computed, since threads that already compute do not learn of it.

    Args:
        threads: Number of threads. Default: OMP_NUM_THREADS, or the share of this process in the
            cores.
    """
    torch.set_flush_denormal(True)
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if threads is None and wish.isdecimal() and not (is_launched() and int(wish) == 1):
        threads = int(wish)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    torch.set_num_threads(threads or max(1, count_cores() // processes))


def check_processes_meet(processes: int) -> None:
    """Checks that processes of one launcher know of each other, so that they share the work.

    Args:
        processes: Number of those that this one knows of, itself included.

    Raises:
        UserError: Each is alone, and would do all the work.
    """
    if processes == 1 and is_one_of_several():
        raise UserError(
            "The launcher has started several processes, and PyTorch sees no GPU by which they "
            "could work together. Check the driver by `nvidia-smi`, and that PyTorch was built for "
            "it (torch.cuda.is_available()); or use the CPU by plain `python`, or by several "
            f"processes with `{ON_CPUS}`."
        )


def check_compiler(device: torch.device) -> None:
    """Checks that there is the compiler by which `torch.compile` makes a program for the device.

    Raises:
        UserError: There is none.
    """
    variable, language = "CXX", "C++"
    names = [{"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")]
    if device.type == "cuda":
        variable, language, names = "CC", "C", ["gcc", "clang"]
    wish = os.environ.get(variable, "")
    if not any(map(shutil.which, shlex.split(wish)[:1] or names)):
        missing = f"{variable}={wish} is none" if wish else f"there is no {names[0]} in PATH"
        raise UserError(
            f"--compile needs a {language} compiler, and {missing}. Install one, name one by "
            f"{variable}, or leave --compile out."
        )


def versions(*more: str) -> dict[str, str | None]:
    """Versions of Python, of the packages that decide about numbers, and of this repository.

    The commit ends in `-dirty` where the code is not that of the commit.

    Args:
        *more: Other packages that were used.
    """
    packages = ("torch", "accelerate", "datasets", "numpy", "scipy", "pillow", "safetensors")
    commit = _git("rev-parse", "HEAD").strip()
    if commit and uncommitted_changes():
        commit += "-dirty"
    return {
        "commit": commit or None,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in (*packages, *more)},
        "libjpeg": features.version("libjpeg_turbo") or features.version("jpg"),
    }


def uncommitted_changes() -> str:
    """Changes of this repository's code since its commit, new files included, as a patch."""
    diff = ("diff", "--no-color", "--no-ext-diff")
    changes = _git(*diff, "HEAD", "--", "*.py")
    for name in _new_files():
        changes += _git(*diff, "--no-index", "--", os.devnull, name)
    return changes


def repository_address() -> str:
    """Web address of this repository by its git remote `origin`; "" if there is none, or elsewhere.

    A remote that is not of a public host may be nobody's business, and one may hold a password.
    """
    remote = _git("remote", "get-url", "origin").strip()
    match = re.search(rf"(?:^|[/@])({PUBLIC})[:/](.+?)(?:\.git)?/?$", remote)
    return f"https://{match[1]}/{match[2]}" if match else ""


def hardware(device: torch.device, processes: int = 1) -> dict[str, str | int]:
    """The processor, the cores that this process may use, and what computes in each process."""
    cpu = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        lines = [line for line in facts.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].partition(":")[2].strip() if lines else cpu
    found: dict[str, str | int] = {"cpu": cpu, "cores": count_cores(), "processes": processes}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    else:
        found["threads"] = torch.get_num_threads()
    return found


def peak_memory(device: torch.device) -> float:
    """Most memory that this process has had at once, in GB: of the GPU, or of a CPU's process.

    On a CPU the pages of memory-mapped pictures count as well. 0 where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024) / 1e9


def _new_files() -> list[str]:
    """Python files of the repository that git does not track yet and does not ignore."""
    return _git("ls-files", "--others", "--exclude-standard", "--", "*.py").splitlines()


def _git(*words: str) -> str:
    try:
        process = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace"
        )
    except OSError:  # there is no git
        return ""
    # (`git diff --no-index` exits with 1 where there are differences.)
    return process.stdout if process.returncode <= 1 else ""
