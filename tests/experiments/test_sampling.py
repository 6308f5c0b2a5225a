"""Training tasks as the settings ask for them: chosen, augmented, of any number of ways."""

import pyarrow.parquet as pq
import pytest
import torch

from experiments.bitwise import differences
from experiments.build import Workshop
from experiments.checkpoint import load
from experiments.cli import main
from experiments.config import EpisodeSettings, Experiment
from experiments.faults import Moment, Template, small_experiment
from experiments.folder import load_experiment
from experiments.metrics import read_metrics
from experiments.run import run
from experiments.sampling import build_curriculum
from tasks.augment import MADE
from tasks.episode import Episode, EpisodeShape, TaskStream

EVERYTHING = {
    "sampling.curriculum": "progress",
    "sampling.pool": 3,
    "sampling.mix": 0.5,
    "sampling.delete": 0.1,
    "sampling.swap": 0.1,
    "sampling.duplicate": 0.1,
    "sampling.sets": ("support", "query"),
    "episodes.train_ways": (3, 4),
    "outer.tasks": 3,
}


def same(one: Episode, other: Episode) -> bool:
    """Whether two episodes are equal bit for bit."""
    found: list[list[torch.Tensor]] = [[], []]
    for episode, tensors in zip((one, other), found, strict=True):
        episode.map(lambda x, tensors=tensors: tensors.append(x) or x)
    return (
        one.index == other.index
        and one.support.label_names == other.support.label_names
        and all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    )


def test_with_everything_off_the_tasks_are_those_of_the_stream(tiny_experiment):
    workshop = Workshop(tiny_experiment)
    assert build_curriculum(tiny_experiment, workshop.training_stream(1, 7)) is None
    episodes = workshop.training_episodes(1, 7)
    stream = TaskStream(workshop.family, "train", EpisodeShape(2, 1, 2), seed=7)
    for step in (0, 3):
        numbers = [2 * step, 2 * step + 1]
        expected = workshop.collator.collate(stream.tasks(numbers), numbers)
        assert same(episodes(step), expected)


def test_training_tasks_have_a_range_of_ways(tiny_experiment):
    workshop = Workshop(tiny_experiment.override({"episodes.train_ways": (2, 4)}))
    episodes = workshop.training_episodes(1, 0)
    ways = {n for step in range(20) for n in episodes(step).support.class_mask.sum(1).tolist()}
    assert ways == {2, 3, 4}
    assert workshop.stream("valid", 1, 0).shape.ways == 2


@pytest.mark.parametrize("ways", [None, 0, 3, (2, 4)])
def test_training_ways_are_read_back_as_they_were_written(ways):
    settings = EpisodeSettings(train_ways=ways)
    assert EpisodeSettings.model_validate_json(settings.model_dump_json()) == settings
    assert settings.train_ways == ways


@pytest.fixture(scope="module")
def sampled(tiny_experiment, tmp_path_factory):
    """A run with a curriculum and every augmentation."""
    folder = tmp_path_factory.mktemp("runs") / "sampled"
    return run(tiny_experiment.override(EVERYTHING), folder)


def test_a_run_goes_through_with_everything_on(sampled, tiny_experiment):
    assert load_experiment(sampled) == tiny_experiment.override(EVERYTHING)
    records = read_metrics(sampled / "metrics.jsonl")
    assert {record["learner"] for record in records} >= {"maml", "protonet"}
    assert all("task_score" in record and "losses" not in record for record in records)
    for place in (sampled / "checkpoints").iterdir():
        found = load(place)
        assert found is not None
        state = found[1]["curriculum"]
        assert {name.partition("/")[0] for name in state} == {"fast", "slow"}
        assert all(0 < value < 10 for value in state.values())


def test_validation_and_test_tasks_do_not_change(sampled, tiny_run):
    for name in ("scores", "predictions"):
        ours, theirs = (
            [
                row
                for row in pq.read_table(folder / f"{name}.parquet").to_pylist()
                if row["learner"] in ("prototypes", "finetune")
            ]
            for folder in (sampled, tiny_run)
        )
        assert ours == theirs
    shop = Workshop(load_experiment(sampled))
    shop.frozen = True
    for split in ("valid", "test"):
        for task in shop.stream(split, 1, 0).tasks(range(30)):
            assert not any(example.origins for example in (*task.support, *task.query))


def test_a_step_is_made_of_the_chosen_tasks_augmented(tiny_experiment):
    workshop = Workshop(tiny_experiment.override(EVERYTHING))
    stream = workshop.training_stream(1, 0)
    curriculum = build_curriculum(workshop.experiment, stream)
    assert curriculum is not None
    episodes = workshop.training_episodes(1, 0, curriculum)
    made = 0
    for step in range(6):
        episode = episodes(step)
        assert list(episode.index) == curriculum.indices(step)
        assert set(episode.index) <= set(range(9 * step, 9 * step + 9))
        curriculum.observe(episode.index, [1.0, 2.0, 3.0])
        made += int((episode.support.class_ids >= MADE).any(1).sum())
        plain = stream.tasks(episode.index)
        assert episode.support.class_mask.sum(1).tolist() == [len(t.label_names) for t in plain]
    assert 0 < made < 18


