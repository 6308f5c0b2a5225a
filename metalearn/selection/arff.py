"""Attribute-relation files: a header of named, typed columns, then a row a line.

Names and values may be quoted by ' or " with backslash escapes, keywords are of any case, % starts
a comment line, an unquoted ? is a missing value.  Strings are read as they are, of any length.
Weka's definition of ARFF, without sparse rows, dates and relations, which ASlib does not use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

VALUE = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|((?!['"])[^,]*?))\s*(,|$)""")
ATTRIBUTE = re.compile(
    r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\S+))\s+(.+)""", re.IGNORECASE
)
ESCAPED = re.compile(r"\\(.)")
PLAIN = re.compile(r"[^\s,'\"{}%?\\]+")
NUMBERS = ("numeric", "real", "integer")

Cell = str | None


@dataclass(frozen=True)
class Arff:
    """What a file holds.

    Attributes:
        path: Where it was read.
        relation: Its name.
        names: Names of the columns.
        types: `numeric`, `string`, or the values of a column in braces.
        rows: Values as text; None: missing.
        lines: Line of each row in the file, from 1.
    """

    path: Path
    relation: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[list[Cell]]
    lines: list[int]

    def column(self, name: str) -> int:
        """Position of a column, whose name may be written in capitals.

        Raises:
            ValueError: If there is none of that name.
        """
        if name not in self.names and name.upper() in self.names:
            return self.names.index(name.upper())
        if name not in self.names:
            raise ValueError(f"{self.path}: no column {name}, only {', '.join(self.names[:5])}")
        return self.names.index(name)

    def texts(self, name: str) -> list[str]:
        """A column whose values are all known.

        Raises:
            ValueError: If there is none of that name, or a value is missing.
        """
        place, found = self.column(name), []
        for row, line in zip(self.rows, self.lines, strict=True):
            value = row[place]
            if value is None:
                raise ValueError(f"{self.path}, line {line}: {name} is missing; give a value")
            found.append(value)
        return found

    def numbers(self, name: str) -> list[float]:
        """A column of numbers; not a number where a value is missing.

        Raises:
            ValueError: If there is none of that name, or a value is no number.
        """
        place, found = self.column(name), []
        for row, line in zip(self.rows, self.lines, strict=True):
            try:
                found.append(float("nan" if row[place] is None else row[place] or ""))
            except ValueError:
                raise ValueError(
                    f"{self.path}, line {line}: {name} is {row[place]!r}; give a number, or ?"
                ) from None
        return found


def read(path: Path) -> Arff:
    """Read a file.

    Raises:
        ValueError: If it is missing or no ARFF file; with the line.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; a scenario needs it")
    relation, names, types = "", [], []
    rows: list[list[Cell]] = []
    lines: list[int] = []
    data = False
    for number, text in enumerate(path.read_text("utf-8", "replace").split("\n"), 1):
        line = text.strip()
        if not line or line.startswith("%"):
            continue
        where = f"{path}, line {number}"
        word = line.split(None, 1)[0].lower()
        if data or not line.startswith("@"):
            # Some files, and an example of the specification, leave @DATA out.
            data = bool(names)
            row = values(line, where)
            if len(row) != len(names):
                raise ValueError(f"{where}: {len(row)} values for {len(names)} columns")
            rows.append(row)
            lines.append(number)
        elif word == "@relation":
            relation = unquoted(line[len(word) :].strip())
        elif word == "@attribute":
            name, kind = attribute(line, where)
            names.append(name)
            types.append(kind)
        elif word == "@data":
            data = True
        else:
            raise ValueError(f"{where}: unknown keyword {word}; know @relation, @attribute, @data")
    if not names:
        raise ValueError(f"{path}: no @ATTRIBUTE; it is no ARFF file")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path}: two columns are called {twice}; rename one")
    return Arff(path, relation, tuple(names), tuple(types), rows, lines)


def attribute(line: str, where: str) -> tuple[str, str]:
    """Name and type of a column.

    Example:
        >>> attribute("@ATTRIBUTE 'run status' {ok, timeout}", "file, line 1")
        ('run status', '{ok, timeout}')
        >>> attribute("@attribute size REAL", "file, line 1")
        ('size', 'numeric')
    """
    match = ATTRIBUTE.fullmatch(line)
    if not match:
        raise ValueError(f"{where}: no name and type in {line[:60]!r}")
    kind = match[4].strip()
    if kind.lower() in NUMBERS:
        kind = "numeric"
    elif not kind.startswith("{"):
        kind = kind.split()[0].lower()
    return _chosen(match), kind


def values(line: str, where: str) -> list[Cell]:
    r"""The values of a row.

    Example:
        >>> values("a b, 'x, y',?, '?',\"it's\", 'it\\'s'", "file, line 1")
        ['a b', 'x, y', None, '?', "it's", "it's"]
    """
    if "'" not in line and '"' not in line:
        parts = [part.strip() for part in line.split(",")]
        return [None if part == "?" else part for part in parts]
    found: list[Cell] = []
    place = 0
    while True:
        match = VALUE.match(line, place)
        if not match:
            raise ValueError(f"{where}: a quote is not closed, or text follows it")
        found.append(None if match[3] == "?" else _chosen(match))
        place = match.end()
        if not match[4]:
            return found


def _chosen(match: re.Match[str]) -> str:
    """The one of three groups that matched: in single quotes, in double ones, in none."""
    quoted = match[1] if match[1] is not None else match[2]
    return match[3] if quoted is None else ESCAPED.sub(r"\1", quoted)


def unquoted(text: str) -> str:
    """Without the quotes around it, if any.

    Example:
        >>> unquoted("'a b'"), unquoted("a b")
        ('a b', 'a b')
    """
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def quoted(text: str) -> str:
    r"""A name or a value as a file has it.

    Example:
        >>> quoted("plain/name-1.5"), quoted("it's, well"), quoted("?")
        ('plain/name-1.5', "'it\\'s, well'", "'?'")
    """
    if PLAIN.fullmatch(text) and not text.startswith("@"):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def write(
    path: Path,
    relation: str,
    columns: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[str | float | None]],
) -> None:
    """Write a file that `read` reads back.

    Args:
        path: Where to.
        relation: Its name.
        columns: Name and type of each column.
        rows: Values; None or not a number: missing.  Numbers keep all their digits.

    Raises:
        ValueError: If a name or a value has a line break, which the format cannot hold.
    """
    lines = [f"@RELATION {quoted(relation)}", ""]
    lines += [f"@ATTRIBUTE {quoted(name)} {kind}" for name, kind in columns]
    lines += ["", "@DATA"]
    lines += [",".join(map(_text, row)) for row in rows]
    broken = next((line for line in lines if "\n" in line or "\r" in line), None)
    if broken:
        raise ValueError(f"{path}: a line break in {broken[:60]!r}; take it out")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _text(value: str | float | None) -> str:
    if value is None or value != value:
        return "?"
    return quoted(value) if isinstance(value, str) else repr(float(value)).removesuffix(".0")
