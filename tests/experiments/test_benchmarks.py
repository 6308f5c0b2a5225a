"""The benchmarks measure the same mathematics everywhere, and keep what they measure."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from experiments import results
from experiments.benchmarks import child, rounds
from experiments.benchmarks.__main__ import main
from experiments.benchmarks.copies import clone, storages
from experiments.benchmarks.plan import FIGURES, PEERS, Case, Work, layers, length, speed
from experiments.benchmarks.rounds import Effort, difference, run, too_large
from experiments.benchmarks.tables import best_of, markdown, peak_of, time_of
from experiments.errors import UserError
from meta_models.adapters import Adapter
from meta_models.backbone import random_backbone
from tests.metalearn.table import needs_learn2learn

ROOT = Path(__file__).parents[2]
needs_torchopt = pytest.mark.skipif(not find_spec("torchopt"), reason="torchopt is not installed")
MARKS = {"learn2learn": [needs_learn2learn], "TorchOpt": [needs_torchopt]}
peers = pytest.mark.parametrize("peer", [pytest.param(p, marks=MARKS.get(p, ())) for p in PEERS])
SMALL = {"warmup": 0, "steps": 1, "threads": 1}


@pytest.fixture
def here(monkeypatch):
    """Measurements made in this process: quick, and nothing to time."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(rounds, "ask", lambda request, _: child.answer(request))
    monkeypatch.setattr(
        "experiments.benchmarks.__main__.ask", lambda request, _: {"accelerator": 0}
    )
    yield
    torch.set_num_threads(threads)


@peers
@pytest.mark.parametrize("group", ["all layers", "second order", "first order", "head only"])
def test_peers_have_the_meta_gradient_of_metalearn(peer, group, tmp_path) -> None:
    cases = speed("cpu", True) if group == "all layers" else layers("cpu", True)
    group = "float32" if group == "all layers" else group
    (ours, *_), (theirs, *_) = (
        [case for case in cases if case.group == group and case.method == method]
        for method in ("metalearn", peer)
    )
    found = [
        child.measure(case, SMALL | {"gradient": str(tmp_path / f"{case.method}.npz")})
        for case in (ours, theirs)
    ]
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], rel=1e-5)
    apart = difference(*(str(tmp_path / f"{name}.npz") for name in (peer, "metalearn")))
    assert apart is not None and apart < 1e-4


@peers
def test_peers_run_on_a_bfloat16_backbone(peer, tmp_path) -> None:
    case = next(c for c in speed("cpu", True) if c.group == "bfloat16" and c.method == peer)
    paths = [str(tmp_path / name) for name in ("half.npz", "full.npz")]
    child.measure(case, SMALL | {"gradient": paths[0]})
    full = replace(case, work=replace(case.work, dtype="float32"))
    child.measure(full, SMALL | {"gradient": paths[1]})
    apart = difference(*paths)
    assert apart is not None and 1e-4 < apart < 0.2


@needs_learn2learn
@needs_torchopt
def test_a_random_decoder_of_any_size(here, tmp_path) -> None:
    cases = [c for c in FIGURES["accelerator"]("cpu", True) if c.group.startswith("a billion")]
    cases = [replace(c, work=replace(c.work, dtype="float32"), count=False) for c in cases]
    record = run("accelerator", cases, Effort(1, 1, 1), tmp_path / "x.json", smoke=True)
    assert all(row["rounds"][0]["difference"] < 1e-4 for row in record["rows"])


def test_bytes_of_a_clone_are_those_of_new_storage() -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 512}
    model = Adapter(random_backbone(sizes, device="meta"), "lora", {"r": 2}).model
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    own = storages([*model.parameters(), *model.buffers()])

    def added(of: str) -> int:
        new = storages(held := clone(of, model))
        assert held
        return sum(size for key, size in new.items() if key not in own)

    lora = 4 * 2 * (2 * 8 + 2 * 8)  # A and B of query and value, float32
    assert added("metalearn") == lora
    assert added("torch.func") == 0
    frozen = sum(p.numel() * 4 for p in model.parameters() if not p.requires_grad)
    if find_spec("torchopt"):
        assert added("TorchOpt") >= frozen + lora
    if find_spec("learn2learn"):
        assert added("learn2learn") == frozen + lora


