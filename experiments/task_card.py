"""`metalearn tasks FOLDER`: check a folder of tasks, say what it holds, and write its card.

Everything that is wrong is told at once, a line each, and then no card is written.  A card is the
same for the same files and settings: it has the checksum of every file, and no date.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from experiments.config import BackboneSettings, Experiment, FamilySettings
from experiments.errors import UserError
from experiments.family import read_family
from experiments.files import write_bytes
from meta_models.backbone import load_backbone
from tasks.audit import Shared, Sizes, leak_problems, measure, shared
from tasks.episode import EpisodeShape, Example
from tasks.sources.folder import Splits, TaskFile, count_problems

MARK = "<!-- made by metalearn tasks -->"
SCORES = 20
"""So many distinct numbers as labels of a task are scores, not classes."""


def card(
    family: FamilySettings,
    shape: EpisodeShape,
    backbone: BackboneSettings,
    output: Path | None = None,
) -> Path:
    """Check a folder of tasks, print what it holds and write its card.

    Args:
        family: Folder, columns and meta-splits.
        shape: Shots and queries that every class must suffice for.
        backbone: Whose tokenizer counts tokens, and how many it reads.
        output: The card; None: `CARD.md` in the folder.

    Returns:
        The card.

    Raises:
        UserError: If there are problems, which are told before, or something else lies in the place
            of the card.
    """
    folder = Path(family.path)
    place = output or folder / "CARD.md"
    if place.is_dir() or (place.exists() and not place.read_text("utf-8").startswith(MARK)):
        raise UserError(f"{place} is no card of metalearn; name another file with --output")
    problems: list[str] = []
    tasks, splits = read_family(family, problems)
    problems += _problems(tasks, splits, shape)
    if problems:
        for problem in problems:
            print(" ".join(problem.split()), file=sys.stderr)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise UserError(f"{folder} has {count}, told above; there is no card until it has none")
    count_tokens = counter(load_backbone(backbone.name, device="meta").tokenizer)
    sizes = {task.name: measure(task, count_tokens, backbone.max_length) for task in tasks}
    text = _render(family, shape, backbone, tasks, splits, sizes, list(shared(tasks)))
    write_bytes(place, text.encode())
    Console().print(Markdown(text.split("## Use it")[0].replace(MARK, "")))
    return place


def counter(tokenizer: Any) -> Callable[[Sequence[Example]], list[int]]:
    """Counts the tokens of examples, special ones included, uncut.

    Args:
        tokenizer: A Hugging Face tokenizer.
    """

    def count(examples: Sequence[Example]) -> list[int]:
        pairs = [example.text_b or "" for example in examples]
        encoded = tokenizer(
            [example.text for example in examples],
            text_pair=pairs if any(pairs) else None,
            verbose=False,  # of texts that will be cut
        )
        return [len(ids) for ids in encoded["input_ids"]]

    return count


def _problems(tasks: Sequence[TaskFile], splits: Splits, shape: EpisodeShape) -> Iterator[str]:
    for task in tasks:
        labels = {str(example.label) for example in task.examples}
        if len(labels) >= SCORES and all(re.fullmatch(r"[-+]?\d*\.?\d+", one) for one in labels):
            yield (
                f"{task.path}: the labels are {len(labels)} different numbers; tasks of texts have "
                "classes, so name a column of classes, or make classes of the scores"
            )
        else:
            yield from count_problems(task, shape)
    yield from leak_problems(tasks, splits)


def _render(
    family: FamilySettings,
    shape: EpisodeShape,
    backbone: BackboneSettings,
    tasks: Sequence[TaskFile],
    splits: Splits,
    sizes: dict[str, Sizes],
    pairs: Sequence[Shared],
) -> str:
    where = {name: split for split, names in splits.items() for name in names}
    files = {task.name: hashlib.sha256(task.path.read_bytes()).hexdigest() for task in tasks}
    whole = hashlib.sha256(
        "".join(f"{name} {files[name]} {where[name]}\n" for name in sorted(files)).encode()
    ).hexdigest()
    examples = sum(size.examples for size in sizes.values())
    classes = sum(len(size.classes) for size in sizes.values())
    parts = ", ".join(f"{len(names)} {split}" for split, names in splits.items())
    lines = [
        MARK,
        f"# {family.name}",
        "",
        f"{len(tasks)} tasks ({parts}), {classes} classes, {examples:,} examples; every class has "
        f"at least {shape.shots} + {shape.queries} distinct texts. Checksum of all: `{whole}`.",
        "",
        "## Tasks",
        "",
        *_table(
            ("task", "split", "examples", "classes", "smallest / largest class", "tokens", "cut"),
            (
                (
                    task.name,
                    where[task.name],
                    f"{(size := sizes[task.name]).examples:,}",
                    len(size.classes),
                    f"{min(size.classes.values())} / {max(size.classes.values())}",
                    f"{size.tokens[0]:g}, at most {size.tokens[1]}",
                    size.cut,
                )
                for task in tasks
            ),
        ),
        "",
        f"Tokens are those of {backbone.name}, median and largest; a text of more than "
        f"{backbone.max_length} is cut.",
        "",
        "## Duplicates and leakage",
        "",
        *_table(
            ("task", "duplicates", "near duplicates", "texts of two classes"),
            (
                (name, size.duplicates, size.near, size.contradictions)
                for name, size in sizes.items()
            ),
        ),
        "",
        "Duplicates differ in case and white space alone, and a task draws one of them; near "
        "duplicates differ also in punctuation, accents or numbers. No labelled text is in two "
        "meta-splits.",
        "",
        *_shared_texts(pairs, where),
        "## Classes",
        "",
        *_table(
            ("task", "classes (examples)"),
            (
                (name, ", ".join(f"{label} ({n})" for label, n in size.classes.items()))
                for name, size in sizes.items()
            ),
        ),
        "",
        "## Use it",
        "",
        "```",
        *_commands(family, shape, backbone),
        "```",
        "",
        "An episode has classes of one task: N of them, or all where it has fewer. Meta-splits are "
        "of tasks: what is learned on some is judged on others.",
        "",
        "## Files",
        "",
        *_table(("file", "sha256"), ((task.path.name, f"`{files[task.name]}`") for task in tasks)),
        "",
    ]
    return "\n".join(lines)


def _shared_texts(pairs: Sequence[Shared], where: dict[str, Any]) -> list[str]:
    if not pairs:
        return ["No two tasks share a text.", ""]
    rows = (
        (
            pair.one,
            pair.other,
            "yes" if where[pair.one] != where[pair.other] else "",
            pair.texts,
            pair.near,
            pair.example[:60],
        )
        for pair in pairs
    )
    header = ("task", "and", "across splits", "texts in both", "nearly the same", "such as")
    return [*_table(header, rows), ""]


def _table(header: Sequence[str], rows: Any) -> Iterator[str]:
    yield _row(header)
    yield _row(["---"] * len(header))
    yield from map(_row, rows)


def _row(cells: Sequence[Any]) -> str:
    # A bar or a line break in a text would end its cell.
    return "| " + " | ".join(" ".join(str(c).replace("|", "\\|").split()) for c in cells) + " |"


def _commands(
    family: FamilySettings, shape: EpisodeShape, backbone: BackboneSettings
) -> Iterator[str]:
    usual = FamilySettings(source="folder", path=family.path, name=family.name)
    options = {
        f"--family.{name.replace('_', '-')}": value
        for name, value in family.model_dump().items()
        if name in ("source", "path", "name") or value != getattr(usual, name)
    }
    episodes = Experiment().episodes
    for name, now, default in (
        ("shots", shape.shots, episodes.shots[0]),
        ("queries", shape.queries, episodes.queries),
    ):
        if now != default:
            options[f"--episodes.{name}"] = now
    if backbone.name != BackboneSettings().name:
        options["--backbone.name"] = backbone.name
    words = [word for name, value in options.items() for word in (name, str(value))]
    yield shlex.join(["metalearn", "train", "quickstart", *words])
