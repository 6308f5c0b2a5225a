"""What a reproduction is: a claim, how it is measured, and the band that counts as reproduced.

One published result is one file of this package: it holds a `Reproduction` named `REPRODUCTION`,
whose bands are data that no measurement changes.  No such file imports torch before it is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["inside", "outside", ""]
"""Whether a measured value lies in its band; empty where there is no band."""


@dataclass(frozen=True)
class Quantity:
    """A number that is measured and, where it has a band, judged.

    Attributes:
        name: What it is, in a few words.
        published: What the source states; None: nothing to compare with (a figure only).
        rerun: What an independent implementation measured under the same protocol.
        low: Lower end of the band, itself inside; None: open.
        high: Upper end of the band, itself inside; None: open.

    Example:
        >>> Quantity("loss", 0.5, low=0.4, high=0.6).verdict(0.6)
        'inside'
        >>> Quantity("loss", 0.5, high=0.6).verdict(float("nan"))
        'outside'
        >>> Quantity("loss", 0.5).verdict(0.6)
        ''
    """

    name: str
    published: float | None = None
    rerun: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def judged(self) -> bool:
        """Whether there is a band."""
        return self.low is not None or self.high is not None

    @property
    def band(self) -> str:
        """The band in words.

        Example:
            >>> Quantity("loss", low=0.4, high=0.6).band, Quantity("rise", high=0.0).band
            ('0.4 to 0.6', 'at most 0')
        """
        if self.low is not None and self.high is not None:
            return f"{self.low:.9g} to {self.high:.9g}"
        if self.low is not None:
            return f"at least {self.low:.9g}"
        return "" if self.high is None else f"at most {self.high:.9g}"

    def verdict(self, measured: float) -> Verdict:
        """Whether a measured value lies in the band; what is not a number never does."""
        if not self.judged:
            return ""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return "inside" if low <= measured <= high else "outside"


@dataclass(frozen=True)
class Estimate:
    """A measured value, with half the width of its 95% interval where it is a sample's."""

    value: float
    half: float | None = None


Measured = dict[str, Estimate]
"""What a run measured, by the name of the quantity."""


@dataclass(frozen=True)
class Job:
    """What a run is asked for.

    Attributes:
        seed: Of whatever is random and not fixed by the protocol.
        smoke: Run the same code on a hundredth of the budget.
        folder: Where a run that can be resumed keeps what is done.
    """

    seed: int
    smoke: bool
    folder: Path


@dataclass(frozen=True)
class Reproduction:
    """A published result and how to measure it.

    Attributes:
        number: R1, R2, ...
        key: Name on the command line.
        title: One line for the list.
        claim: What the source says.
        protocol: What is done here, so that somebody else could do it.
        source: Where the protocol and the published numbers stand.
        quantities: What is measured, in the order of the table.
        run: Measures every quantity.
        settings: What the run is made with, for the record; an experiment by a name of its own.
        comparison: Why the numbers are compared with the published ones and reproduce none, where
            something that matters is another than the source's.
        note: What a reader of the numbers must know.
        resumes: Whether a run that was killed goes on from its folder.
    """

    number: str
    key: str
    title: str
    claim: str
    protocol: str
    source: str
    quantities: tuple[Quantity, ...]
    run: Callable[[Job], Measured]
    settings: Mapping[str, Any] = field(default_factory=dict)
    comparison: str = ""
    note: str = ""
    resumes: bool = False
