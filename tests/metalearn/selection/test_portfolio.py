"""Portfolios: their order, their names, and what they refuse."""

from __future__ import annotations

import pytest

from metalearn.baselines.majority import Majority
from metalearn.selection.portfolio import Member, Portfolio


def member(name: str, passes: float = 0.0, trained_on: tuple[str, ...] = ()) -> Member:
    return Member(name, "none", "none", "majority", Majority(), {}, passes, {}, trained_on)


def test_the_cheapest_comes_first_and_equals_keep_their_order() -> None:
    names = Portfolio([member("c", 2.0), member("b", 1.0), member("a", 1.0)]).names
    assert names == ("b", "a", "c")


def test_members_are_found_by_name_or_the_nearest_is_told() -> None:
    portfolio = Portfolio([member("majority"), member("ridge")])

    assert portfolio["ridge"].name == "ridge"
    with pytest.raises(ValueError, match="no learner rigde in the portfolio; did you mean ridge"):
        portfolio["rigde"]
    with pytest.raises(ValueError, match="it is one of majority, ridge"):
        portfolio["xyz"]


def test_two_of_one_name_and_none_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="two learners are named a"):
        Portfolio([member("a"), member("a", 1.0)])
    with pytest.raises(ValueError, match="at least one learner"):
        Portfolio([])


def test_a_learner_is_not_judged_on_what_it_was_trained_on() -> None:
    portfolio = Portfolio([member("plain"), member("trained", 1.0, ("clinc150", "trec"))])

    portfolio.refuse(["banking77", "agnews"])
    with pytest.raises(ValueError, match="learner trained was meta-trained on trec"):
        portfolio.refuse(["banking77", "trec"])
