"""Results kept as data, and the tables that the README shows.

    python -m experiments.results store RUN ...   copy RUN/result.json to experiments/results/
    python -m experiments.results tables          write the README's tables from what is kept

The README's tables lie between `<!-- results: NAME -->` and `<!-- end -->`; they are never edited
by hand, and a test holds them against the data.  NAME is a kept result, `reproductions` for the
records of `metalearn reproduce` in experiments/results/papers/, `benchmarks/NAME` for a record
of `python -m experiments.benchmarks`, or `selection/NAME` for a run of `metalearn select evaluate`,
or for a matrix of `metalearn select matrix`, in a folder of that name.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from experiments.analysis.drawing import save
from experiments.analysis.ranks import critical_difference, differences
from experiments.benchmarks.tables import markdown as measurements
from experiments.errors import UserError
from experiments.figures import PALETTE, adaptation_curves, scores
from experiments.files import read_json, write_bytes, write_json
from experiments.reproduce import markdown as reproductions
from experiments.selection.figures import draw
from experiments.selection.summary import markdown as choices
from experiments.selection.tables import CELLS
from experiments.selection.view import keep as keep_matrix
from experiments.selection.view import markdown as learners
from experiments.tables import family_table, markdown, markdown_table, rank_notes, rises, scope

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "experiments" / "results"
README = ROOT / "README.md"
REPRODUCTIONS = "reproductions"
PAPERS = "papers"
BENCHMARKS = "benchmarks/"
SELECTION = "selection/"
MARK = re.compile(r"(<!-- results: (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def store(run: Path, kept: Path = KEPT) -> Path:
    """Keep the result of a finished run, under the name of its experiment.

    Rows, comparisons, choices, settings and environment are kept, and the figure of the curves, or
    of the scores where there are more learners than curves can show; the records of single
    predictions stay in the run folder.  A matrix is kept under the name of its folder.

    Raises:
        UserError: If the run is not finished.
    """
    if (run / CELLS).exists():
        path = kept / SELECTION / f"{run.resolve().name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        return keep_matrix(run, path)
    if not (run / "result.json").exists():
        raise UserError(f"{run} has no result.json; finish it with metalearn train ... --resume")
    result = read_json(run / "result.json")
    kept.mkdir(exist_ok=True)
    if "selection" in result:
        path = kept / SELECTION / f"{run.resolve().name}.json"
        path.parent.mkdir(exist_ok=True)
        write_json(path, result)
        draw(result, path.parent, f"{path.stem}-")
        return path
    path = kept / f"{result['experiment']}.json"
    write_json(path, result)
    title = f"{result['experiment']}: {result['description']}"
    figure = path.with_suffix(".png")
    if result.get("across"):
        save(critical_difference(result["across"], title), figure)
        save(differences(result, title), path.with_name(f"{path.stem}-differences.png"))
    elif _crowded(result):
        scores(result["rows"], figure, title=title)
    else:
        adaptation_curves(result["curves"], figure, title=title)
    return path


def table(result: dict[str, Any]) -> str:
    """What the README shows of a result: its table and what it stands on."""
    revision = (result["environment"].get("git") or {}).get("revision") or "unknown"
    device = f"{result['environment']['device']}, {result['environment']['threads']} threads"
    notes = [f"{scope(result)}; revision {revision[:9]}, {device}"]
    if result.get("across"):
        notes += rank_notes(result)
        return f"{markdown(family_table(result))}\n{'; '.join(notes)}.\n"
    if not _crowded(result):
        notes += rises(result)
    return f"{markdown_table(result)}\n{'; '.join(notes)}.\n"


def benchmark(record: dict[str, Any]) -> str:
    """The table of a record of measurements.

    Raises:
        UserError: If it is of a smoke test.
    """
    if record["smoke"]:
        raise UserError(
            f"the record of {record['figure']} is of a smoke test; "
            f"run python -m experiments.benchmarks {record['figure']}"
        )
    return measurements(record)


def selection(record: dict[str, Any]) -> str:
    """The table of judged policies, or that of a matrix."""
    return choices(record) if "selection" in record else learners(record)


def _crowded(result: dict[str, Any]) -> bool:
    """Whether there are more learners than curves can show."""
    return len({row["learner"] for row in result["rows"]}) > len(PALETTE)


def fill(text: str, kept: Path = KEPT) -> str:
    """The README with its tables made anew.

    Raises:
        UserError: If it names a result that is not kept.
    """

    def replace(match: re.Match[str]) -> str:
        if match["name"] == REPRODUCTIONS:
            return f"{match[1]}{reproductions(kept / PAPERS)}{match[3]}"
        path = kept / f"{match['name']}.json"
        if not path.exists():
            raise UserError(f"README names the result {match['name']}, but {path} is missing")
        makers = {BENCHMARKS: benchmark, SELECTION: selection}
        make = makers.get(match["name"].rpartition("/")[0] + "/", table)
        return f"{match[1]}{make(read_json(path))}{match[3]}"

    return MARK.sub(replace, text)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.results", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    keep = commands.add_parser("store", help="keep the results of runs")
    keep.add_argument("runs", nargs="+", type=Path)
    commands.add_parser("tables", help="write the README's tables")
    arguments = parser.parse_args()
    try:
        if arguments.command == "store":
            for run in arguments.runs:
                print(store(run))
        else:
            write_bytes(README, fill(README.read_text(encoding="utf-8")).encode())
            print(README.name)
    except UserError as error:
        print(f"results: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
