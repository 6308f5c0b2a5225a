"""`report.html`: a page about a run, a sweep or several of them that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.files import write_bytes
from experiments.reports import run, sweep, versus
from experiments.reports.html import Section, page


def write_report(
    folders: Path | Sequence[Path],
    path: Path | None = None,
    result: dict[str, Any] | None = None,
) -> Path:
    """Write the report of one folder, or one page for several.

    Args:
        folders: Run folders and folders of sweeps; what is missing in them is said in the page.
        path: HTML file; by default `report.html` in the folder (several: beside the first).
        result: Of a single run folder, what its `result.json` will hold.

    Returns:
        The file written.

    Raises:
        UserError: If a folder does not exist, or a file in it cannot be read.
    """
    found = [folders] if isinstance(folders, Path) else list(folders)
    for folder in found:
        if not folder.is_dir():
            raise UserError(f"no run folder {folder}; see runs/ for those there are")
    several = len(found) > 1
    if path is None:
        path = (found[0].resolve().parent if several else found[0]) / "report.html"
    parts: list[tuple[str, Sequence[Section]]] = []
    lead = ""
    runs = [folder for folder in found if not sweep.is_sweep(folder)]
    if len(runs) > 1:
        parts.append(("Comparison", versus.sections(runs)))
    for folder in found:
        if sweep.is_sweep(folder):
            lead, sections = sweep.sections(folder)
        else:
            view = run.View(folder, result)
            lead, sections = run.lead(view), run.sections(view)
        if several and lead:
            sections = [Section("In short", lead), *sections]
        parts.append((folder.resolve().name if several else "", sections))
    title = f"{len(found)} runs" if several else found[0].resolve().name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, page(title, "" if several else lead, parts).encode())
    return path