def test_a_killed_run_is_resumed_exactly(tmp_path):
    chosen = {"sampling.curriculum": "progress", "sampling.mix": 0.3, "sampling.swap": 0.2}
    plain = {"learners": ("protonet",), "seeds": (0,), "grids": {}, "episodes.shots": (1,)}
    plain |= {"evaluation.reference": "", "outer.checkpoint_every": 2, "outer.steps": 5}
    experiment = small_experiment("tiny-bert").override(plain | chosen)
    with Template(tmp_path) as template:
        assert template.go(tmp_path / "whole", experiment) is not None
        # In the middle of the fourth meta-step: the second checkpoint is gone back to.
        moments = iter([Moment("step", 7), None])
        assert template.survive(tmp_path / "killed", experiment, moments.__next__)
    assert differences(tmp_path / "whole", tmp_path / "killed") == []


BASE = """
train quickstart --learners prototypes maml --evaluation.reference prototypes --threads 1
--backbone.name tiny-bert --adapter.options {} --tracking.mode disabled --inner.steps 1
--evaluation.tasks 1 --outer.steps 1 --outer.tasks 1 --outer.validation-tasks 1 --run-dir run
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--episodes.train-ways 5 2", "train_ways Value error, 5 to 2 is no range"),
        ("--episodes.train-ways 0 2", "train_ways Value error, 0 to 2 is no range"),
        ("--episodes.train-ways -1", "train_ways Value error, -1 is no number of classes"),
        ("--episodes.train-shots 5 1", "train_shots Value error, 5 to 1 is no range"),
        ("--episodes.train-ways 2 50", "50 ways asked for, but there are 42 classes"),
        ("--sampling.curriculum hard", "--sampling.curriculum"),
        ("--sampling.pool 1", "pool Input should be greater than or equal to 2"),
        ("--sampling.quantiles 0 2", "quantiles Value error, 0.0 and 2.0 must be from 0 to 1"),
        ("--sampling.floor 0", "floor Input should be greater than 0"),
        ("--sampling.slow 0.5", "slow Value error, 0.5 must be smaller than fast"),
        ("--sampling.mix 1.5", "mix Input should be less than or equal to 1"),
        ("--sampling.delete -1", "delete Input should be greater than or equal to 0"),
        ("--sampling.mask 0.1", "sampling.mask: the backbone's tokenizer has no mask token"),
        (
            "--sampling.mix 0.1 --sampling.swap 0.1 --episodes.train-ways 2 4",
            "sampling.mix, sampling.swap: mixing the classes of a task needs at least 3 of them",
        ),
        (
            "--sampling.curriculum progress --episodes.train-ways 0",
            "sampling.curriculum: a curriculum scores tasks by their classes, but every task has "
            "all 42 classes of the split 'train'; ask for fewer ways",
        ),
        (
            "--sampling.mix 0.1 --learners prototypes multitask",
            "sampling.mix: multitask has no rows for classes that are made of two",
        ),
        (
            "--family.source sinusoid --family.name waves --backbone.name mlp --learners maml "
            "--evaluation.reference maml --sampling.curriculum difficulty",
            "sampling.curriculum: a curriculum scores tasks by their classes, but the tasks of "
            "'waves' have no classes of their own; leave it out",
        ),
        (
            "--family.source sinusoid --family.name waves --family.kind value --backbone.name mlp "
            "--learners maml --evaluation.reference maml --sampling.delete 0.1",
            "sampling.delete: only texts with a class are augmented",
        ),
    ],
)
def test_a_mistake_ends_in_one_line(tmp_path, monkeypatch, capfd, words, expected):
    monkeypatch.chdir(tmp_path)
    assert main([*BASE.split(), *words.split()]) == 2
    line = capfd.readouterr().err
    assert line.startswith("metalearn: ") and line.count("\n") == 1, line
    assert expected in line
    assert not (tmp_path / "run").exists()


def test_multitask_takes_mixed_tasks_from_nobody(tiny_experiment, tmp_path):
    """The remedy that the message names."""
    settings = {"learners": ("prototypes", "multitask", "protonet"), "episodes.train_ways": 3}
    grids = {"multitask": {"sampling.mix": (0.0,)}}
    experiment = tiny_experiment.override(settings | {"sampling.mix": 1.0, "grids": grids})
    run(Experiment.model_validate(experiment.model_dump()), tmp_path / "run")
    assert {r["learner"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl")} == {
        "multitask",
        "protonet",
    }
