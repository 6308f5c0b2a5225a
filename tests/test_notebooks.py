"""The notebooks run from top to bottom, here on a tiny random backbone."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, capsys):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    space: dict = {"__name__": "notebook"}
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"]).replace('"minilm"  #', '"tiny-bert"  #')
            exec(compile(source, f"{path.name}:{cell['id']}", "exec"), space)
    assert "step 5:" in capsys.readouterr().out


def test_notebooks_carry_no_output():
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs"), f"{path.name}, {cell['id']}: clear its output"
