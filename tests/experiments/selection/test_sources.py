"""The plan of the tasks at hand, on the real files."""

from __future__ import annotations

from collections import Counter

import pytest

from experiments.selection import sources
from experiments.selection.portfolio import ENTRIES, TRAINED, trained_on
from tasks.sources.files import data_folder

needs_data = pytest.mark.skipif(
    not (data_folder() / "superni_core120").exists(),
    reason="the data sets are not here; set METALEARN_DATA",
)


@pytest.fixture(scope="module")
def plan() -> list[sources.Planned]:
    return sources.plan()


@needs_data
def test_there_are_enough_tasks_of_enough_sources(plan) -> None:
    assert len(plan) >= 150
    assert len({task.name for task in plan}) == len(plan)
    assert len(sources.names(plan)) >= 8
    assert {len(task.classes) for task in plan} >= {2, 20}
    assert {task.shots for task in plan} >= {1, 16}
    for task in plan:
        assert task.sets >= 3
        assert 2 <= len(task.classes) <= 20
        assert task.sets * task.queries * len(task.classes) >= 200
        assert task.shots * len(task.classes) <= sources.LARGEST


@needs_data
def test_data_sets_with_common_texts_are_one_source(plan) -> None:
    source = {task.name: task.source for task in plan}
    assert source["sst2-0"] == source["mr-0"] == source["subj-0"]
    assert source["trec-fine-0"] == source["trec-coarse-0"]
    assert source["scitail-0"] == source["task1529_scitail1.1_classification"]
    assert source["rating_books-0"] == source["task493_review_polarity_classification"]
    assert max(Counter(source.values()).values()) < len(plan) / 8


@needs_data
def test_no_source_is_one_that_learners_were_trained_on(plan) -> None:
    assert TRAINED.family.name not in sources.names(plan)
    assert {on for entry in ENTRIES.values() for on in trained_on(entry)} == {TRAINED.family.name}


@needs_data
def test_a_task_is_drawn_from_the_classes_of_its_plan(plan) -> None:
    for task in plan[::40]:
        drawn = sources.draw(task, 0)
        assert set(drawn.label_names) == set(task.classes)
        assert drawn.source == task.name
