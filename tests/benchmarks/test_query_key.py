"""What the page about attention says is what was recorded."""

from __future__ import annotations

import json

ROWS = (
    ("MiniLM, heads of width {}", "joint", ("minilm", "without positions", "joint"), (24, 16, 8)),
    ("SmolLM2, projections of rank {}", "rotary", ("smollm2", "projections", "rotary"), (48, 32, 16)),
    ("SmolLM2, heads of width {}", "rotary", ("smollm2", "widths", "rotary"), (48, 32, 16)),
    ("SmolLM2, heads of width {}", "largest pairs", ("smollm2", "widths", "selected pairs"), (48, 32, 16)),
)


def test_the_page_says_what_was_recorded(root):
    record = json.loads((root / "benchmarks" / "results" / "query-key-cpu.json").read_text(encoding="utf-8"))
    page = (root / "docs" / "explanation" / "attention.md").read_text(encoding="utf-8")
    found = {(one["model"], one["question"], one["method"], one["width"]): one for one in record["summary"]}
    lines = []
    for head, name, (model, question, method), widths in ROWS:
        for width in widths:
            base, mine = (found[model, question, one, width] for one in ("data-aware separate", method))
            ratio = "{value:.2f} [{low:.2f}, {high:.2f}]".format_map(mine["ratio"])
            lines.append(f"| {head.format(width)} | {name} | {base['error']:.3f} | {mine['error']:.3f} | {ratio} |")
    assert "\n".join(lines) in page
    assert page.count("| rotary |") + page.count("| joint |") + page.count("| largest pairs |") == len(lines)
    for (model, question, method, width), one in found.items():
        if method == "plain separate":  # "much better than plain SVD"
            assert found[model, question, "data-aware separate", width]["error"] < 0.5 * one["error"]
