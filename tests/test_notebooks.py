"""The notebooks run from top to bottom in a kernel of their own, on a tiny random backbone."""

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
SHOWN = {
    "first_steps": ("step 5: ", 1),
    "own_data_and_backbone": ("5 tasks (3 train, 1 valid, 1 test), 10 classes, 70 examples", 1),
    "own_algorithm": ("difference ", 1),
    "read_a_sweep": ("trial-", 2),
}
"""What each notebook says, and how many figures it shows."""


def executed(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('"minilm"  #', '"tiny-bert"  #')
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources)
    # The packages are those of this checkout, wherever an editable install points to.
    return client.execute(env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def test_every_notebook_is_known():
    assert set(NOTEBOOKS) == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_notebook_runs(name):
    outputs = [
        output
        for cell in executed(NOTEBOOKS[name]).cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    text, figures = SHOWN[name]
    said = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]
    assert text in " ".join(" ".join(said).split())
    shown = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(shown) == figures
    for output in shown:  # not an empty canvas
        assert len(output.data["image/png"]) > 10_000


def test_notebooks_carry_no_output():
    for path in NOTEBOOKS.values():
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert not cell.get("outputs"), f"{path.name}, {cell['id']}: clear its output"
            assert not cell.get("execution_count"), f"{path.name}, {cell['id']}: clear its count"
