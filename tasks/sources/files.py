"""Examples from jsonl, jsonl.gz, csv and parquet files with named columns."""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.episode import Example, LabelKind, TaskError

ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
"""Names of files with records end so."""
Row = tuple[str, dict[str, Any]]
"""Where a record stands ("line 3") and its columns."""


def data_folder() -> Path:
    """The folder METALEARN_DATA, by default `../shared/data` beside the project."""
    default = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return Path(os.environ.get("METALEARN_DATA") or default)


def find(path: str | Path) -> Path:
    """A path as it is or, if relative, looked up from here and then in the data folder.

    Raises:
        TaskError: If it is in neither place.
    """
    for candidate in (Path(path), data_folder() / path):
        if str(path) and candidate.exists():
            return candidate
    raise TaskError(
        f"no file {str(path)!r} here or in the data folder {data_folder()}; "
        "correct the path, or set METALEARN_DATA to the folder that holds it"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as a question in parentheses; nothing if none is near.

    Example:
        >>> did_you_mean("lable", ["text", "label"])
        " (did you mean 'label'?)"
    """
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def read_examples(
    path: str | Path,
    *,
    kind: LabelKind = "class",
    text: str = "text",
    label: str = "label",
    text_b: str = "",
    labeled: bool = True,
    problems: list[str] | None = None,
) -> list[Example]:
    """The records of a file, numbered from 0 in the order of the file.

    Args:
        path: A .jsonl, .jsonl.gz, .csv or .parquet file; see `find` for relative paths.  Without
            labels also a .txt file, one text a line.
        kind: What a label is.
        text: Column of the text; for kind "token" words joined by spaces, or a list of words.
        label: Column of the class name (kind "class"); of the tags as a list, or joined by spaces
            (kind "token"); of the target text or a list of such texts (kind "sequence").
        text_b: Column of the second text of a pair; empty: none.
        labeled: Whether every record needs a label; if not, a class that is there is still read.
        problems: Takes up what is wrong with single records, which are then left out.  None: the
            first one is raised.

    Raises:
        TaskError: Naming the file, the line (or row) and the remedy.
    """
    file = find(path)
    readers: dict[str, Callable[[Path], Iterator[Row]]] = dict(
        zip(ENDINGS, (_read_jsonl, _read_jsonl, _read_csv, _read_parquet), strict=True)
    )
    if not labeled:
        readers[".txt"] = lambda file: _read_lines(file, text)
    reader = next((readers[end] for end in readers if file.name.endswith(end)), None)
    if reader is None or not file.is_file():
        raise TaskError(f"cannot read {path}: give a file that ends in {', '.join(readers)}")
    try:
        return to_examples(reader(file), str(path), kind, text, label, text_b, labeled, problems)
    except UnicodeDecodeError as error:
        where = f"line {_undecodable(file)}: " if not file.name.endswith(".gz") else ""
        byte = error.object[error.start]
        raise TaskError(
            f"{path}, {where}byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        reason = str(error).splitlines()[0]
        raise TaskError(f"cannot read {path}: {reason}; the file is damaged") from error


def _undecodable(path: Path) -> int:
    """The number of the first line that is not UTF-8."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1


def _read_jsonl(path: Path) -> Iterator[Row]:
    opener = gzip.open if path.name.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise TaskError(
                    f"{path}, line {number}: not JSON ({error}); correct or remove the line"
                ) from error
            if not isinstance(record, dict):
                raise TaskError(f"{path}, line {number}: not a JSON object; correct the line")
            yield f"line {number}", record


def _read_lines(path: Path, column: str) -> Iterator[Row]:
    with open(path, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"line {number}", {column: line.rstrip("\n")}


def _read_csv(path: Path) -> Iterator[Row]:
    with open(path, newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        try:
            for record in reader:
                yield f"line {reader.line_num}", record
        except csv.Error as error:
            raise TaskError(f"{path}, line {reader.line_num}: {error}; correct it") from error


def _read_parquet(path: Path) -> Iterator[Row]:
    # Imported here: it takes 24 MB in every process, and few read such files.
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield f"row {number}", record
    except pa.ArrowInvalid as error:
        raise OSError(str(error)) from error


def to_examples(
    rows: Iterable[Row],
    source: str,
    kind: LabelKind,
    text: str,
    label: str,
    text_b: str,
    labeled: bool = True,
    problems: list[str] | None = None,
) -> list[Example]:
    """Records with named columns as examples; see `read_examples` for the arguments.

    Raises:
        TaskError: If there is no record, or a column is missing, empty or of the wrong type.
    """
    if kind == "value":
        raise TaskError(f"{source}: files hold no kind 'value'; use class, token or sequence")
    examples: list[Example] = []
    pairs = False
    record: dict[str, Any] = {}
    for where, record in rows:
        place = f"{source}, {where}"
        for column in (text, label) if labeled else (text,):
            if column not in record:
                raise _missing(place, column, record)
        # A source may mix pairs with single texts, so a record need not have the second column.
        second = record.get(text_b) if text_b else None
        pairs = pairs or text_b in record
        target = record.get(label)
        try:
            if None in record:  # what csv has beyond the columns of the header
                raise TaskError(f"{place}: more columns than the header has; put texts in quotes")
            example = _example(place, len(examples), kind, record[text], second, target, labeled)
        except TaskError as error:
            if problems is None:
                raise
            problems.append(str(error))
            continue
        examples.append(example)
    if not examples:
        raise TaskError(f"{source} has no records; give a file with at least one")
    if text_b and not pairs:
        raise _missing(source, text_b, record)
    return examples


def _missing(place: str, column: str, record: dict[str, Any]) -> TaskError:
    present = [str(name) for name in record if name is not None]
    return TaskError(
        f"{place}: no column {column!r}{did_you_mean(column, present)}; "
        f"name one of: {', '.join(present)}"
    )


def _example(
    place: str, number: int, kind: LabelKind, text: Any, second: Any, label: Any, labeled: bool
) -> Example:
    """One record as an example; `place` names it in errors."""
    words = _strings(place, "text", text)
    if not any(word.strip() for word in words):
        raise TaskError(f"{place}: the text is empty; remove the record or fill it in")
    if kind != "token" and not isinstance(text, str):
        raise TaskError(f"{place}: the text is no string; name a column of texts")
    text = " ".join(words)
    text_b = " ".join(_strings(place, "second text", second)) or None
    labels = _strings(place, "label", label)
    if not any(part.strip() for part in labels):
        if not labeled:
            return Example(number, text, text_b)
        raise TaskError(f"{place}: the label is missing; remove the record or fill it in")
    if kind == "class":
        if isinstance(label, list | tuple):
            raise TaskError(f"{place}: the label is a list; use kind 'token' or 'sequence'")
        return Example(number, text, text_b, label=labels[0].strip())
    if kind == "sequence":
        return Example(number, text, text_b, targets=tuple(labels))
    words = text.split()
    tags = labels[0].split() if len(labels) == 1 else labels
    if len(tags) != len(words):
        raise TaskError(f"{place}: {len(tags)} tags for {len(words)} words; give one tag a word")
    return Example(number, " ".join(words), token_labels=tuple(tags))


def _strings(place: str, what: str, value: Any) -> list[str]:
    """A column as strings: numbers become strings, None nothing."""
    if value is None:
        return []
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(item, dict | list | tuple) or item is None for item in values):
        raise TaskError(f"{place}: the {what} is neither a string nor a list of strings")
    return [str(item) for item in values]
