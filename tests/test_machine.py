import importlib.metadata
import subprocess

import pytest
import torch

import common.machine
from common.errors import UserError
from common.machine import check_compiler, set_up_cpu, uncommitted_changes, versions
from running import SCRIPT, refusal, run


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of one script, and git in it."""

    def git(*words: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "train_x.py").write_text("rate = 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    monkeypatch.setattr(common.machine, "ROOT", tmp_path)
    return tmp_path


def test_a_commit_without_changes(repository):
    commit = versions()["commit"]
    assert len(commit) == 40
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    words = ["git", *identity, "tag", "-a", "v1.0", "-m", "x"]
    subprocess.run(words, cwd=repository, check=True)
    assert versions()["commit"] == commit  # a tag is no hash, and may be moved
    (repository / "results.json").write_text("{}")
    subprocess.run(["git", "add", "."], cwd=repository, check=True)
    assert versions()["commit"] == commit  # what the code has written is no code
    assert versions("torchmetrics")["torchmetrics"] == importlib.metadata.version("torchmetrics")
    assert uncommitted_changes() == ""


def test_changed_code_comes_along(repository):
    (repository / "train_x.py").write_text("rate = 2\n")
    assert versions()["commit"].endswith("-dirty")
    assert "-rate = 1\n+rate = 2" in uncommitted_changes()


def test_so_does_a_script_that_git_does_not_know(repository):
    (repository / "train_mine.py").write_text("rate = 3\n")
    assert versions()["commit"].endswith("-dirty")
    assert "+++ b/train_mine.py" in uncommitted_changes()
    assert "+rate = 3" in uncommitted_changes()


def test_without_git(tmp_path, monkeypatch):
    monkeypatch.setattr(common.machine, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert versions()["commit"] is None
    assert uncommitted_changes() == ""


def test_changes_can_be_applied_again(repository):
    script = repository / "train_x.py"
    script.write_text("rate = 1\n\nsteps = 5\n\n\n")
    subprocess.run(["git", "add", "."], cwd=repository, check=True)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *identity, "commit", "-qm", "y"], cwd=repository, check=True)
    script.write_text("rate = 2\n\nsteps = 5\n\n\n")  # the context ends with empty lines
    (repository / "train_mine.py").write_text("rate = 3\n")
    patch = uncommitted_changes()
    script.write_text("rate = 1\n\nsteps = 5\n\n\n")
    (repository / "train_mine.py").unlink()
    subprocess.run(["git", "apply"], cwd=repository, check=True, input=patch, text=True)
    assert script.read_text().startswith("rate = 2\n")
    assert (repository / "train_mine.py").read_text() == "rate = 3\n"


@pytest.mark.parametrize(
    ("threads", "variables", "expected"),
    [
        (3, {"OMP_NUM_THREADS": "1"}, 3),
        (None, {"OMP_NUM_THREADS": "5"}, 5),
        (None, {"OMP_NUM_THREADS": "1"}, 1),
        (3, {"OMP_NUM_THREADS": "5", "TORCHELASTIC_RUN_ID": "x"}, 3),
        (None, {"OMP_NUM_THREADS": "5", "TORCHELASTIC_RUN_ID": "x"}, 5),
        (None, {"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "x"}, 8),
        (None, {"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4"}, 2),
        (None, {}, 8),
    ],
)
def test_threads(threads, variables, expected, monkeypatch):
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = []
    monkeypatch.setattr(common.machine, "count_cores", lambda: 8)
    monkeypatch.setattr(common.machine.torch, "set_num_threads", found.append)
    set_up_cpu(threads)
    assert found == [expected]


def test_all_threads_take_tiny_numbers_for_zero():
    code = (
        "import torch; from common.machine import set_up_cpu; set_up_cpu(2);"
        "print(torch.full((1_000_000,), 1e-39).mul(1).count_nonzero().item())"
    )
    assert run("-c", code).stdout == "0\n"


def test_compiling_needs_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setenv("PATH", str(tmp_path))
    message = r"--compile needs a C\+\+ compiler, and there is no g\+\+ in PATH\. Install one, name"
    with pytest.raises(UserError, match=message):
        check_compiler(cpu)
    with pytest.raises(UserError, match="needs a C compiler, and there is no gcc in PATH"):
        check_compiler(gpu)
    for name in ("g++", "clang", "ccache"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    check_compiler(cpu)
    check_compiler(gpu)
    monkeypatch.setenv("CXX", "ccache g++")
    check_compiler(cpu)
    monkeypatch.setenv("CXX", "nothing")
    with pytest.raises(UserError, match="CXX=nothing is none"):
        check_compiler(cpu)


def test_the_compiler_is_missed_before_the_work(pictures_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "nothing")
    monkeypatch.setattr("sys.platform", "linux")
    base = ("--train_data_dir", pictures_dir, "--output_dir", tmp_path / "run", "--compile")
    assert "CXX=nothing is none" in refusal(SCRIPT, *base)
    assert not (tmp_path / "run").exists()
    assert "CXX=nothing is none" in refusal("upscale.py", "a.png", "--model", "b", "--compile")
