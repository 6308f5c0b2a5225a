"""Curricula do what they say: with losses that are written down, never with a model."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy.stats import chisquare

from tasks.curriculum import Curriculum, Difficulty, Progress
from tasks.episode import EpisodeShape, Example, TaskError, TaskStream
from tasks.sources.records import RecordFamily
from tasks.sources.sinusoid import Sinusoid

CLASSES = [f"class {c:02}" for c in range(12)]
TASKS, POOL, STEPS = 3, 8, 40


@pytest.fixture(scope="module")
def twelve() -> RecordFamily:
    """Twelve training classes of four texts; class c has the index c."""
    names = [name for name in CLASSES for _ in range(4)]
    examples = [Example(i, f"text {i}", label=name) for i, name in enumerate(names)]
    return RecordFamily("twelve", "class", examples, {"train": CLASSES})


@pytest.fixture
def make(twelve):
    def curriculum(rule=None, ways=2, **settings):
        stream = TaskStream(twelve, "train", EpisodeShape(ways, 1, 1), seed=5)
        settings = {"tasks": TASKS, "pool": POOL, "steps": STEPS} | settings
        return Curriculum(stream, rule or Difficulty(), **settings)

    return curriculum


def classes(curriculum, indices) -> list[int]:
    return [c for i in indices for c in curriculum.stream.task(i).class_ids]


def train(curriculum, loss, steps=range(STEPS)) -> list[list[int]]:
    """The tasks of each step, where a task's loss is the mean of `loss(class, step)`."""
    seen = []
    for step in steps:
        indices = curriculum.indices(step)
        losses = [np.mean([loss(c, step) for c in classes(curriculum, [i])]) for i in indices]
        curriculum.observe(indices, losses)
        seen.append(indices)
    return seen


def test_the_tasks_of_a_step_are_different_candidates_of_that_step(make):
    for rule in (Difficulty(), Progress()):
        for step, indices in enumerate(train(make(rule), lambda c, step: 1 + c / (step + 1))):
            assert len(set(indices)) == TASKS
            assert set(indices) <= set(range(step * POOL * TASKS, (step + 1) * POOL * TASKS))


def test_difficulty_goes_from_easy_classes_to_hard_ones(make):
    # Class c always has the loss c: the classes of the chosen tasks are what was asked for.
    curriculum = make()
    means = [np.mean(classes(curriculum, step)) for step in train(curriculum, lambda c, step: c)]
    quarters = [float(np.mean(means[i : i + 10])) for i in range(0, STEPS, 10)]
    assert quarters == sorted(quarters)
    # All classes alike have the mean 5.5.
    assert quarters[0] < 4.5 and quarters[-1] > 7.5


def test_reversed_quantiles_go_from_hard_to_easy(make):
    curriculum = make(Difficulty(1.0, 0.0))
    means = [np.mean(classes(curriculum, step)) for step in train(curriculum, lambda c, step: c)]
    assert np.mean(means[5:15]) > np.mean(means[15:25]) > np.mean(means[25:])


def test_the_window_of_difficulty_lies_at_the_quantile():
    scores = np.random.default_rng(0).permutation(20).astype(float)
    for first, last in ((0.0, 1.0), (1.0, 0.0), (0.25, 0.75)):
        for progress in (0.0, 0.4, 1.0):
            chosen = Difficulty(first, last).choose(scores, 4, progress, np.random.default_rng(0))
            start = round((first + (last - first) * progress) * 16)
            assert sorted(scores[chosen]) == list(range(start, start + 4))


def test_progress_prefers_the_classes_whose_loss_changes(make):
    # Odd classes: a loss that falls (1, 5, 9) or rises (3, 7, 11); even ones: as hard as can be.
    slope = {1: -0.05, 3: 0.05}

    def loss(c, step):
        return 3.0 + slope.get(c % 4, 0.0) * step

    curriculum = make(Progress(floor=0.05), ways=1)
    chosen = np.array(
        [np.mean(np.array(classes(curriculum, step)) % 2) for step in train(curriculum, loss)]
    )
    assert chosen[10:].mean() > 0.85
    odd = np.mean([c % 2 for c in classes(curriculum, range(STEPS * POOL * TASKS))])
    assert 0.45 < odd < 0.55  # among the candidates they are as many as the others


def test_progress_draws_with_the_stated_probabilities():
    rule, scores = Progress(floor=0.2), np.array([0.0, 0.1, 0.4, 0.2, 0.0, 0.3])
    p = rule.probabilities(scores)
    assert p.sum() == pytest.approx(1.0)
    # p = (1 - floor) w / sum w + floor / n
    assert p == pytest.approx(0.8 * scores / 1.0 + 0.2 / 6)
    times = 20_000
    drawn = [rule.choose(scores, 1, 0.0, np.random.default_rng(i))[0] for i in range(times)]
    assert chisquare(np.bincount(drawn, minlength=6), times * p).pvalue > 0.01
    # Two without replacement: P{i, j} = p_i p_j / (1 - p_i) + p_j p_i / (1 - p_j)
    pairs = list(itertools.combinations(range(6), 2))
    expected = [p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j])) for i, j in pairs]
    found = [
        pairs.index(tuple(sorted(rule.choose(scores, 2, 0.0, np.random.default_rng(i)))))
        for i in range(times)
    ]
    counts = np.bincount(found, minlength=len(pairs))
    assert chisquare(counts, times * np.array(expected)).pvalue > 0.01


