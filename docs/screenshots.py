# ruff: noqa: INP001  # a script, not a package
"""Take the pictures of a report's page that the docs show: python docs/screenshots.py REPORT.json OUTDIR.

Writes light.png, dark.png (1280 pixels wide) and narrow.png (a phone's 390) of the page from its top
to the end of the charts, in a real headless Chromium. Needs narrows and a Chromium on the PATH.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from narrows import Report
from narrows.reporting import html_page

FLAGS = (
    "--headless",
    "--no-sandbox",  # Chromium refuses to start as root with it; the page is our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=3000",
)
NARROWEST = 500  # px: a headless window is never narrower, so the page sits in a frame of its own width
WIDE, PHONE = 1280, 390
FRAME = """<!doctype html><meta name="color-scheme" content="light dark">
<style>body {{ margin: 0; background: #9a9a96 }} iframe {{ border: 0; display: block; margin: 0 auto;
width: {width}px; height: {height}px }}</style>
<script>addEventListener("message", (e) => {{ document.documentElement.dataset.facts = e.data }})</script>
<iframe src="{source}"></iframe>"""
HEIGHT = "({height: Math.ceil(document.querySelector('#charts').getBoundingClientRect().bottom) + 48})"


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def _run(page: Path, action: str, *, width: int, height: int, is_dark: bool) -> str:
    """Return what Chromium prints after it did `action` with the page in a frame."""
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("not shown: no Chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        frame = Path(profile) / "frame.html"
        frame.write_text(FRAME.format(width=width, height=height, source=page.resolve().as_uri()))
        command = [
            chromium,
            *FLAGS,
            f"--user-data-dir={profile}/data",
            f"--window-size={max(width, NARROWEST)},{height}",
        ]
        scheme = f"--blink-settings=preferredColorScheme={0 if is_dark else 1}"
        done = subprocess.run(  # noqa: S603  # our own page
            [*command, scheme, action, frame.as_uri()], capture_output=True, text=True, check=True, timeout=60
        )
    return done.stdout


def ask(page: Path, question: str, *, width: int = WIDE, height: int = 900, is_dark: bool = False) -> Any:
    """Return the JSON value of a JavaScript expression, evaluated in a copy of the page after its scripts ran."""
    recorder = (
        "<script>window.problems = []; addEventListener('error', (e) => problems.push(e.message));"
        "addEventListener('securitypolicyviolation', (e) => problems.push(e.blockedURI));"
        "console.error = (...words) => problems.push(words.join(' '));</script>"
    )
    answer = f"<script>parent.postMessage(JSON.stringify({question}), '*')</script>"
    text = page.read_text(encoding="utf-8").replace("<style>", f"{recorder}<style>", 1)
    head, tail = text.rsplit("</body>", 1)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.html"
        copy.write_text(f"{head}{answer}</body>{tail}", encoding="utf-8")
        dom = _run(copy, "--dump-dom", width=width, height=height, is_dark=is_dark)
    found = re.search(r'data-facts="([^"]*)"', dom)
    if found is None:
        raise RuntimeError(f"The page sent no answer; Chromium printed {dom[:400]!r}.")
    return json.loads(html.unescape(found[1]))


def shoot(page: Path, out: Path, *, width: int = WIDE, height: int = 900, is_dark: bool = False) -> None:
    """Write a PNG of the page's top `height` pixels."""
    _run(page, f"--screenshot={out.resolve()}", width=width, height=height, is_dark=is_dark)


def main(report: Path, folder: Path) -> None:
    """Write light.png, dark.png and narrow.png of a report into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        page = Path(temporary) / "page.html"
        page.write_text(html_page(Report.from_json(report.read_bytes(), source=str(report))), encoding="utf-8")
        for name, width, is_dark in (("light", WIDE, False), ("dark", WIDE, True), ("narrow", PHONE, False)):
            height = ask(page, HEIGHT, width=width)["height"]
            shoot(page, folder / f"{name}.png", width=width, height=height, is_dark=is_dark)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
