"""What is chosen from: learners with names, along three axes.

*model* (a backbone, cut or whole, or TF-IDF), *adapter* (its type, rank and place) and *algorithm*
(a baseline or a learner, and what it starts from), each with its parameters.  What a learner costs
is counted in passes through the whole backbone of l layers, for a support set and as many queries,

    passes = (l_below + p l_adapted) / l + (l_below + l_adapted) / l,

with p the learner's own passes and l_below the layers below its adapter, which are kept: a property
of the learner, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from meta_models.params import Params
from metalearn.learner import Learner


@dataclass(frozen=True)
class Member:
    """A learner of a portfolio, built.

    Attributes:
        name: What it is chosen by.
        model: What texts are read by; "none" where they are not.
        adapter: What adapts; "none" for frozen features.
        algorithm: Who adapts it.
        learner: The learner.
        state: Its meta-parameters.
        passes: What adapting and predicting takes, in passes through the whole backbone.
        parameters: Settings that differ from the defaults (rates, steps).
        trained_on: Sources that it was meta-trained on.
    """

    name: str
    model: str
    adapter: str
    algorithm: str
    learner: Learner
    state: Params
    passes: float
    parameters: Mapping[str, Any] = field(default_factory=dict)
    trained_on: tuple[str, ...] = ()

    @property
    def most_ways(self) -> float:
        """The most classes it can work on: rows of a head that has one for each class position."""
        slots = self.state.get("slots")
        return float("inf") if slots is None else len(slots)


class Portfolio:
    """Members, the cheapest first.

    Args:
        members: In any order; members of equal cost keep theirs.

    Raises:
        ValueError: If there is none, or two have one name.

    Example:
        >>> from metalearn.baselines.majority import Majority
        >>> one = Member("dear", "none", "none", "majority", Majority(), {}, 2.0)
        >>> Portfolio([one, Member("cheap", "none", "none", "majority", Majority(), {}, 1.0)]).names
        ('cheap', 'dear')
    """

    def __init__(self, members: Sequence[Member]) -> None:
        if not members:
            raise ValueError("a portfolio needs at least one learner")
        self.members = tuple(sorted(members, key=lambda member: member.passes))
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"two learners are named {min(twice)}; give each its own name")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(member.name for member in self.members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, name: str) -> Member:
        """The member of a name.

        Raises:
            ValueError: If there is none.
        """
        for member in self.members:
            if member.name == name:
                return member
        near = get_close_matches(name, self.names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(self.names)}"
        raise ValueError(f"no learner {name} in the portfolio; {hint}")

    def refuse(self, sources: Sequence[str]) -> None:
        """Refuse to be judged on what a member was meta-trained on.

        Args:
            sources: Sources of the tasks to be judged on.

        Raises:
            ValueError: If one of them is among the training sources of a member.
        """
        for member in self.members:
            known = sorted(set(member.trained_on) & set(sources))
            if known:
                raise ValueError(
                    f"learner {member.name} was meta-trained on {known[0]}, which is among the "
                    "sources it would be judged on; leave out one of them"
                )
