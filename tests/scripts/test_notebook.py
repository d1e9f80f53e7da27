"""The notebook of the docs runs from data to a picture."""

import os

import pytest

from running import ROOT


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("STEPS", "4")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for path in ROOT.glob("*.py"):
        (tmp_path / path.name).symlink_to(path)
    for name in ("common", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    book = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=600, resources={"metadata": {"path": os.fspath(tmp_path)}}
    )
    client.execute()  # raises what a cell raises
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    text = "".join(output.get("text", "") for output in outputs)
    assert "over bicubic" in text
    assert (tmp_path / "out" / "notebook" / "report.html").is_file()
