"""`metalearn tasks`: a folder of one's own is checked, and described by a card; then it is used."""

import csv
import hashlib
import shlex
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.config import FamilySettings
from experiments.family import build_folder
from experiments.trained import TrainedRun

WORDS = ("apple", "bread", "chair", "dance", "eagle", "flame", "glass", "house")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "mine"
    place.mkdir()
    for number in range(4):
        labels = [f"{WORDS[number + i]}s" for i in range(2 + number % 2)]
        rows = [(f"{label} {word} {number}", label) for label in labels for word in WORDS]
        with open(place / f"task {number}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("utterance", "intent"), *rows])
    return place


COLUMNS = ["--text", "utterance", "--label", "intent", "--backbone", "tiny-bert"]


def card(words: list[str], capsys) -> tuple[int, str, str]:
    status = main(["tasks", "mine", *COLUMNS, *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_card_says_what_the_folder_holds(folder, capsys):
    with open(folder / "task 1.csv", "a") as file:
        file.write("doors  APPLE 1,doors\nbreads apple 1!,breads\na|b 1,breads\n")
        file.write("breads apple 1,chairs\n" + "word " * 200 + ",chairs\n")
        file.write("".join(f"doors {word} 1,doors\n" for word in WORDS))
    assert card([], capsys)[0] == 0
    text = (folder / "CARD.md").read_text()
    assert "4 tasks (2 train, 1 valid, 1 test), 11 classes, 93 examples" in text
    assert "| task 1 |" in text and " | 37 | 4 | 8 / 10 | 13, at most 802 | 1 |" in text
    assert "| task 1 | 1 | 1 | 1 |" in text  # duplicate, near duplicate, contradiction
    assert "breads (10), chairs (10), doors (9), dances (8)" not in text  # sorted by name
    assert "breads (10), chairs (10), dances (8), doors (9)" in text
    digest = hashlib.sha256((folder / "task 2.csv").read_bytes()).hexdigest()
    assert f"| task 2.csv | `{digest}` |" in text
    # The same files make the same card; a changed one makes another.
    assert card([], capsys)[0] == 0 and (folder / "CARD.md").read_text() == text
    with open(folder / "task 2.csv", "a") as file:
        file.write("more,chairs\n")
    assert card([], capsys)[0] == 0
    checksum = [line for line in text.splitlines() if "Checksum" in line]
    assert checksum[0] not in (folder / "CARD.md").read_text()


def test_the_command_of_the_card_trains_on_the_folder(folder, capsys):
    status, out, _ = card(["--shots", "2", "--queries", "3", "--output", "card.md"], capsys)
    assert status == 0 and out.splitlines()[-1] == "card.md"
    (command,) = [
        line for line in Path("card.md").read_text().splitlines() if "metalearn train" in line
    ]
    words = shlex.split(command)
    assert words[:3] == ["metalearn", "train", "quickstart"]
    assert words[3:] == [
        *("--family.source", "folder", "--family.name", "mine", "--family.path", "mine"),
        *("--family.text", "utterance", "--family.label", "intent"),
        *("--episodes.shots", "2", "--episodes.queries", "3", "--backbone.name", "tiny-bert"),
    ]
    small = "--learners prototypes multitask protonet --outer.steps 1 --outer.tasks 2 --threads 1"
    small += " --evaluation.tasks 4 --evaluation.resamples 5 --outer.validation-tasks 2"
    small += " --adapter.options {} --tracking.mode disabled --run-dir run"
    assert main([*words[1:], *small.split()]) == 0
    run = TrainedRun(Path("run"))
    assert {row["learner"] for row in run.result["rows"]} == {"prototypes", "multitask", "protonet"}
    # The splits of the card are those of the run.
    family = build_folder(run.experiment.family)
    text = Path("card.md").read_text()
    for split, names in family.splits.items():
        for name in names:
            assert f"| {name} | {split} |" in text


def test_every_problem_is_told_on_a_line_of_its_own(folder, capsys):
    (folder / "scores.csv").write_text(
        "utterance,intent\n" + "".join(f"text {i},{i / 10}\n" for i in range(30))
    )
    (folder / "one.csv").write_text("utterance,intent\na,x\nb,x\n,x\n")
    (folder / "latin.csv").write_bytes(b"utterance,intent\n\xff,x\n")
    status, out, err = card([], capsys)
    assert (status, out) == (2, "")
    lines = err.splitlines()
    assert lines == [
        "mine/latin.csv, line 2: byte 0xff is not UTF-8; save the file as UTF-8",
        "mine/one.csv, line 4: the text is empty; remove the record or fill it in",
        "mine/one.csv: a single class, 'x'; a task needs two",
        "mine/one.csv: class 'x' has 2 distinct texts, but 1 shots + 5 queries need 6; lower shots "
        "or queries, or add examples",
        "mine/scores.csv: the labels are 30 different numbers; tasks of texts have classes, so "
        "name a column of classes, or make classes of the scores",
        "metalearn: mine has 5 problems, told above; there is no card until it has none",
    ]
    assert not (folder / "CARD.md").exists()


def test_a_file_that_is_no_card_is_not_replaced(folder, capsys):
    (folder / "CARD.md").write_text("# My notes")
    status, _, err = card([], capsys)
    assert status == 2
    assert (
        err == "metalearn: mine/CARD.md is no card of metalearn; name another file with --output\n"
    )
    assert (folder / "CARD.md").read_text() == "# My notes"


def test_a_run_on_a_folder_is_not_judged_on_what_it_was_trained_on(folder):
    from experiments.evaluate import _refuse_leak

    settings = FamilySettings(
        source="folder", path="mine", text="utterance", label="intent", name="mine"
    )
    trained = build_folder(settings)
    _refuse_leak(Path("run"), trained, trained)
    other = next(
        family
        for seed in range(1, 9)
        if (family := build_folder(settings.model_copy(update={"split_seed": seed}))).splits["test"]
        != trained.splits["test"]
        and family.splits["test"][0] in trained.splits["train"]
    )
    with pytest.raises(ValueError, match=r"is among the test tasks, but .* was trained on it"):
        _refuse_leak(TrainedAt("run"), trained, other)


class TrainedAt:
    """What a refusal says of a run."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
