"""The shape of the code, checked from its own text: who imports whom, and how long files are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tasks", "meta_models", "metalearn", "experiments")
"""Each may import those before it, never one after it."""
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports(source: str, package: str = "") -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that `source`, a module of `package`, imports."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = package.split(".")[: -(level - 1) or None] if level else []
                base = ".".join([*parts, *([module] if module else [])])
                yield from ((node.lineno, f"{base}.{name.name}") for name in names)
            case ast.Call(
                func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return imports(path.read_text(encoding="utf-8"), package)


def forbidden(package: str, name: str) -> bool:
    """Whether importing `name` in `package` goes against the direction."""
    return name.split(".")[0] in PACKAGES[PACKAGES.index(package) + 1 :]


def is_model_class(name: str) -> bool:
    """Whether an imported name gives access to a model class of transformers."""
    package, _, rest = name.partition(".")
    last = rest.rpartition(".")[2]
    return package == "transformers" and (not rest or "Model" in last or "For" in last)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b, c", ["a.b", "c"]),
        ("from a.b import c, d", ["a.b.c", "a.b.d"]),
        ("def f():\n    import a", ["a"]),
        ("from . import x", ["p.q.x"]),
        ("from .x import y", ["p.q.x.y"]),
        ("from ..x import y", ["p.x.y"]),
        ("importlib.import_module('a.b')", ["a.b"]),
    ],
)
def test_every_form_of_import_is_seen(source: str, names: list[str]) -> None:
    assert [name for _, name in imports(source, "p.q")] == names


def test_the_rules_tell_right_from_wrong() -> None:
    assert forbidden("tasks", "meta_models.params")
    assert forbidden("metalearn", "experiments")
    assert not forbidden("experiments", "tasks.episode")
    assert not forbidden("tasks", "tasks.episode")
    assert not forbidden("tasks", "metalearning")
    assert is_model_class("transformers")
    assert is_model_class("transformers.AutoModelForCausalLM")
    assert is_model_class("transformers.models.t5.T5ForConditionalGeneration")
    assert not is_model_class("transformers.AutoTokenizer")


def test_each_package_has_code() -> None:
    for package in PACKAGES:
        assert any(path.is_relative_to(ROOT / package) for path in FILES), package


def test_imports_go_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        for line, name in imports_of(path)
        if forbidden(path.relative_to(ROOT).parts[0], name)
    ]
    assert not wrong, "\n".join([f"the direction is {' <- '.join(PACKAGES)}", *wrong])


def test_only_the_backbone_loads_transformers_models() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in FILES
        for _, name in imports_of(path)
        if is_model_class(name)
    }
    assert found == {"meta_models/backbone.py"}


def test_only_the_adapters_talk_to_peft() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in FILES
        for _, name in imports_of(path)
        if name.split(".")[0] == "peft"
    }
    assert found == {"meta_models/adapters.py"}


def test_files_are_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in FILES
    }
    assert {path: length for path, length in lengths.items() if length >= 400} == {}


def test_help_and_catalog_load_no_heavy_package() -> None:
    """`metalearn --help` answers in under a second; torch alone takes longer to import."""
    code = """
import contextlib, sys
import experiments.catalog, experiments.config
from experiments.cli import main
with contextlib.suppress(SystemExit):
    main(["--help"])
heavy = {"torch", "transformers", "peft", "datasets", "wandb", "sklearn", "scipy", "matplotlib"}
print("heavy:", *sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "heavy:", done.stdout
