"""The document: the origin's sections, and sentences that say no more than the data."""

from __future__ import annotations

from dataclasses import replace

from narrows.reporting import document, findings_table, to_markdown, to_text
from reporting.reports import make_report, with_speedup

SMALL = {
    "tokens": (64, 512, 4096),
    "ranks": (64, 256, 1024),
    "weights": ("gaussian", "product"),
    "rounds": 8,
    "noise": 0.002,
}
GAIN = make_report(**SMALL, time_ns=with_speedup(lambda t, r: 3 * (t / 64) ** 0.3 * (64 / r) ** 0.5))
NO_GAIN = make_report(**SMALL, time_ns=with_speedup(lambda *_: 0.5))
SECTIONS = [
    "Key findings",
    "Optimal configuration",
    "Short sequences (up to 256)",
    "Medium sequences (257 to 2047)",
    "Long sequences (2048 and more)",
    "Computational complexity",
    "Practical implications",
    "Memory",
    "Recommendations",
    "Conclusion",
    "The origin's statements",
    "Doubts and conditions",
]


def words(report) -> str:
    made = document(report)
    return "\n".join([*made.paragraphs, *(t for s in made.sections for t in (*s.paragraphs, *s.points))])


def section(report, title: str):
    return next(s for s in document(report).sections if s.title.startswith(title))


def test_the_sections_are_the_origins():
    assert [s.title for s in document(GAIN).sections] == SECTIONS


def test_a_gain_is_told_with_its_error_and_its_growth():
    findings = section(GAIN, "Key findings").points

    assert findings[0].startswith("The largest speedup is T=4096: 10.4")
    assert "(gaussian)" in findings[0]
    assert "(product)" in findings[0]
    assert any("grows with length, slower than linearly: exponent 0.30" in text for text in findings)


def test_no_gain_is_told_as_such_and_nothing_is_recommended_but_dense():
    text = words(NO_GAIN)

    assert "No gain here: no rank is faster than dense beyond doubt at any length" in text
    assert "No gain here at T=64" in text
    assert "The preparation never pays" in text
    assert "The largest speedup is" not in text
    assert all("stay dense" in point for point in section(NO_GAIN, "Recommendations").points)


def test_a_report_of_gains_does_not_say_no_gain():
    assert "No gain here" not in words(GAIN)


def test_a_speedup_beyond_linear_is_called_so_only_where_the_interval_says_so():
    steep = make_report(**SMALL, time_ns=with_speedup(lambda t, r: 1.2 * (t / 64) ** 1.4 * (64 / r) ** 0.5))

    assert "grows with length, faster than linearly" in words(steep)
    assert "faster than linearly" not in words(GAIN)
    flat = make_report(**SMALL, time_ns=with_speedup(lambda _, r: 2 * (64 / r) ** 0.5))
    assert "shows no trend with length beyond doubt" in words(flat)
    falling = make_report(**SMALL, time_ns=with_speedup(lambda t, r: 4 * (t / 64) ** -0.3 * (64 / r) ** 0.5))
    assert "falls with length" in words(falling)


def test_a_band_without_measured_lengths_says_so():
    assert section(replace_tokens((64,)), "Medium").paragraphs == ("No length of this band was measured.",)


def replace_tokens(tokens):
    return make_report(**(SMALL | {"tokens": tokens}))


def test_recommendations_follow_the_error_of_each_weight():
    points = section(GAIN, "Recommendations").points

    assert any("Within an error of 1 % no rank of gaussian is faster than dense: stay dense." in p for p in points)
    assert any("Within an error of 1 % product gains at 3 of 3 lengths" in p and "rank 256" in p for p in points)


def test_the_peak_is_compared_where_it_was_measured():
    assert "At the best rank the measured peak of dense is" in section(GAIN, "Memory").points[0]
    without = make_report(**SMALL, peak_bytes=lambda *_: None)
    assert "The peak was not measured at any length" in section(without, "Memory").points[0]


def test_a_report_with_nothing_measured_has_only_statements_and_doubts():
    made = document(replace(GAIN, rows=()))

    assert [s.title for s in made.sections] == SECTIONS[-2:]
    assert made.paragraphs[-1] == "Nothing was measured: no thin row stands beside a dense one."


def test_a_linear_report_and_several_groups_make_documents():
    linear = make_report(**SMALL, kind="linear", variants=("two",), modes=("eager", "graph"), caches=("hot", "cold"))

    text = words(linear)

    assert "y = x W^T against (x A) B" in text
    assert "(graph, cold)" in text


def test_markdown_holds_every_section_and_table():
    made = document(GAIN)
    text = to_markdown(made)

    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    assert text.count("|---") >= sum(len(s.tables) for s in made.sections)
    assert to_text(made).splitlines()[1].startswith("====")


def test_the_findings_end_with_the_count_of_verdicts():
    rows = findings_table(GAIN).rows

    assert rows[-1][0].text.startswith("Of the origin's")
