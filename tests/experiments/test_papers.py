"""Reproductions: bands judge, the command says so, and the kept records stand by their bands."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.cli import main
from experiments.config import Experiment
from experiments.errors import UserError
from experiments.papers import registry
from experiments.papers.reproduction import Estimate, Job, Measured, Quantity, Reproduction
from experiments.reproduce import markdown, record
from experiments.results import KEPT, PAPERS, README, REPRODUCTIONS

RECORDS = sorted((KEPT / PAPERS).glob("*.json"))
REAL_DATA = ("mteb-banking77", "aslib", "protaugment")
"""Entries that need the folder of real data."""


def made_up(measured: float) -> Reproduction:
    """A reproduction that measures `measured` against a band from 0.4 to 0.6."""
    return Reproduction(
        number="R0",
        key="made-up",
        title="A title",
        claim="It is one half.",
        protocol="Measured once.",
        source="Nobody 2000",
        quantities=(Quantity("half", 0.5, 0.52, low=0.4, high=0.6), Quantity("other", 2.0)),
        run=lambda job: {"half": Estimate(measured, 0.01), "other": Estimate(3.0)},
        settings={"name": "made-up"},
    )


def filled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which experiments have the defaults of settings that came later."""
    return {
        name: Experiment.model_validate(value) if "learners" in value else value
        for name, value in settings.items()
    }


@pytest.fixture
def entry(monkeypatch):
    """Puts a made-up reproduction in the registry."""

    def put(measured: float, **changes: Any) -> Reproduction:
        entry = replace(made_up(measured), **changes)
        monkeypatch.setitem(registry.FILES, "made-up", "made_up")
        module = SimpleNamespace(REPRODUCTION=entry)
        monkeypatch.setitem(sys.modules, "experiments.papers.made_up", module)
        return entry

    return put


