"""The figures of a run, as files: those that every run draws, and the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.analysis.calibration import reliability_figure
from experiments.analysis.comparisons import task_ranks
from experiments.analysis.confusion import confusion_figure, confusion_table
from experiments.analysis.curves import cost_figure, shots_figure
from experiments.analysis.drawing import save
from experiments.analysis.predictions import final_predictions, final_scores, where
from experiments.analysis.ranks import critical_difference, differences
from experiments.analysis.tables import write_tables
from experiments.errors import UserError
from experiments.figures import adaptation_curves, scores
from experiments.files import read_json
from experiments.report import write_report


def drawn(result: dict[str, Any], folder: Path, title: str) -> list[Path]:
    """Draw curves over the inner steps and scores: what every run has.

    Where there are several families, each has its own, and there are two more: ranks over the
    families (`critical-difference.png`), and the differences to the reference on each.

    Args:
        result: Content of a `result.json`.
        folder: Where the files go.
        title: Title of the figures.
    """
    files = []
    for family, end, head in _families(result, title):
        curves, rows = (
            [row for row in result[part] if row["family"] == family] for part in ("curves", "rows")
        )
        files.append(adaptation_curves(curves, folder / f"curves{end}.png", title=head))
        files.append(scores(rows, folder / f"scores{end}.png", title=head))
    if result.get("across"):
        ranks = critical_difference(result["across"], title)
        files.append(save(ranks, folder / "critical-difference.png"))
    if "families" in result and result["comparisons"]:
        files.append(save(differences(result, title), folder / "differences.png"))
    return files


def analyse(run: Path) -> list[Path]:
    """Write the tables of a finished run, draw costs, shots, ranks, calibration and confusion.

    The report is made again: it shows them.

    Args:
        run: A finished run folder; figures go into its `figures/`, on each family its own.

    Returns:
        The files: see `experiments.analysis.tables`; `costs`, `shots` (where there are several
        numbers), `ranks` (over tasks), `reliability` and `confusion` (of the best learner at the
        fewest shots).

    Raises:
        UserError: If the run is not finished.
    """
    if not (run / "result.json").exists():
        raise UserError(f"{run} has no result.json; finish the run with --resume")
    result = read_json(run / "result.json")
    files = write_tables(run, result)
    folder = run / "figures"
    predictions, finals = final_predictions(run), final_scores(run)
    for family, end, head in _families(result, f"{result['experiment']}: {result['description']}"):
        rows = [row for row in result["rows"] if row["family"] == family]
        files.append(save(cost_figure(result, head, family), folder / f"costs{end}.png"))
        all_shots = sorted({row["shots"] for row in rows})
        if len(all_shots) > 1:
            files.append(save(shots_figure(result, head, family), folder / f"shots{end}.png"))
        if ranks := task_ranks(finals, family):
            figure = critical_difference(ranks, head, "tasks")
            files.append(save(figure, folder / f"ranks{end}.png"))
        here = where(predictions, family=family)
        if len(here):
            figure = reliability_figure(here, head, family)
            files.append(save(figure, folder / f"reliability{end}.png"))
            few = [row for row in rows if row["shots"] == all_shots[0]]
            best = max(few, key=lambda row: row["accuracy"]["mean"])["learner"]
            figure = confusion_figure(confusion_table(here), head, best, all_shots[0], family)
            files.append(save(figure, folder / f"confusion{end}.png"))
    return [*files, write_report(run)]


def _families(result: dict[str, Any], title: str) -> list[tuple[str, str, str]]:
    """Each family with the end of its files' names and its title."""
    names = list(dict.fromkeys(row["family"] for row in result["rows"]))
    if "families" not in result:
        return [(name, "", title) for name in names]
    return [(name, f"-{name}", f"{name}, {title}") for name in names]
