"""The embedded task family: generated requests in 72 intents of 12 domains, without a download.

A text is a core phrase that carries the intent, wrapped in an opener, an aside and a closer that
all domains share and that say nothing about it.  In templates `(a|b)` is a choice and `{slot}` a
value of a slot; both may nest.  Whole domains go to a meta-split, so that a test task asks for
distinctions that were never trained.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from tasks.episode import Example, SplitName
from tasks.sources.builtin import leisure, living, services, stock
from tasks.sources.records import RecordFamily

SEED = 0
TEXTS_PER_INTENT = 60
WORDS = (5, 25)
"""Shortest and longest text, in words."""

_PHRASES = {**services.INTENTS, **living.INTENTS, **leisure.INTENTS}

DOMAINS: dict[str, tuple[str, ...]] = {
    domain: tuple(intents) for domain, intents in _PHRASES.items()
}
"""The intents of each domain."""

SPLIT_DOMAINS: dict[SplitName, tuple[str, ...]] = {
    "train": ("telecom", "shopping", "education", "fitness", "weather", "music", "calendar"),
    "valid": ("cooking", "health"),
    "test": ("banking", "smart_home", "travel"),
}
"""The domains of each meta-split."""

_CHOICE = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")


class _Writer:
    """Draws texts from templates.

    Only raw words of the bit generator are used: numpy keeps them the same over versions and
    platforms, which it does not promise of `Generator.choice`.
    """

    def __init__(self, seed: int, intent: str) -> None:
        # Keyed by name: a new intent leaves the texts of the others as they are.
        self.bits = np.random.PCG64([seed, *intent.encode()])

    def pick(self, options: tuple[str, ...] | list[str]) -> str:
        """One of `options`, uniformly."""
        return options[int(self.bits.random_raw()) % len(options)]

    def chance(self, percent: int) -> bool:
        """True in `percent` of 100 cases."""
        return int(self.bits.random_raw()) % 100 < percent

    def fill(self, template: str) -> str:
        """A template with every choice made and every slot filled."""
        while match := _CHOICE.search(template):
            chosen = self.pick(match[1].split("|"))
            template = template[: match.start()] + chosen + template[match.end() :]
        while match := _SLOT.search(template):
            # A value occurs once: nobody flies from Oslo to Oslo.
            values = [value for value in stock.SLOTS[match[1]] if value not in template]
            value = self.pick(values)
            template = template[: match.start()] + value + template[match.end() :]
        return template

    def text(self, template: str) -> str:
        """A whole request around one core template."""
        sentences = [template]
        if self.chance(25):
            sentences.insert(int(self.chance(50)), self.pick(stock.ASIDES))
        if self.chance(25):
            sentences.append(self.pick(stock.CLOSERS))
        if self.chance(40):
            sentences[0] = f"{self.pick(stock.OPENERS)} {sentences[0]}"
        sentences = [self.fill(sentence) for sentence in sentences]
        if self.chance(35):  # the careless register: one run of words
            return " ".join(sentences).lower().replace("?", "").replace(",", "")
        return " ".join(_sentence(part) for part in sentences)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def _spelled(text: str) -> str:
    # Two texts that differ only in case and punctuation would be the same to a learner.
    return re.sub(r"\W+", " ", text.lower()).strip()


@cache
def _generate(seed: int) -> tuple[Example, ...]:
    examples: list[Example] = []
    seen: set[str] = set()
    for intents in _PHRASES.values():
        for intent, templates in intents.items():
            writer = _Writer(seed, intent)
            for number in range(TEXTS_PER_INTENT):
                template = templates[number % len(templates)]
                text = writer.text(template)
                while _spelled(text) in seen or not WORDS[0] <= len(text.split()) <= WORDS[1]:
                    text = writer.text(template)
                seen.add(_spelled(text))
                examples.append(Example(id=len(examples), text=text, label=intent))
    return tuple(examples)


def records(seed: int = SEED) -> list[Example]:
    """All texts of the family, a pure function of the seed: 60 an intent, none twice.

    Args:
        seed: Every seed gives other texts of the same intents.

    Example:
        >>> examples = records()
        >>> len(examples), examples[0].label
        (4320, 'report_lost_card')
    """
    return list(_generate(seed))


def splits() -> dict[SplitName, tuple[str, ...]]:
    """Intents of each meta-split; whole domains are held out.

    Example:
        >>> {split: len(intents) for split, intents in splits().items()}
        {'train': 42, 'valid': 12, 'test': 18}
    """
    return {
        split: tuple(intent for domain in domains for intent in DOMAINS[domain])
        for split, domains in SPLIT_DOMAINS.items()
    }


def builtin() -> RecordFamily:
    """The embedded family, ready to draw tasks from."""
    return RecordFamily("builtin", "class", records(), splits())
