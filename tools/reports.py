"""Make the documents in docs/reports from the recorded reports: `python tools/reports.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from narrows import Report
from narrows._values._check import Check
from narrows.reporting import checks_document, checks_report, document, html_page, to_markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
PAGES = ("bench-cpu", "bench-h200")  # the default experiment: also as a page with charts
CHECKS = {  # models: the checks that stand side by side
    "smollm2-h200": ("smollm2-keep-0.9-h200", "smollm2-keep-0.8-h200", "smollm2-keep-0.7-h200"),
    "smollm2-cpu": ("smollm2-check-cpu",),
    "smollm2-int8-cpu": ("smollm2-int8-check-cpu",),
    "minilm-cpu": ("minilm-check-cpu",),
    "wide-h200": ("wide-check-h200",),
}


def main() -> None:
    """Write one Markdown file for each recorded report, and a page for the main ones."""
    folder = ROOT / "docs" / "reports"
    folder.mkdir(exist_ok=True)
    results = ROOT / "benchmarks" / "results"
    for name, stems in CHECKS.items():
        write_checks(folder, name, [results / f"{stem}.json" for stem in stems])
    for path in sorted(results.glob("*.json")):
        text = path.read_text(encoding="utf-8")
        if "experiment" not in json.loads(text):
            continue
        report = Report.from_json(text, source=str(path))
        (folder / f"{path.stem}.md").write_text(to_markdown(document(report)), encoding="utf-8")
        if path.stem in PAGES:
            (folder / f"{path.stem}.html").write_text(html_page(report), encoding="utf-8")


def write_checks(folder: Path, name: str, paths: Sequence[Path]) -> None:
    """Write checks of one model as Markdown and as a page with charts."""
    checks = [Check.from_json(path.read_bytes(), source=str(path)) for path in paths]
    (folder / f"{name}.md").write_text(to_markdown(checks_report(checks)), encoding="utf-8")
    (folder / f"{name}.html").write_text(checks_document(checks), encoding="utf-8")


if __name__ == "__main__":
    main()