@needs_learn2learn
@needs_torchopt
@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_from_the_command_to_its_table(figure, here, tmp_path, capsys) -> None:
    words = [figure, "--smoke", "--output", str(tmp_path), "--threads", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    record = json.loads((tmp_path / f"{figure}.json").read_text())
    assert markdown(record) in said and "mean nothing" in said
    assert len(record["rows"]) == len(FIGURES[figure]("cpu", True))
    for row in record["rows"]:
        assert len(row["rounds"]) == 1, row
        if figure != "copies" and row["case"]["work"]["dtype"] == "float32":
            assert row["rounds"][0]["difference"] < 1e-4
    if figure == "length":
        assert (tmp_path / "length.png").stat().st_size > 10_000
    with pytest.raises(UserError, match="smoke"):
        results.benchmark(record)


def test_a_process_imports_only_its_method() -> None:
    """Its memory is measured whole."""
    case = speed("cpu", True)[0]
    code = """
import json, sys
from experiments.benchmarks import child
found = child.answer(json.load(sys.stdin))
heavy = {"higher", "learn2learn", "torchopt", "datasets", "wandb", "pyarrow", "matplotlib"}
print(json.dumps([found, sorted(heavy & set(sys.modules))]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        input=json.dumps(SMALL | {"case": case.written()}),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found, heavy = json.loads(done.stdout.splitlines()[-1])
    assert heavy == []
    assert 0 < found["resident"] <= found["peak"]


def test_the_process_that_starts_the_others_is_small() -> None:
    code = "import sys, experiments.benchmarks.__main__; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "False"


@pytest.fixture
def asked(monkeypatch):
    """Every request that was made; the answers are made up."""
    requests = []

    def ask(request, threads):
        if "case" not in request:
            return {"git": {"revision": "a" * 40}, "packages": {}, "device": "cpu", "threads": 1}
        requests.append(request["case"]["name"])
        seconds = 1.0 if request["case"]["method"] == "metalearn" else 2.0
        return {"first": 3.0, "seconds": [seconds], "resident": 10**8, "peak": 10**9, "loss": 1.0}

    monkeypatch.setattr(rounds, "ask", ask)
    return requests


def test_rounds_go_through_all_rows_and_resume(asked, tmp_path) -> None:
    cases, path = speed("cpu", True)[:3], tmp_path / "speed.json"
    names = [case.name for case in cases]
    run("speed", cases, Effort(2), path, smoke=True)
    assert asked == names * 2
    with pytest.raises(UserError, match="--resume"):
        run("speed", cases, Effort(2), path, smoke=True)
    record = run("speed", cases, Effort(3), path, smoke=True, resume=True)
    assert asked == names * 3
    assert [done["round"] for done in record["rows"][0]["rounds"]] == [0, 1, 2]
    with pytest.raises(UserError, match="another"):
        run("speed", cases, Effort(3), path, smoke=False, resume=True)


def test_ratios_are_taken_within_a_round_to_the_best_reference(asked, tmp_path) -> None:
    cases = [case for case in speed("cpu", True) if "adjoint" not in case.name][:4]
    record = run("speed", cases, Effort(2), tmp_path / "x.json", smoke=True)
    for row, pair in zip(record["rows"], [(1, 4), (4, 2), (2, 8), (8, 8)], strict=True):
        for done, seconds in zip(row["rounds"], pair, strict=True):
            done["seconds"] = [float(seconds)]
    rows = record["rows"]
    assert best_of(rows, time_of) is rows[1]
    assert best_of(rows, peak_of) is rows[1]
    table = markdown(record)
    assert "| metalearn, unrolled | 2.5 | 1 to 4 | 1.12 [0.25, 2.00] |" in table


def test_a_row_that_would_not_fit_is_left_out() -> None:
    cases = [c for c in length("cpu", False) if c.name == "higher" and c.axis == "steps"]
    rows = [{"case": case.written(), "rounds": []} for case in cases]
    record = {"rows": rows}
    rows[0]["rounds"] = [{"resident": 1e9, "peak": 3e9}]
    rows[1]["rounds"] = [{"resident": 1e9, "peak": 6e9}]  # a gigabyte a step
    assert not too_large(cases[1], record, 7 * 10**9)
    assert not too_large(cases[2], record, 12 * 10**9)
    assert "12 GB" in too_large(cases[3], record, 12 * 10**9)
    rows[3]["left_out"] = "too large"
    assert too_large(cases[4], record, 12 * 10**9) == "too large"


def test_a_row_that_fails_says_why_and_the_others_go_on(tmp_path, monkeypatch) -> None:
    case = Case("g", "n", "higher", Work(backbone="nothing-such"))
    record = run("speed", [case], Effort(2), tmp_path / "x.json", smoke=True)
    assert "nothing-such" in record["rows"][0]["error"]
    assert "nothing-such" in markdown(record)


@pytest.mark.parametrize("words", [["speed", "--device", "cuda", "--smoke"]])
def test_mistakes_end_in_one_line(words, here, capsys) -> None:
    assert main(words) == 2
    assert "no accelerator" in capsys.readouterr().err


def test_without_an_accelerator_its_rows_are_named(here, capsys, tmp_path) -> None:
    assert main(["accelerator", "--output", str(tmp_path)]) == 0
    assert "not measured" in capsys.readouterr().out
