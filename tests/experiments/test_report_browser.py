"""Reports in a real browser: they render, say nothing on the console, and ask for nothing.

The browser is Debian's chromium (`apt-get install chromium`), started headless without a network.
"""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium; on Debian: apt-get install chromium"
)
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"),
    # Pages have all their time at once: nothing is waited for.
    "--virtual-time-budget=5000",
)
PROBE = """<script>addEventListener("load", () => {
  document.documentElement.dataset.seen = JSON.stringify({
    images: [...document.images].map(image => [image.alt, image.naturalWidth]),
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    headings: [...document.querySelectorAll("h2")].map(heading => heading.innerText),
    text: document.body.innerText,
  });
})</script>"""


class Root(HTMLParser):
    """The attributes of the outermost element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: dict[str, str | None] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "html":
            self.attributes = dict(attrs)


def look(page: Path, place: Path) -> SimpleNamespace:
    """Open a page and say what is seen: images with their widths, console lines, requests."""
    place.mkdir()
    probed, network = place / "page.html", place / "network.json"
    probed.write_text(page.read_text(encoding="utf-8") + PROBE, encoding="utf-8")
    profile = [f"--user-data-dir={place / 'profile'}", f"--log-net-log={network}"]
    command = [CHROMIUM, *OPTIONS, *profile, "--dump-dom", probed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = json.loads(Root(done.stdout).attributes["data-seen"] or "{}")
    log = json.loads(network.read_text(encoding="utf-8"))
    # What the browser asks for on its own account has no origin.
    requests = [
        event["params"]["url"]
        for event in log["events"]
        if event.get("params", {}).get("initiator", "not an origin") != "not an origin"
    ]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line]
    return SimpleNamespace(**seen, console=console, requests=requests)


def faults(seen: SimpleNamespace) -> list[str]:
    """What is wrong with a page."""
    unseen = [f"image {name}" for name, width in seen.images if not width]
    wide = [f"{seen.wide} pixels too wide"] if seen.wide > 0 else []
    return [*unseen, *wide, *seen.console, *(f"request {url}" for url in seen.requests)]


def test_the_report_of_a_run_renders(tiny_run, tmp_path):
    seen = look(write_report(tiny_run, tmp_path / "report.html"), tmp_path / "browser")
    assert faults(seen) == []
    assert [name for name, _ in seen.images] == ["scores", "curves", "training"]
    assert all(width > 500 for _, width in seen.images)
    assert seen.headings[:4] == ["Result", "Comparisons", "Adaptation", "Confusions"]
    assert "1-shot: " in seen.text and "step 2" in seen.text


def test_the_report_of_a_sweep_and_runs_renders(tiny_run, made_up_sweep, tmp_path):
    page = write_report([tiny_run, tiny_run, made_up_sweep], tmp_path / "report.html")
    seen = look(page, tmp_path / "browser")
    assert faults(seen) == []
    assert [name for name, _ in seen.images][-1] == "parallel"
    assert "first against first" in seen.headings and "Best settings" in seen.headings
    assert "no difference: the same on every task" in seen.text


BROKEN = {
    '<img alt="gone" src="data:image/png;base64,AAAA">': "image gone",
    '<img alt="near" src="figures/near.png">': "image near",
    '<img alt="far" src="http://far.invalid/a.png">': "request http://far.invalid/a.png",
    '<script src="https://cdn.invalid/d3.js"></script>': "request https://cdn.invalid/d3.js",
    "<style>body { background: url(http://css.invalid/a) }</style>": "request http://css.invalid/a",
    '<script>fetch("http://data.invalid/").catch(() => 0)</script>': "request http://data.invalid/",
    "<script>undefinedName()</script>": "undefinedName is not defined",
    '<script>console.warn("beware")</script>': "beware",
    '<div style="width: 9000px">x</div>': "pixels too wide",
}


def test_every_fault_of_a_broken_page_is_caught(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(f'<!doctype html><link rel="icon" href="data:,"><body>{"".join(BROKEN)}')
    found = faults(look(page, tmp_path / "browser"))
    assert [fault for fault in BROKEN.values() if not any(fault in one for one in found)] == []
    assert len(found) == len(BROKEN) + 1  # the image that is far away has no width either


def test_a_sound_page_has_no_fault(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><link rel="icon" href="data:,"><body>fine')
    assert faults(look(page, tmp_path / "browser")) == []
