"""The pages of docs/ are what the code makes, and no learner is missing from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import pages
from experiments.catalog import LEARNERS
from experiments.errors import UserError
from experiments.pages import DOCS, adapters, algorithms, glances
from meta_models.methods import METHODS

ENTRY = "learns all; order 1; trains in 4; adapts in 1; holds no graph; use it when asked"


@pytest.mark.parametrize("make", [adapters, algorithms])
def test_the_pages_are_generated(make) -> None:
    committed = (DOCS / f"{make.__name__}.md").read_text(encoding="utf-8")

    assert make() == committed, "run: python -m experiments.pages"


def test_every_learner_and_method_has_a_line() -> None:
    for page, names in (("algorithms.md", LEARNERS), ("adapters.md", METHODS)):
        lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
        first = [line.split("|")[1].strip(" `[").split("]")[0] for line in lines if "|" in line]
        assert first[2:] == list(names)


def test_links_lead_to_files() -> None:
    for path in DOCS.glob("*.md"):
        for link in path.read_text(encoding="utf-8").split("](")[1:]:
            assert (DOCS / link.split(")")[0]).is_file(), link


def write(root: Path, **entries: str) -> Path:
    for folder in pages.FOLDERS:
        (root / folder).mkdir(parents=True)
    for name, text in entries.items():
        source = f'"""What it is.\n\nAt a glance:\n    {text}\n\nDeviations: none.\n"""\n'
        (root / pages.FOLDERS[0] / f"{name}.py").write_text(source, encoding="utf-8")
    return root


def test_entries_become_rows(tmp_path: Path) -> None:
    text = f"first: {ENTRY}\n        and long.\n    two++: {ENTRY}."
    page = algorithms(write(tmp_path, one=text), ["two++", "first"])

    rows = [line for line in page.splitlines() if line.startswith("| [")]
    place = "../metalearn/algorithms/one.py"
    assert rows == [
        f"| [two++]({place}) | all | 1 | 4 | 1 | no graph | asked |",
        f"| [first]({place}) | all | 1 | 4 | 1 | no graph | asked and long |",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["first", "other"], "learner other is not in At a glance of any docstring"),
        ([], "learner first is not in the catalog"),
    ],
)
def test_catalog_and_docstrings_agree(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        algorithms(write(tmp_path, one=f"first: {ENTRY}."), names)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (ENTRY.replace("order 1; ", ""), "order"),
        (ENTRY.replace("; use it when asked", ""), "use it when"),
        ("it is good.", "learns"),
    ],
)
def test_a_missing_clause_is_named(text: str, missing: str) -> None:
    with pytest.raises(UserError, match=rf"x\.py: the entry one .* has no '{missing} \.\.\.'"):
        glances(f'"""X.\n\nAt a glance:\n    one: {text}\n"""', "x.py")


def test_a_module_without_entries_has_none() -> None:
    assert glances('"""X."""', "x.py") == glances("", "x.py") == {}


def test_the_command_writes_the_pages(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(pages, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(pages, "adapters", lambda: "# Adapters\n")

    assert pages.main() == 0

    written = {path.name for path in (tmp_path / "docs").iterdir()}
    assert written == {"adapters.md", "algorithms.md"}
    assert capsys.readouterr().out.split() == ["docs/adapters.md", "docs/algorithms.md"]


def test_the_command_ends_in_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(pages, "adapters", lambda: "")
    monkeypatch.setattr(pages, "algorithms", lambda: glances('"""At a glance:\n    a: b\n"""', "f"))

    assert pages.main() == 2

    assert capsys.readouterr().err == "pages: f: the entry a of At a glance has no 'learns ...'\n"
