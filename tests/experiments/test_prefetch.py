"""Episodes made ahead are those made on demand, and the thread that makes them never stays."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from experiments.prefetch import Prefetch


def workers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("prefetch")]


class Recorder:
    """Makes "episodes" that say which step they are for, and records where each was made."""

    def __init__(self, fails: int | None = None) -> None:
        self.fails = fails
        self.made: list[int] = []
        self.places: set[str] = set()
        self.reached = {step: threading.Event() for step in range(20)}

    def __call__(self, step: int) -> Any:
        self.made.append(step)
        self.places.add(threading.current_thread().name)
        self.reached[step].set()
        if step == self.fails:
            raise LookupError(f"no tasks at {step}")
        return f"episode {step}"


def test_the_same_episodes_in_the_same_order_are_made_by_one_thread() -> None:
    make = Recorder()
    with Prefetch(make, stop=9) as episodes:
        assert [episodes(step) for step in range(4, 9)] == [f"episode {s}" for s in range(4, 9)]
    assert make.made == [4, 5, 6, 7, 8]  # from the step of a resumed run, and none beyond the last
    assert len(make.places) == 1 and "MainThread" not in make.places
    assert workers() == []


def test_the_next_steps_are_made_before_they_are_asked_for() -> None:
    make = Recorder()
    with Prefetch(make, stop=20, ahead=2) as episodes:
        episodes(0)
        # Nobody asks for them; a wait that ends at all is the test.
        assert make.reached[1].wait(60) and make.reached[2].wait(60)
        assert not make.reached[3].is_set()


def test_an_error_is_raised_at_the_step_that_it_belongs_to() -> None:
    make = Recorder(fails=2)
    with Prefetch(make, stop=9) as episodes:
        assert [episodes(step) for step in range(2)] == ["episode 0", "episode 1"]
        with pytest.raises(LookupError, match="no tasks at 2"):
            episodes(2)
    assert workers() == []


def test_no_thread_stays_when_the_training_fails() -> None:
    with pytest.raises(ArithmeticError), Prefetch(Recorder(), stop=9) as episodes:
        episodes(0)
        raise ArithmeticError("loss")
    assert workers() == []


def test_outside_of_a_block_there_is_no_thread() -> None:
    make = Recorder()
    episodes = Prefetch(make, stop=9)
    assert episodes(3) == "episode 3"
    assert make.places == {"MainThread"} and workers() == []
    with episodes:
        assert episodes(4) == "episode 4"
    assert episodes(0) == "episode 0" and workers() == []


def test_nothing_ahead_is_no_thread() -> None:
    make = Recorder()
    with Prefetch(make, stop=9, ahead=0) as episodes:
        assert [episodes(step) for step in range(2)] == ["episode 0", "episode 1"]
    assert make.made == [0, 1] and make.places == {"MainThread"}


def test_a_step_out_of_order_is_made_too() -> None:
    with Prefetch(Recorder(), stop=9) as episodes:
        assert [episodes(step) for step in (5, 0, 1, 8, 8, 12)] == [
            f"episode {step}" for step in (5, 0, 1, 8, 8, 12)
        ]
