"""The building blocks of a page that needs nothing but itself: tables, figures, sections."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

STYLE = """
:root { color-scheme: light dark; --line: #ddd; --soft: #666; --back: #f6f6f4; --mark: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --line: #444; --soft: #aaa; --back: #222; --mark: #56b4e9; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: .5rem 0;
  border-bottom: 1px solid var(--line); font-size: 14px; }
a { color: var(--mark); text-decoration: none; } a:hover { text-decoration: underline; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; color: var(--soft); }
tbody tr:hover { background: var(--back); }
.numbers td:not(:first-child), .numbers th:not(:first-child) { text-align: right;
  white-space: nowrap; }
.wide { overflow-x: auto; }
.soft { color: var(--soft); } .missing { background: var(--back); padding: .6rem .9rem; }
.lead { background: var(--back); border-left: 4px solid var(--mark); padding: .6rem 1rem; }
.lead p { margin: .2rem 0; }
figure { margin: 1rem 0; } img { max-width: 100%; background: white; border-radius: 4px; }
figcaption { color: var(--soft); font-size: 14px; max-width: 60rem; }
.bar { display: inline-block; height: .7em; background: var(--mark); border-radius: 2px; }
summary { cursor: pointer; margin: .5rem 0; }
@media print { nav { display: none; } }
"""


class Section(NamedTuple):
    """A part of a page: its title and its HTML."""

    title: str
    content: str


class Strong(str):
    """A cell of a table that stands out."""


class Markup(str):
    """A cell of a table that is HTML already."""


def page(title: str, lead: str, parts: Sequence[tuple[str, Sequence[Section]]]) -> str:
    """A whole page, with links to its sections.

    Args:
        title: Title of the page.
        lead: HTML below the title.
        parts: Name and sections of each part; a single part needs no name.
    """
    body, links = [], []
    for number, (name, sections) in enumerate(parts):
        if name:
            body.append(f'<h1 id="part-{number}">{escape(name)}</h1>')
            links.append(f'<a href="#part-{number}">{escape(name)}</a>')
        for index, section in enumerate(sections):
            anchor = f"part-{number}-{index}"
            body.append(
                f'<section id="{anchor}"><h2>{escape(section.title)}</h2>\n'
                f"{section.content}</section>"
            )
            if not name:
                links.append(f'<a href="#{anchor}">{escape(section.title)}</a>')
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # An empty icon of its own: browsers ask the server for one otherwise.
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{lead}\n<nav>{''.join(links)}</nav>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table; `kind` "numbers" sets all columns but the first to the right.

    Example:
        >>> table(("a",), [("<b>",)]).split("<tbody>")[1].split("</tbody>")[0]
        '<tr><td>&lt;b&gt;</td></tr>'
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in headers)
    body = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def settings(values: dict[str, Any]) -> str:
    """A table of names and values.

    Example:
        >>> settings({"inner.rate": 0.5}).count("0.5")
        1
    """
    return table(("setting", "value"), ([name, text(value)] for name, value in values.items()))


def text(value: Any) -> str:
    """A value as it is shown: as JSON, a word without its quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(value: str) -> str:
    if isinstance(value, Markup):
        return f"<td>{value}</td>"
    text = escape(value)
    return f"<td><strong>{text}</strong></td>" if isinstance(value, Strong) else f"<td>{text}</td>"


def bar(share: float) -> Markup:
    """A cell that shows a share of 1 as a bar with its number."""
    width = 8 * max(0.0, min(1.0, share))
    return Markup(f'<span class="bar" style="width:{width:.2f}rem"></span> {share:.2f}')


def figure(path: Path, caption: str) -> str:
    """A PNG file, embedded."""
    content = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(path.stem)}" src="data:image/png;base64,{content}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def details(summary: str, content: str, shown: bool = False) -> str:
    """Content that is folded away behind a line."""
    state = " open" if shown else ""
    return f"<details{state}><summary>{escape(summary)}</summary>{content}</details>"


def missing(name: str, reason: str) -> str:
    """That a file is not there, and why."""
    return f'<p class="missing"><code>{escape(name)}</code> is missing: {escape(reason)}.</p>'
