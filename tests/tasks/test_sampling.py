"""Drawing: balance, disjointness, purity, and the one-line refusals."""

from collections import Counter

import numpy as np
import pytest

from tasks.episode import EpisodeShape, Example, TaskError, TaskStream
from tasks.sampling import distinct, n_way_k_shot, text_key, uniform
from tasks.sources.records import RecordFamily
from tasks.sources.sinusoid import Sinusoid


def pools(sizes: dict[str, int]):
    return {
        c: distinct(Example(i, f"{c} {i}", label=c) for i in range(n)) for c, n in sizes.items()
    }


def test_draw_is_class_balanced_and_disjoint():
    random = np.random.default_rng(0)
    for _ in range(50):
        support, query, names = n_way_k_shot(pools(dict.fromkeys("abcdef", 8)), 4, 3, 5, random)
        assert Counter(e.label for e in support) == dict.fromkeys(names, 3)
        assert Counter(e.label for e in query) == dict.fromkeys(names, 5)
        assert not {text_key(e) for e in support} & {text_key(e) for e in query}
        assert [e.label for e in support] == [name for name in names for _ in range(3)]


def test_zero_ways_means_all_classes_in_random_order():
    random = np.random.default_rng(0)
    orders = {n_way_k_shot(pools(dict.fromkeys("abcd", 3)), 0, 1, 1, random)[2] for _ in range(200)}
    assert all(sorted(order) == list("abcd") for order in orders)
    assert len(orders) == 24


def test_every_class_and_example_is_equally_likely():
    random = np.random.default_rng(0)
    source = pools(dict.fromkeys("abcd", 5))
    draws = [n_way_k_shot(source, 2, 1, 1, random) for _ in range(2000)]
    counts = Counter(e for support, _, _ in draws for e in support)
    # 2000 draws x 2 support examples over 20 records: 200 each, 5 standard deviations are 67.
    assert len(counts) == 20 and all(130 < count < 270 for count in counts.values())


def test_duplicate_texts_count_once():
    pool = distinct([Example(0, "My card"), Example(1, " my  CARD"), Example(2, "my card", "b")])
    assert [e.id for e in pool.examples] == [0, 2]
    assert text_key(Example(0, "A\tb")) == ("a b", "")


def test_a_text_with_two_labels_is_drawn_once_a_task():
    shared = [Example(i, f"shared {i}", label="a") for i in range(3)]
    source = {
        "a": distinct([*shared, Example(10, "only a", label="a")]),
        "b": distinct(
            [Example(20 + i, f"Shared {i}", label="b") for i in range(3)]
            + [Example(30 + i, f"only b {i}", label="b") for i in range(2)]
        ),
    }
    random = np.random.default_rng(0)
    for _ in range(100):
        support, query, _ = n_way_k_shot(source, 2, 1, 1, random)
        keys = [text_key(e) for e in (*support, *query)]
        assert len(set(keys)) == len(keys)
    with pytest.raises(TaskError, match="without texts of other drawn classes"):
        for _ in range(100):
            n_way_k_shot(source, 2, 2, 1, random)


@pytest.mark.parametrize(
    ("sizes", "shape", "message"),
    [
        ({"a": 5, "b": 5}, (3, 1, 1), "3 ways asked for, but there are 2 classes"),
        ({"a": 9, "rare": 3}, (1, 2, 2), "class 'rare' has 3 distinct examples.*need 4"),
        ({"a": 9}, (1, 0, 0), "0 shots and 0 queries"),
        ({"a": 9}, (-1, 1, 1), "-1 ways"),
    ],
)
def test_impossible_draws_are_refused_in_one_line(sizes, shape, message):
    # A class that is too small is named even when this draw would not have picked it.
    for seed in range(5):
        with pytest.raises(TaskError, match=message) as error:
            n_way_k_shot(pools(sizes), *shape, np.random.default_rng(seed))
        assert "\n" not in str(error.value)


def test_uniform_counts_records_in_all():
    pool = distinct(Example(i, str(i)) for i in range(10))
    support, query = uniform(pool, 4, 6, np.random.default_rng(0))
    assert sorted(e.id for e in (*support, *query)) == list(range(10))
    with pytest.raises(TaskError, match=r"10 distinct examples.*need 11"):
        uniform(pool, 5, 6, np.random.default_rng(0))


def test_task_is_a_pure_function_of_seed_split_and_index(family):
    shape = EpisodeShape((2, 3), (1, 4), 3)
    stream = TaskStream(family, "train", shape, seed=3)
    again = TaskStream(family, "train", shape, seed=3)
    # In another order, and after other draws.
    expected = {i: again.task(i) for i in (9, 2, 5)}
    assert stream.tasks([2, 5, 9]) == [expected[2], expected[5], expected[9]]
    others = [TaskStream(family, "train", shape, seed=4).task(2), stream.task(3)]
    assert stream.task(2) not in others


def test_order_of_class_names_in_the_splits_does_not_move_the_draws(family):
    turned = {split: names[::-1] for split, names in family.splits.items()}
    other = RecordFamily("family", "class", family.examples, turned)
    shape = EpisodeShape(2, 1, 1)
    assert TaskStream(family, "test", shape, seed=0).task(0) == (
        TaskStream(other, "test", shape, seed=0).task(0)
    )


def test_shape_draws_ranges_inclusively():
    random = np.random.default_rng(0)
    drawn = {EpisodeShape((2, 4), (1, 2), 7).draw(random) for _ in range(200)}
    assert drawn == {(n, k, 7) for n in (2, 3, 4) for k in (1, 2)}


def test_splits_of_one_seed_differ_even_in_a_continuous_family():
    shape = EpisodeShape(shots=3)
    train, valid = (TaskStream(Sinusoid(), s, shape, seed=0).task(0) for s in ("train", "valid"))
    assert train != valid
