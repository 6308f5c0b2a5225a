"""Examples from Hugging Face `datasets`: the hub, a saved data set, or a local folder of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.episode import Example, LabelKind, TaskError
from tasks.sources.files import Row, did_you_mean, find, to_examples


def load_examples(
    name_or_path: str,
    *,
    subset: str = "",
    split: str | None = None,
    kind: LabelKind = "class",
    text: str = "text",
    label: str = "label",
    text_b: str = "",
) -> list[Example]:
    """The records of a data set, numbered from 0 in their order.

    Args:
        name_or_path: A local folder (saved by `save_to_disk`, or holding data files) or data file,
            also looked up in the data folder; else a name on the hub.
        subset: Configuration of the data set; empty: its default.
        split: Part of the data set; None: all parts one after the other, because meta-splits are
            made of classes and not of the source's own parts.
        kind: What a label is.
        text: Column of the text; for kind "token" a list of words, or words joined by spaces.
        label: Column of the label, the tags or the target; numbers of a ClassLabel become names.
        text_b: Column of the second text of a pair; empty: none.

    Raises:
        TaskError: If it is neither on disk nor reachable, or a split, subset or column is missing.
    """
    parts = _load(name_or_path, subset)
    if split is not None and split not in parts:
        raise TaskError(
            f"{name_or_path} has no split {split!r}{did_you_mean(split, parts)}; "
            f"name one of: {', '.join(parts)}"
        )
    chosen = parts if split is None else {split: parts[split]}
    columns = [column for column in (text, label, text_b) if column]
    return to_examples(_rows(chosen, columns), name_or_path, kind, text, label, text_b)


def _load(name: str, subset: str) -> dict[str, Any]:
    """The parts of a data set by name."""
    import datasets  # slow to import, and needed by no other source
    from datasets.exceptions import DatasetsError

    try:
        path = find(name)
    except TaskError:
        path = None
    try:
        if path is None:
            loaded = datasets.load_dataset(name, subset or None)
        elif _is_saved(path):
            if subset:
                raise TaskError(f"{name} is a saved data set without subsets; leave out {subset!r}")
            loaded = datasets.load_from_disk(str(path))
        elif path.is_file():
            # `datasets` takes a folder, and finds the reader by the ending of the file.
            loaded = datasets.load_dataset(str(path.parent), subset or None, data_files=path.name)
        else:
            loaded = datasets.load_dataset(str(path), subset or None)
    except (OSError, ValueError, DatasetsError) as error:
        if isinstance(error, TaskError):
            raise
        if path is None and isinstance(error, OSError):
            raise TaskError(
                f"data set {name!r} is neither on disk nor reachable on the Hugging Face hub; "
                "correct the name, or give a local folder"
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise TaskError(f"cannot load the data set {name!r}: {reason}") from error
    if isinstance(loaded, dict):
        return {str(part): table for part, table in loaded.items()}
    return {str(loaded.split or "train"): loaded}


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote it."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _rows(parts: dict[str, Any], columns: list[str]) -> Iterator[Row]:
    for part, table in parts.items():
        # Other columns (images, audio) are not decoded; a missing one is reported with all names.
        if set(columns) <= set(table.column_names):
            table = table.select_columns(columns)
        decoders = {name: _decoder(feature) for name, feature in table.features.items()}
        for number, record in enumerate(table, start=1):
            row = {name: decoders[name](value) for name, value in record.items()}
            yield f"{part} row {number}", row


def _decoder(feature: Any):
    """A function from stored values to label names, for a ClassLabel or a list of them."""
    from datasets import ClassLabel

    inner = getattr(feature, "feature", feature)
    if not isinstance(inner, ClassLabel):
        return lambda value: value

    def name(value: Any) -> Any:
        if isinstance(value, list):
            return [name(item) for item in value]
        # -1 marks a hidden label in the benchmarks of the hub.
        return None if value is None or value < 0 else inner.int2str(value)

    return name