def test_without_progress_all_candidates_are_alike():
    assert Progress(0.3).probabilities(np.zeros(4)).tolist() == [0.25] * 4
    chosen = [Progress().choose(np.zeros(4), 1, 0.0, np.random.default_rng(i)) for i in range(400)]
    assert chisquare(np.bincount(np.ravel(chosen), minlength=4)).pvalue > 0.01


def test_running_means_are_those_of_the_equation(make):
    curriculum = make(Progress(), ways=3, fast=0.5, slow=0.1)
    seen = {0: 0.6, 1: 0.9, 2: 0.4, 3: 1.1, 4: 0.8}
    assert curriculum.observe(list(seen), list(seen.values())) == 0.0  # nothing was known
    means = {"fast": {}, "slow": {}}
    for i, loss in seen.items():
        for c in curriculum.stream.task(i).class_ids:
            for name, rate in (("fast", 0.5), ("slow", 0.1)):
                mean = means[name].get(c, loss / math.log(3))
                means[name][c] = mean + rate * (loss / math.log(3) - mean)
    expected = {f"{name}/{c}": m for name, of in means.items() for c, m in of.items()}
    assert curriculum.state() == pytest.approx(expected)
    progress = {c: abs(means["fast"][c] - means["slow"][c]) for c in means["fast"]}
    unseen = np.mean(list(progress.values()))
    assert any(progress.values())
    ids = curriculum.stream.task(7).class_ids
    score = math.log(3) * np.mean([progress.get(c, unseen) for c in ids])
    assert curriculum.observe([7], [1.0]) == pytest.approx(score)


def test_tasks_of_more_ways_do_not_make_their_classes_harder(make):
    # Every task is as hard as a guess, whatever its number of ways.
    curriculum = make(ways=(2, 6))
    indices = range(200)
    curriculum.observe(
        indices, [math.log(len(curriculum.stream.task(i).class_ids)) for i in indices]
    )
    assert set(np.round(list(curriculum.state().values()), 12)) == {1.0}


@pytest.mark.parametrize("rule", [Difficulty(), Progress()], ids=["difficulty", "progress"])
def test_a_restored_curriculum_goes_on_bit_for_bit(make, rule):
    def loss(c, step):
        return 1 + math.sin(7 * c + step) / 3

    whole = make(rule)
    train(whole, loss, range(13))
    state = json.loads(json.dumps(whole.state()))
    rest = train(whole, loss, range(13, STEPS))

    again = make(rule)
    again.restore(state)
    assert train(again, loss, range(13, STEPS)) == rest
    assert again.state() == whole.state()
    assert list(again.state()) == list(whole.state())  # and so do sums over it
    assert train(make(rule), loss, range(13, STEPS)) != rest  # the state is what it depends on


def test_the_state_is_a_copy(make):
    curriculum = make()
    curriculum.observe([0], [1.0])
    state = curriculum.state()
    other = make()
    other.restore(state)
    other.observe([0], [2.0])
    assert curriculum.state() == state != other.state()


def test_the_choice_depends_on_the_seed_and_the_step(make, twelve):
    def indices(seed, step):
        stream = TaskStream(twelve, "train", EpisodeShape(2, 1, 1), seed=seed)
        curriculum = Curriculum(stream, Progress(), tasks=TASKS, pool=POOL, steps=STEPS)
        return [i - step * TASKS * POOL for i in curriculum.indices(step)]

    assert indices(0, 3) == indices(0, 3)
    assert len({tuple(indices(seed, step)) for seed in range(4) for step in range(4)}) > 10


@pytest.mark.parametrize(
    ("family", "ways", "message"),
    [
        (Sinusoid(), 5, "the tasks of 'sinusoid' have no classes of their own; leave it out"),
        (None, 0, "every task has all 12 classes of the split 'train'; ask for fewer ways"),
        (None, 12, "every task has all 12 classes"),
        (None, (12, 12), "every task has all 12 classes"),
    ],
)
def test_tasks_that_no_class_tells_apart_are_refused(twelve, family, ways, message):
    stream = TaskStream(family or twelve, "train", EpisodeShape(ways, 1, 1), seed=0)
    with pytest.raises(TaskError, match=message) as error:
        Curriculum(stream, Difficulty(), tasks=2, pool=2, steps=5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": 1}, "a pool of 1"),
        ({"slow": 0.4}, "0 < slow < fast"),
        ({"slow": 0.0}, "0 < slow < fast"),
        ({"fast": 1.1}, "0 < slow < fast"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_rules_refuse_what_is_no_share():
    with pytest.raises(ValueError, match="quantiles"):
        Difficulty(0.0, 1.1)
    with pytest.raises(ValueError, match="floor"):
        Progress(floor=0.0)
