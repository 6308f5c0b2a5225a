"""`report.html`: one page about one run, or several, that needs nothing but itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.files import read_json, write_bytes
from experiments.folder import CONFIG, ENVIRONMENT, flatten
from experiments.metrics import cell_name, read_metrics
from experiments.tables import bounds, cells, headers, rises, scope

STYLE = """
:root { color-scheme: light dark; --line: #ddd; --soft: #666; --back: #f6f6f4; }
@media (prefers-color-scheme: dark) { :root { --line: #444; --soft: #aaa; --back: #222; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  overflow-wrap: anywhere; }
.numbers td:not(:first-child), .numbers th:not(:first-child) { text-align: right;
  white-space: nowrap; }
.wide { overflow-x: auto; }
.soft { color: var(--soft); } .missing { background: var(--back); padding: .6rem .9rem; }
figure { margin: 1rem 0; } img { max-width: 100%; background: white; border-radius: 4px; }
summary { cursor: pointer; }
"""


def write_report(folders: Path | Sequence[Path], path: Path | None = None) -> Path:
    """Write the report of one run, or one page for several.

    Args:
        folders: Run folders; what is missing in them is said in the page.
        path: HTML file; by default `report.html` in the run folder (several: beside the first).

    Returns:
        The file written.

    Raises:
        UserError: If a folder does not exist, or a file in it cannot be read.
    """
    runs = [folders] if isinstance(folders, Path) else list(folders)
    for run in runs:
        if not run.is_dir():
            raise UserError(f"no run folder {run}; see runs/ for those there are")
    if path is None:
        path = (runs[0] if len(runs) == 1 else runs[0].resolve().parent) / "report.html"
    title = runs[0].resolve().name if len(runs) == 1 else f"{len(runs)} runs"
    sections = "".join(_run(run, heading=len(runs) > 1) for run in runs)
    page = (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{sections}</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, page.encode())
    return path


def _run(folder: Path, heading: bool) -> str:
    parts = [f"<h1>{escape(folder.resolve().name)}</h1>"] if heading else []
    config, result = _json(folder / CONFIG), _json(folder / "result.json")
    if config is not None and config.get("description"):
        parts.append(f"<p>{escape(config['description'])}</p>")
    parts.append("<h2>Result</h2>")
    if result is None:
        parts.append(_missing("result.json", "the run has not finished; resume it with --resume"))
    else:
        parts += [_result(result), "<h2>Comparisons</h2>", _comparisons(result)]
    parts += ["<h2>Figures</h2>", _figures(folder / "figures")]
    if result is not None:
        parts += ["<h2>Chosen on validation classes</h2>", _choices(result)]
    parts += ["<h2>Meta-training</h2>", _training(folder / "metrics.jsonl")]
    for name, file, values in (
        ("Configuration", CONFIG, config),
        ("Environment", ENVIRONMENT, _json(folder / ENVIRONMENT)),
    ):
        parts.append(f"<h2>{name}</h2>")
        if values is None:
            parts.append(_missing(file, "the folder is not a run folder or was not completed"))
        else:
            rows = ([key, _text(value)] for key, value in flatten(values).items())
            table = _table(("setting", "value"), rows)
            parts.append(f"<details open><summary>{escape(file)}</summary>{table}</details>")
    return "\n".join(parts) + "\n"


def _json(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _missing(name: str, reason: str) -> str:
    return f'<p class="missing"><code>{escape(name)}</code> is missing: {escape(reason)}.</p>'


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in headers)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _result(result: dict[str, Any]) -> str:
    notes = "; ".join([scope(result), *rises(result)])
    note = f'<p class="soft">{escape(notes)}. Times on the machine below.</p>'
    return _table(headers(result), cells(result), "numbers") + note


def _comparisons(result: dict[str, Any]) -> str:
    entries = result.get("comparisons", [])
    if not entries:
        return "<p>Only one learner was evaluated.</p>"
    rows = []
    metric = entries[0].get("metric", "accuracy")
    difference = "loss difference" if metric == "loss" else "accuracy difference, points"
    for entry in entries:
        low, high = entry["difference"]["low"], entry["difference"]["high"]
        if metric == "loss":  # the smaller the better
            low, high = -high, -low
        verdict = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
        p = f"{entry['p']:.3f}" if entry.get("p") is not None else "-"
        family = [entry["family"]] if "families" in result else []
        pair = [*family, entry["learner"], entry["reference"], str(entry["shots"])]
        rows.append([*pair, bounds(entry["difference"], metric), p, verdict])
    names = ["learner", "reference", "shots", difference, "p", "verdict"]
    names = ["family", *names] if "families" in result else names
    note = "<p class='soft'>Paired over the same tasks; better or worse: 95% interval off zero.</p>"
    return _table(names, rows, "numbers") + note


def _figures(folder: Path) -> str:
    images = sorted(folder.glob("*.png"))
    if not images:
        return _missing("figures/*.png", "the run has drawn no figure yet")
    return "\n".join(
        f"<figure><figcaption>{escape(image.stem)}</figcaption>"
        f'<img alt="{escape(image.stem)}" src="data:image/png;base64,'
        f'{base64.b64encode(image.read_bytes()).decode()}"></figure>'
        for image in images
    )


def _choices(result: dict[str, Any]) -> str:
    rows = [
        [
            choice["learner"],
            str(choice.get("fold") or "-"),
            str(choice["shots"]),
            ", ".join(f"{name} {_text(value)}" for name, value in choice["settings"].items()),
            "-"
            if choice["validation_accuracy"] is None
            else f"{100 * choice['validation_accuracy']:.1f}",
        ]
        for choice in result.get("choices", [])
        if choice["settings"]
    ]
    if not rows:
        return "<p>Nothing had to be chosen.</p>"
    return _table(("learner", "fold", "shots", "settings", "validation accuracy"), rows)


def _training(path: Path) -> str:
    trainings: dict[str, list[dict[str, Any]]] = {}
    for record in read_metrics(path):
        trainings.setdefault(cell_name(record) or "training", []).append(record)
    if not trainings:
        return _missing("metrics.jsonl", "no learner of this run was meta-trained")
    rows = []
    for name, records in trainings.items():
        losses = [record["loss"] for record in records if record.get("loss") is not None]
        field = "validation"
        scores = [record[field] for record in records if record.get(field) is not None]
        last = f"{losses[-1]:.3f}" if losses else "-"
        best = f"{100 * max(scores):.1f}" if scores else "-"
        rows.append([name, str(len(records)), last, best])
    columns = ("training", "records", "last loss", "best validation accuracy")
    return _table(columns, rows, "numbers")
