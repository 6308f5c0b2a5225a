"""Reports: complete, self-contained, honest about what is missing."""

import io
import math
import re
import shutil
from html.parser import HTMLParser

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from experiments.catalog import EXPERIMENTS
from experiments.config import Experiment
from experiments.errors import UserError
from experiments.figures import adaptation_curves
from experiments.files import write_json
from experiments.folder import RunFolder
from experiments.metrics import MetricsLog
from experiments.report import write_report
from experiments.tables import HEADERS, cells, markdown_table, result_table


@pytest.fixture
def run(tmp_path, made_up):
    experiment = Experiment(name="trial", description="Made <b>up</b>")
    with RunFolder.create(experiment, tmp_path / "trial-1") as folder:
        write_json(folder.path / "result.json", made_up.result((1, 5)))
        adaptation_curves(made_up.curves(), folder.figures / "curves.png", title="Made up")
        adaptation_curves(made_up.curves(), folder.figures / "extra.png", title="Made up")
        with MetricsLog(folder.metrics) as log:
            for record in made_up.metrics():
                log.append(record)
    return folder.path


class Page(HTMLParser):
    """Collects the tags that are open, the links to elsewhere and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.links, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_asks_for_nothing_else(run):
    path = write_report(run)
    assert path == run / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert sum(link.startswith("data:image/png;base64,") for link in page.links) == 2
    anchors = [link for link in page.links if not link.startswith("data:")]
    assert anchors and all(f'id="{anchor.removeprefix("#")}"' in text for anchor in anchors)
    assert "http" not in text and "url(" not in text and "<script" not in text


def test_the_page_says_what_was_done_and_found(run):
    words = Page(write_report(run).read_text(encoding="utf-8")).words
    for expected in (
        "Made <b>up</b>",  # escaped: it arrives as text
        "85.0 ± 1.0",
        "+7.0 [+6.2, +7.8]",
        "1-shot: maml has the highest accuracy, 85.0 [84.0, 86.0]: better than prototypes, "
        "+7.0 [+6.2, +7.8].",
        "no clear difference",
        "83.7 [82.5, 84.9]",  # maml after step 3
        "extra",  # a figure that no section knows
        "inner.rate 0.1, steps 5",
        "adapter.options",
        "{}",  # as in the defaults of the method
        "packages.torch",
        "maml/02/seed 0",
        "100 test tasks, 1 fold, 1 seed; 95% intervals. Times on the machine below.",
    ):
        assert expected in words, expected


def test_several_families_are_told_apart(tmp_path, made_up):
    result = {"families": ["birds", "cars"]}
    for name in ("rows", "comparisons", "curves"):
        made = made_up.result()[name]
        result[name] = [row | {"family": f} for f in result["families"] for row in made]
    write_json(tmp_path / "result.json", result)
    words = Page(write_report(tmp_path).read_text(encoding="utf-8")).words
    for family in result["families"]:
        line = f"{family}, 1-shot: maml has the highest accuracy, 85.0 [84.0, 86.0]"
        assert any(word.startswith(line) for word in words)
        assert f"{family}, 1-shot" in words  # in the curves


def test_figures_stand_in_the_sections_of_their_kind(run):
    names = ("scores", "costs", "shots", "ranks-birds", "ranks-cars", "reliability", "ranking")
    for name in names:
        shutil.copy(run / "figures" / "extra.png", run / "figures" / f"{name}.png")
    text = write_report(run).read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for section in text.split("<section")[1:]:
        title = re.findall("<h2>(.*?)</h2>", section)[0]
        found[title] = re.findall('<img alt="(.*?)"', section)
    assert {title: images for title, images in found.items() if images} == {
        "Result": ["scores", "costs"],
        "Comparisons": ["ranks-birds", "ranks-cars"],
        "Adaptation": ["curves", "shots"],
        "Calibration": ["reliability"],
        "Other figures": ["extra", "ranking"],
    }
    assert text.index("Result</h2>") < text.index("Calibration</h2>")


def test_settings_that_the_catalog_has_otherwise_come_first(tmp_path):
    experiment = EXPERIMENTS["quickstart"].override({"inner.rate": 0.5})
    RunFolder.create(experiment, tmp_path / "run").close()
    words = Page(write_report(tmp_path / "run").read_text(encoding="utf-8")).words
    place = words.index("changed setting")
    assert [w for w in words[place : place + 9] if w.strip()][:6] == [
        *("changed setting", "here", "in quickstart"),
        *("inner.rate", "0.5", "0.05"),
    ]


def test_a_finished_run_shows_its_mistakes(tiny_run, tmp_path):
    words = Page(write_report(tiny_run, tmp_path / "a.html").read_text(encoding="utf-8")).words
    (line,) = [word for word in words if word.startswith("maml, 1-shot: ")]
    table = pq.read_table(tiny_run / "predictions.parquet").to_pylist()
    final = [
        row["label"] != row["prediction"]
        for row in table
        if (row["learner"], row["split"], row["step"]) == ("maml", "query", 2)
    ]
    assert line == f"maml, 1-shot: {sum(final)} mistakes in {len(final)} predictions"
    assert sum(final)


def test_the_report_of_a_sweep_has_trials_importance_and_best_settings(made_up_sweep):
    path = write_report(made_up_sweep)
    assert path == made_up_sweep / "report.html"
    text = path.read_text(encoding="utf-8")
    words = Page(text).words
    for expected in (
        "6 trials of quickstart (grid), 5 finished.",
        "Best: trial-005, validation 0.8050 ± 0.0200.",
        "diverged: loss <nan>",
        "inner.rate",
        f"metalearn train quickstart --config {made_up_sweep / 'best.json'}",
    ):
        assert expected in words, expected
    assert text.count("data:image/png") == 1 and 'class="bar"' in text
    (made_up_sweep / "summary.json").unlink()
    assert "summary.json</code> is missing" in write_report(made_up_sweep).read_text()


def test_two_runs_are_compared_where_they_can_be(tiny_run, run, tmp_path):
    path = write_report([tiny_run, tiny_run, run], tmp_path / "a.html")
    words = Page(path.read_text(encoding="utf-8")).words
    assert "Paired over 4 test tasks that both have." in words
    assert words.count("no difference: the same on every task") == 4
    assert any("is not finished" in word for word in words)  # it has no scores


def test_what_is_missing_is_said(tmp_path):
    text = re.sub("<[^>]+>", "", write_report(tmp_path).read_text(encoding="utf-8"))
    for name in ("result.json", "metrics.jsonl", "config.json", "environment.json"):
        assert f"{name} is missing" in text


def test_several_runs_share_a_page(run, tmp_path):
    RunFolder.create(Experiment(name="other"), tmp_path / "other-1").close()
    path = write_report([run, tmp_path / "other-1"], tmp_path / "pages" / "both.html")
    words = Page(path.read_text(encoding="utf-8")).words
    assert {"2 runs", "trial-1", "other-1"} <= set(words)
    assert write_report([run, tmp_path / "other-1"]) == tmp_path / "report.html"


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        write_report(tmp_path / "none")


def test_the_tables_have_a_row_a_learner_and_number_of_shots(made_up):
    result = made_up.result((1, 5))
    rows = cells(result)
    assert [(row[0], row[1]) for row in rows] == [
        (row["learner"], str(row["shots"])) for row in result["rows"]
    ]
    assert all(len(row) == len(HEADERS) for row in rows)
    lines = markdown_table(result).splitlines()
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    out = io.StringIO()
    Console(file=out, width=140).print(result_table(result))
    assert "vs prototypes" in out.getvalue() and "+7.0 [+6.2, +7.8]" in out.getvalue()
    assert out.getvalue().count("maml") == 2


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_narrow_terminal_cuts_no_number(made_up, width):
    result = made_up.result()
    out = io.StringIO()
    Console(file=out, width=width).print(result_table(result))
    assert "…" not in out.getvalue()
    assert "85.0 ± 1.0" in out.getvalue()
    shown = set(out.getvalue().split())
    for learner, shots, steps, accuracy, macro, loss, *others in cells(result):
        for cell in (learner, shots, steps, accuracy, macro.split()[0], loss.split()[0], *others):
            assert set(cell.split()) <= shown


def test_numbers_that_are_not_there_are_dashes(made_up):
    result = made_up.result()
    result["rows"] = [result["rows"][0] | {"loss": None, "train_seconds": None}]
    result["rows"][0]["macro_f1"] = {"mean": math.nan, "low": math.nan, "high": math.nan}
    (row,) = cells(result)
    assert row[4] == row[5] == row[8] == "-"
