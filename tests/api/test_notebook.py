"""examples/notebook.ipynb runs from top to bottom, and was committed without outputs."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in cells for output in cell.outputs if "data" in output]
    assert sum("text/html" in output.data for output in shown) == 6
    assert sum("image/png" in output.data for output in shown) == 1
    assert (tmp_path / "fpo-notebook" / "compare" / "compare.md").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"fpo-notebook"}
