"""The figures of a result, as files of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.analysis.drawing import save
from experiments.analysis.ranks import critical_difference, differences
from experiments.figures import adaptation_curves, scores


def drawn(result: dict[str, Any], folder: Path, title: str) -> list[Path]:
    """Draw curves and scores, on each family where there are several, and the ranks over these."""
    files = []
    names = list(result["families"]) if "families" in result else [""]
    for family in names:
        end, head = (f"-{family}", f"{family}, {title}") if family else ("", title)
        curves, rows = (
            [row for row in result[part] if family in ("", row["family"])]
            for part in ("curves", "rows")
        )
        files.append(adaptation_curves(curves, folder / f"curves{end}.png", title=head))
        files.append(scores(rows, folder / f"scores{end}.png", title=head))
    if result.get("across"):
        ranks = critical_difference(result["across"], title)
        files.append(save(ranks, folder / "critical-difference.png"))
    if result.get("families") and result["comparisons"]:
        files.append(save(differences(result, title), folder / "differences.png"))
    return files
