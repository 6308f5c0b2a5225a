"""A record of measurements as a table in Markdown.

Seconds are those of all timed steps (median, least and most): of the clock, or of the processor
where a single thread of it has worked; ratios are taken round by round to
the best of the rows that others are compared with, and shown as their median, least and most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import Any

Record = dict[str, Any]
Row = dict[str, Any]
HEADERS = (
    "",
    "s/step",
    "least to most",
    "time to {best}",
    "peak MB",
    "peak to {best}",
    "MB before",
    "first s",
    "gradient apart",
)


def markdown(record: Record) -> str:
    """The table of a record.

    Example:
        >>> print(markdown({"figure": "copies", "rows": [], "environment": {}}).splitlines()[0])
        |  | a clone adds |
    """
    if record["figure"] == "copies":
        return _copies(record)
    record = at_one_thread(record)
    best = {"packing": "padded", "adjoint": "reverse"}.get(record["figure"], "best peer")
    counted = any("flops" in done for row in record["rows"] for done in row["rounds"])
    headers = [name.format(best=best) for name in HEADERS] + ["of matrix rate"] * counted
    lines = [headers, [":--", *["--:"] * (len(headers) - 1)]]
    groups = dict.fromkeys(row["case"]["group"] for row in record["rows"])
    for group in groups:
        rows = [row for row in record["rows"] if row["case"]["group"] == group]
        lines.append([f"**{group}**", *[""] * (len(headers) - 1)])
        lines += [_cells(row, rows, counted) for row in rows]
    return _joined(lines) + f"\n{scope(record)}\n"


def _cells(row: Row, rows: Sequence[Row], counted: bool) -> list[str]:
    name, rounds = row["case"]["name"], row["rounds"]
    if not rounds:
        reason = row.get("error") or row.get("left_out") or "not measured"
        return [name, reason, *[""] * (len(HEADERS) - 2 + counted)]
    seconds = [s for done in rounds for s in done["seconds"]]
    apart = [done["difference"] for done in rounds if done["difference"] is not None]
    cells = [
        name,
        _digits(median(seconds)),
        f"{_digits(min(seconds))} to {_digits(max(seconds))}",
        _ratio(row, rows, time_of),
        f"{median(map(peak_of, rounds)) / 1e6:.0f}",
        _ratio(row, rows, peak_of),
        f"{median(done['resident'] for done in rounds) / 1e6:.0f}",
        _digits(median(done["first"] for done in rounds)),
        f"{max(apart):.0e}" if apart else "-",
    ]
    if counted:
        shares = [d["flops"] / time_of(d) / d["matrix_rate"] for d in rounds if "flops" in d]
        cells.append(f"{100 * median(shares):.0f}%" if shares else "-")
    return cells


def at_one_thread(record: Record) -> Record:
    """The record with the processor's seconds where one thread of a CPU has worked.

    They are those of the clock on an idle machine, and other processes disturb them less.
    """
    here = record["environment"]
    if not (here.get("threads") == 1 and here.get("device") == "cpu"):
        return record
    rows = [
        row
        | {"rounds": [d | {"seconds": d.get("cpu_seconds", d["seconds"])} for d in row["rounds"]]}
        for row in record["rows"]
    ]
    return record | {"rows": rows, "clock": "the processor's seconds"}


def time_of(done: Row) -> float:
    """Seconds of a step in one round."""
    return mean(done["seconds"])


def peak_of(done: Row) -> float:
    """Bytes in one round: of the accelerator where there is one, else of the whole process."""
    return done.get("device_peak", done["peak"])


def best_of(rows: Sequence[Row], figure: Callable[[Row], float]) -> Row | None:
    """Of the rows that others are compared with, the one with the smallest median figure."""
    candidates = [row for row in rows if row["case"]["reference"] and row["rounds"]]
    return min(candidates, key=lambda row: median(map(figure, row["rounds"])), default=None)


def _ratio(row: Row, rows: Sequence[Row], figure: Callable[[Row], float]) -> str:
    best = best_of(rows, figure)
    if best is None:
        return "-"
    if best is row:
        return "1"
    theirs = {done["round"]: figure(done) for done in best["rounds"]}
    ratios = [figure(d) / theirs[d["round"]] for d in row["rounds"] if d["round"] in theirs]
    if not ratios:
        return "-"
    return f"{median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def _digits(value: float) -> str:
    return f"{value:.1f}" if value >= 100 else f"{value:.3g}"


def _copies(record: Record) -> str:
    lines = [["", "a clone adds"], [":--", "--:"]]
    for row in record["rows"]:
        found = [f"{done['bytes'] / 1e6:,.1f} MB" for done in row["rounds"]]
        lines.append([row["case"]["name"], found[0] if found else row.get("error", "-")])
    sizes = {done["model_bytes"] for row in record["rows"] for done in row["rounds"]}
    model = "".join(f"\nThe model itself: {size / 1e6:,.1f} MB.\n" for size in sorted(sizes))
    return _joined(lines) + model


def scope(record: Record) -> str:
    """How and where the figures were measured, in words."""
    here = record["environment"]
    rounds = max((len(row["rounds"]) for row in record["rows"]), default=0)
    revision = ((here.get("git") or {}).get("revision") or "unknown")[:9]
    device = here["device"] if here["device"] != "cpu" else here.get("cpu", "cpu")
    packages = ", ".join(f"{n} {v}" for n, v in here["packages"].items() if v and n != "wandb")
    clock = record.get("clock", "seconds of the clock")
    return (
        f"Up to {rounds} rounds of {record['steps']} steps a row, each in a process of its own "
        f"after {record['warmup']} to warm up; {clock}; ratios within a round, [least, most]; "
        f"{device}, threads: {here['threads']}; revision {revision}; {packages}."
    )


def _joined(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
