"""The walls between the rooms of `common/`, found by the imports."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from running import ROOT, run

FILES = [path for folder in ("", "common", "results") for path in (ROOT / folder).glob("*.py")]
FILES += (ROOT / "common").glob("*/*.py")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """Modules of this repository that a file imports, at its top or in a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & NAMES.keys()


def test_no_two_files_import_each_other_in_a_circle():
    graph = {name: imports(path) - {"common"} for name, path in NAMES.items()}
    assert sum(map(len, graph.values())) > 100
    TopologicalSorter(graph).prepare()  # raises a CycleError that names them


def test_the_books_of_a_run_are_for_training_scripts_alone():
    importers = {name for name, path in NAMES.items() for x in imports(path) if "training" in x}
    strangers = {name for name in importers if not name.startswith("common.training")}
    assert strangers == {path.stem for path in ROOT.glob("train_*.py")}


def test_rooms_know_only_the_rooms_below():
    forbidden = {
        "common.images": ("common.data", "common.network", "common.options", "common.workers"),
        "common.data": ("common.network", "common.hub", "common.evaluation", "common.inference"),
        "common.card": ("common.network", "common.hub", "common.data"),
        "common.metrics": ("common.network", "common.hub", "common.data"),
        "common.network": ("common.data", "common.hub", "common.evaluation"),
    }
    for name, path in NAMES.items():
        for room, others in forbidden.items():
            if name == room or name.startswith(f"{room}."):
                assert not [x for x in imports(path) if x in others], name


def test_files_are_short():
    for name, path in NAMES.items():
        most = 350 if name.startswith("common") else 400
        assert len(path.read_text().splitlines()) <= most, name


def test_loading_a_model_loads_neither_data_sets_nor_accelerate(tmp_path):
    code = f"""
import sys
from common.hub import load_model
from train_srcnn import SRCNN
SRCNN(2).save_pretrained({str(tmp_path)!r})
load_model({str(tmp_path)!r})
print(sorted({{"accelerate", "datasets", "pandas"}} & sys.modules.keys()))
"""
    assert run("-c", code).stdout == "[]\n"


def test_a_process_group_ends_with_its_threads():
    """Those of gloo abort a process that ends while they still want Python."""
    code = """
import common.machine, os, torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
import torch.distributed.nn
dist.destroy_process_group()
print([open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")])
"""
    assert "gloo" not in run("-c", code).stdout
