"""Make the documents in docs/reports from the recorded reports: `python tools/reports.py`."""

from __future__ import annotations

import json
from pathlib import Path

from narrows import Report
from narrows.reporting import document, html_page, to_markdown

ROOT = Path(__file__).parents[1]
PAGES = ("bench-cpu", "bench-h200")  # the default experiment: also as a page with charts


def main() -> None:
    """Write one Markdown file for each recorded report, and a page for the main ones."""
    folder = ROOT / "docs" / "reports"
    folder.mkdir(exist_ok=True)
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        text = path.read_text(encoding="utf-8")
        if "experiment" not in json.loads(text):
            continue
        report = Report.from_json(text, source=str(path))
        (folder / f"{path.stem}.md").write_text(to_markdown(document(report)), encoding="utf-8")
        if path.stem in PAGES:
            (folder / f"{path.stem}.html").write_text(html_page(report), encoding="utf-8")


if __name__ == "__main__":
    main()