def test_the_list_is_one_line_an_entry_and_loads_no_torch():
    code = (
        "import sys\nfrom experiments.cli import main\nassert main(['reproduce', '--list']) == 0\n"
        "heavy = {'torch', 'transformers', 'wandb', 'matplotlib', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    entries = [registry.load(key) for key in registry.FILES]
    lines = done.stdout.splitlines()
    assert [line.split(maxsplit=2) for line in lines] == [
        [e.number, e.key, e.title] for e in entries
    ]
    assert [entry.key for entry in entries] == list(registry.FILES)
    assert [entry.number for entry in entries] == sorted({entry.number for entry in entries})
    assert all("comparison" in entry.title for entry in entries if entry.comparison)


# Fused attention under vmap falls back to a loop over the tasks of a pass, here one.
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("key", registry.FILES)
def test_a_smoke_test_runs_the_code_and_judges_nothing(key, capsys, tmp_path, request):
    if key in REAL_DATA:
        request.getfixturevalue("data")
    path = tmp_path / "record.json"
    assert main(["reproduce", key, "--smoke", "--seed", "3", "--output", str(path)]) == 0
    said = capsys.readouterr().out
    entry = registry.load(key)
    assert entry.title in said and "numbers mean nothing" in " ".join(said.split())
    assert "inside" not in said.split("─")[-1] and "outside" not in said.split("─")[-1]
    made = json.loads(path.read_text())
    assert made["smoke"] and made["seed"] == 3 and made["verdict"] == ""
    assert [value["name"] for value in made["values"]] == [q.name for q in entry.quantities]
    assert all(math.isfinite(value["measured"]) for value in made["values"])


@pytest.mark.parametrize(
    ("measured", "status", "verdict"),
    [
        (0.4, 0, "inside"),
        (0.6, 0, "inside"),
        (0.39999, 1, "outside"),
        (0.60001, 1, "outside"),
        (math.nan, 1, "outside"),
        (math.inf, 1, "outside"),
    ],
)
def test_the_exit_status_is_the_verdict(entry, capsys, tmp_path, measured, status, verdict):
    entry(measured)
    path = tmp_path / "record.json"
    assert main(["reproduce", "made-up", "--output", str(path)]) == status
    said = capsys.readouterr().out
    for part in ("R0 A title", "It is one half.", "Measured once.", "Nobody 2000", "0.4 to 0.6"):
        assert part in said
    assert f"{1 - status} of 1 values inside their bands; seed 0" in said
    row = next(line for line in said.splitlines() if line.startswith("half"))
    assert row.split()[:3] == ["half", "0.500", "0.520"] and row.split()[-1] == verdict
    made = json.loads(path.read_text())
    assert made["verdict"] == verdict and made["settings"] == {"name": "made-up"}
    assert made["seconds"] >= 0 and made["environment"]["packages"]["torch"]
    assert [value["verdict"] for value in made["values"]] == [verdict, ""]


def test_meta_sgd_is_measured_on_sinusoids_of_varying_frequency():
    from experiments.family import build_family
    from experiments.papers.meta_sgd_sinusoid import MAML, META_SGD
    from tasks.sources.sinusoid import Sinusoid

    for experiment in (MAML, META_SGD):
        family = build_family(experiment.family)
        # A sin(w x - b) with b in [-pi, 0] is A sin(w x + b) with b in [0, pi]
        assert family == Sinusoid(phase=(-math.pi, 0.0), frequency=(0.8, 1.2))


def test_an_open_band_has_one_end():
    assert Quantity("rise", high=0.0).verdict(-5.0) == "inside"
    assert Quantity("rise", high=0.0).verdict(0.1) == "outside"
    assert Quantity("gain", low=0.0).verdict(math.inf) == "inside"
    assert Quantity("gain", low=0.0).band == "at least 0"


def test_every_quantity_is_measured_and_nothing_else():
    with pytest.raises(ValueError, match="made-up promises"):
        record(made_up(0.5), {"half": Estimate(0.5)}, seed=0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("reproduce", "needs the key of a result; see metalearn reproduce --list"),
        ("reproduce mamlsinusoid", "no reproduction mamlsinusoid; did you mean maml-sinusoid?"),
        ("reproduce xyz", "no reproduction xyz; see metalearn reproduce --list"),
        ("reproduce maml-sinusoid --seed one", "--seed"),
        ("reproduce maml-sinusoid --output missing/x.json", "make the folder"),
        ("reproduce maml-sinusoid --output .", "is no file"),
        ("reproduce maml-sinusoid --run-dir x", "keeps no run folder; drop --run-dir"),
        ("reproduce protaugment --run-dir x.json", "x.json is a file; choose another --run-dir"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(words, expected, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("x.json").touch()
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("metalearn: ") and said.count("\n") == 1 and expected in said


OUTSIDE = {"maml-sinusoid": [f"{shots}-shot, largest change in a step" for shots in (5, 10, 20)]}
"""Values known to be outside their bands, by the key of their entry: its note says why."""


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_kept_record_is_of_the_entry_and_inside_its_bands(path):
    made = json.loads(path.read_text(encoding="utf-8"))
    entry = registry.load(path.stem)
    assert (made["number"], made["key"], made["title"]) == (entry.number, entry.key, entry.title)
    assert not made["smoke"] and made["environment"]["git"]["revision"]
    assert filled(made["settings"]) == filled(entry.settings)
    again = {value["name"]: Estimate(value["measured"], value["half"]) for value in made["values"]}
    judged = record(entry, again, seed=made["seed"])
    assert made["values"] == judged["values"] and made["verdict"] == judged["verdict"]
    outside = [value["name"] for value in made["values"] if value["verdict"] == "outside"]
    assert outside == OUTSIDE.get(path.stem, [])
    assert not outside or entry.note


def test_every_entry_has_a_kept_record():
    assert {path.stem for path in RECORDS} == set(registry.FILES)


def test_the_readme_shows_the_kept_records():
    assert f"<!-- results: {REPRODUCTIONS} -->\n{markdown(KEPT / PAPERS)}<!-- end -->" in (
        README.read_text(encoding="utf-8")
    )


def test_the_table_shows_what_is_published_or_judged_and_no_smoke_test(entry, tmp_path):
    reproduction = entry(0.5)
    measured = {"half": Estimate(0.5, 0.01), "other": Estimate(3.0)}
    place = tmp_path / "made-up.json"
    made = record(reproduction, measured, seed=0) | {"cpu_seconds": 90.0}
    place.write_text(json.dumps(made))
    assert markdown(tmp_path).splitlines()[-2:] == [
        "| R0 `made-up` | half | 0.500 | 0.520 | 0.500 ± 0.010 | 0.4 to 0.6 | inside | 1.5 |",
        "|  | other | 2.000 | - | 3.000 | - | - |  |",
    ]
    place.write_text(json.dumps(made | {"resumed": True}))
    assert markdown(tmp_path).splitlines()[-2].endswith("| inside | > 1.5 |")
    place.write_text(json.dumps(record(reproduction, measured, seed=0, smoke=True)))
    with pytest.raises(UserError, match="smoke test; run metalearn reproduce made-up"):
        markdown(tmp_path)


def test_the_table_says_what_is_not_measured_and_what_is_a_comparison(entry, tmp_path):
    entry(0.5, comparison="another encoder")
    lines = markdown(tmp_path).splitlines()[2:]
    assert len(lines) == len(registry.FILES)
    assert all(line.split("|")[2].strip() == "not measured yet" for line in lines)
    assert lines[-1].startswith("| R0 `made-up`, a comparison |")


def test_a_comparison_says_so(entry, capsys, tmp_path):
    entry(0.5, comparison="another encoder")
    path = tmp_path / "record.json"
    assert main(["reproduce", "made-up", "--output", str(path)]) == 0
    assert "a comparison, not a reproduction: another encoder" in capsys.readouterr().out
    assert json.loads(path.read_text())["comparison"] == "another encoder"


def test_an_entry_that_resumes_is_given_its_folder(entry, capsys, monkeypatch, tmp_path):
    jobs: list[Job] = []

    def run(job: Job) -> Measured:
        jobs.append(job)
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "done").touch()
        return {"half": Estimate(0.5), "other": Estimate(3.0)}

    monkeypatch.chdir(tmp_path)
    entry(0.5, run=run, resumes=True)
    for words, folder, resumed in (
        (["--seed", "3"], "runs/made-up-seed3", False),
        (["--run-dir", "mine"], "mine", False),
        (["--run-dir", "mine"], "mine", True),
    ):
        assert main(["reproduce", "made-up", *words, "--output", "record.json"]) == 0
        assert jobs[-1].folder == Path(folder)
        said = capsys.readouterr()
        assert f"in {folder}: the same command goes on" in said.err
        assert json.loads(Path("record.json").read_text())["resumed"] is resumed
        assert said.out.rstrip().endswith("since it was resumed") is resumed
    assert main(["reproduce", "made-up", "--smoke"]) == 0
    assert jobs[-1].smoke and not jobs[-1].folder.exists()
