"""Tables: what they hold, what they never leave out, and how they are written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from narrows.errors import InputError
from narrows.planning import choose, compare
from narrows.reporting import (
    Cell,
    Column,
    Table,
    best_table,
    budget_table,
    differences_table,
    doubts_table,
    error_table,
    memory_table,
    of_weight,
    parts,
    plan_table,
    preparation_table,
    reasons_table,
    rows_table,
    share_table,
    speedup_table,
    table_markdown,
    table_text,
    time_table,
    weights_table,
)
from narrows.reporting._tables_complexity import complexity_table
from narrows.reporting._text import bytes_text, clean, count_text, error_text, listed, time_text
from reporting.reports import TRUE_RANK, make_report, with_speedup

SMALL = {"tokens": (64, 128), "ranks": (64, 128), "weights": ("gaussian", "product")}
SPEEDUPS = {(64, 64): 2.0, (64, 128): 2.0, (128, 64): 0.5, (128, 128): 0.4}
REPORT = make_report(**SMALL, time_ns=with_speedup(lambda t, r: SPEEDUPS[t, r]), preparation_s=2.0)
(PART,) = parts(REPORT)


def column(table: Table, name: str) -> list[Cell]:
    index = [c.name for c in table.columns].index(name)
    return [row[index] for row in table.rows]


def values(table: Table, name: str) -> list[object]:
    return [cell.value for cell in column(table, name)]


def test_the_best_table_takes_the_largest_of_tied_ranks_and_says_dense_where_nothing_gains():
    table = best_table(REPORT)

    assert values(table, "tokens") == [64, 128]
    assert values(table, "rank") == [128, 64]
    assert values(table, "tied_ranks") == ["64", ""]
    assert values(table, "use") == ["rank 128", "dense"]


ALL = [
    best_table(REPORT),
    budget_table(REPORT, 0.5),
    speedup_table(PART),
    complexity_table(PART),
    preparation_table(PART),
    rows_table(REPORT),
    plan_table(choose(REPORT)),
]


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
def test_no_table_shows_a_speedup_without_its_error(table):
    names = [c.name for c in table.columns]

    assert any(name.startswith(("speedup", "tokens_")) for name in names)
    assert any(name.startswith("error") for name in names)


def test_every_weight_has_its_error_in_the_speedup_table():
    table = speedup_table(PART)

    gaussian = max(REPORT.error(t, 64, "gaussian").upper95 for t in (64, 128))
    assert values(table, "error_gaussian")[0] == gaussian
    assert values(table, "error_product")[0] < gaussian


def test_ties_are_marked_and_losses_are_shown():
    report = make_report(**SMALL, time_ns=with_speedup(lambda t, _: 1.0 if t == 64 else 0.5))

    assert column(speedup_table(parts(report)[0]), "tokens_64")[0].text.startswith("~")
    assert column(speedup_table(parts(report)[0]), "tokens_128")[0].text.startswith("0.5")


def test_a_budget_is_kept_for_each_weight_apart():
    table = budget_table(REPORT, 0.01)

    uses = dict(
        zip(zip(values(table, "weight"), values(table, "tokens"), strict=True), values(table, "use"), strict=True)
    )
    assert uses["gaussian", 64] == uses["gaussian", 128] == "dense"
    assert uses["product", 64] == f"rank {TRUE_RANK}"
    assert uses["product", 128] == "dense"  # exact, but slower


def test_a_report_of_several_modes_and_caches_keeps_them_apart():
    report = make_report(**SMALL, modes=("eager", "graph"), caches=("hot", "cold"))

    assert [part.name for part in parts(report)] == ["eager, hot", "eager, cold", "graph, hot", "graph, cold"]
    assert len(best_table(report).rows) == 2 * 4
    assert "mode" in [c.name for c in best_table(report).columns]
    assert "mode" not in [c.name for c in best_table(REPORT).columns]


def test_memory_is_shown_measured_and_by_formula():
    cell = column(memory_table(PART), "tokens_64")[0]
    dense = next(row for row in REPORT.rows if row.tokens == 64 and row.rank is None)

    assert cell.text == f"{bytes_text(dense.peak_memory_bytes)} ({bytes_text(dense.memory_bytes)})"


def test_a_peak_that_was_not_measured_is_a_bare_formula():
    (part,) = parts(make_report(**SMALL, peak_bytes=lambda *_: None))

    assert all(cell.text.startswith("(") for cell in column(memory_table(part), "tokens_64"))


def test_preparation_pays_after_seconds_over_saved_time_and_never_without_a_gain():
    table = preparation_table(PART)
    saved = values(table, "saved_ns")[0]

    assert values(table, "calls")[0] == -(-2_000_000_000 // saved)
    assert [cell.text for cell in column(table, "calls")[2:]] == ["-", "-"]


def test_time_and_share_stand_for_dense_and_every_rank():
    assert values(time_table(PART), "rank") == ["dense", "64", "128"]
    assert values(share_table(PART), "tokens_64") == pytest.approx([0.5] * 3, rel=0.02)


def test_errors_are_split_into_truncation_and_rounding():
    table = error_table(REPORT)

    assert values(table, "rounding")[0] == 2e-7
    assert values(table, "factor_error")[0] == REPORT.weights[0].factor_errors[64]


def test_the_weights_stand_side_by_side():
    table = weights_table(REPORT)

    assert values(table, "weight") == ["gaussian", "product"]
    assert values(table, "true_rank") == [None, TRUE_RANK]


def test_rows_without_samples_and_rows_with_doubts_are_listed_with_their_reason():
    killed = replace(REPORT.rows[-1], status="killed (signal 9)", samples_ns=(), rounds=(), reason="out of memory")
    jumpy = replace(REPORT.rows[4], samples_ns=tuple(t * (1 + i % 2) for i, t in enumerate(REPORT.rows[4].samples_ns)))
    report = replace(REPORT, rows=(*REPORT.rows[:4], jumpy, *REPORT.rows[5:-1], killed))

    table = doubts_table(report)

    assert ("killed (signal 9)", "out of memory") in zip(values(table, "status"), values(table, "doubt"), strict=True)
    assert any(str(doubt).startswith("spread") for doubt in values(table, "doubt"))
    assert doubts_table(REPORT).note == "No row has a doubt, and every row was measured."


def test_a_plan_prints_its_budget_and_every_reason():
    plan = choose(REPORT)

    assert "none (no error was bounded)" in plan_table(plan).note
    assert len(reasons_table(plan).rows) == sum(len(c.reasons) for c in plan.choices)


def test_a_comparison_says_not_distinguishable():
    table = differences_table(compare(REPORT, REPORT))

    assert set(values(table, "verdict")) == {"not distinguishable"}
    assert "0 of 12 rows are slower in B" in table.note


def test_one_weight_can_be_looked_at_alone():
    alone = of_weight(REPORT, "product")

    assert {e.weight for e in alone.errors} == {"product"}
    assert len(alone.rows) == len(REPORT.rows)
    with pytest.raises(InputError, match="weight='x' is not in this report, which holds: gaussian, product"):
        of_weight(REPORT, "x")


def test_a_row_must_have_a_cell_for_every_column():
    with pytest.raises(AssertionError, match="t"):
        Table("t", "T", (Column("a", "A"),), ((Cell(1, "1"), Cell(2, "2")),))


HOSTILE = Table("h", "A `b` | *c*\x1b[31m", (Column("n", "Name", "left"),), ((Cell("x|y\n<b>", "x|y\n<b>"),),))


def test_markdown_escapes_what_names_may_hold():
    text = table_markdown(HOSTILE)

    assert r"| x\|y \<b\> |" in text
    assert "\x1b" not in text
    assert text.startswith(r"**A \`b\` | \*c\*")


def test_plain_text_is_aligned_and_free_of_control_characters():
    lines = table_text(best_table(REPORT)).splitlines()
    head = lines[2]

    assert all(len(line) <= len(head) + 20 for line in lines[2:6])
    assert lines[4].index("128") == head.index("Best rank") + len("Best rank") - 3  # numbers end with their title
    assert "\x1b" not in table_text(HOSTILE)
    assert clean("a\r\nb\x00") == "a  b "


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (time_text(950), "950 ns"),
        (time_text(999_960), "1.00 ms"),
        (time_text(12_340), "12.3 us"),
        (time_text(2.5e9), "2.50 s"),
        (bytes_text(512), "512 B"),
        (bytes_text(64 << 20), "64.0 MiB"),
        (count_text(1234), "1.23 k"),
        (error_text(0.971), "97.1%"),
        (error_text(0.0052), "0.52%"),
        (error_text(3.1e-7), "3.1e-07"),
        (error_text(0), "0"),
        (listed([64, 128, 256]), "64, 128 and 256"),
        (listed([]), "none"),
    ],
)
def test_numbers_read_with_three_figures_and_their_unit(shown, text):
    assert shown == text
