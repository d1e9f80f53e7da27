"""The machine: what computes here, by which versions."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

from common.data import count_cores
from common.hub import ROOT


def set_up_cpu(threads: int | None = None) -> None:
    """Lets PyTorch compute with so many threads, by default with this process's share of the cores.

    `accelerate launch` allows a process on the CPU one thread, unless OMP_NUM_THREADS is set.
    Numbers below 1e-38 become 0: weight decay leaves many of them in VDSR, and a CPU takes seven
    times as long with them. To be called before anything is computed, since threads that already
    compute would not learn of it.
    """
    torch.set_flush_denormal(True)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    torch.set_num_threads(threads or max(1, count_cores() // processes))


def versions() -> dict[str, str | None]:
    """Of Python, the packages that decide about numbers, and this repository."""
    packages = ("torch", "accelerate", "datasets", "numpy", "pillow", "safetensors")
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:  # there is no git
        commit = ""
    return {
        "commit": commit or None,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def hardware(device: torch.device, processes: int = 1) -> dict[str, str | int]:
    """The processor, the cores that this process may use, and what computes in each process."""
    cpu = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        lines = [line for line in facts.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].partition(":")[2].strip() if lines else cpu
    found: dict[str, str | int] = {"cpu": cpu, "cores": count_cores()}
    found["processes"] = processes
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    else:
        found["threads"] = torch.get_num_threads()
    return found
