"""Every statement of the origin: one report in which it holds, one in which it is refuted, one that cannot tell.

A world is a report whose speedups follow a rule. Two statements speak of applications and of attention,
which no report measures: for them "holds" is out of reach, and the test says "cannot tell" instead. A
contradiction is judged by its first half: one world agrees with it, one with the second half.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from narrows.reporting import statements, statements_table, verdicts_text
from narrows.reporting._statements import STATEMENTS, judged
from narrows.reporting._statements_facts import Facts, facts_of
from narrows.reporting._statements_lengths import ORIGIN_TABLE
from reporting.reports import MACHINE, make_report, with_speedup

GPU = replace(MACHINE, device="cuda", name="Synthetic GPU")
SMALL = {"variants": ("three",), "weights": ("gaussian",), "rounds": 8, "noise": 0.002}


def _around(best, speedup, slope=0.7):
    """Return a rule: `speedup` at rank `best`, less by (distance) ** slope at others."""
    return lambda t, r: speedup(t) * (min(best(t), r) / max(best(t), r)) ** slope


def _blunt(tokens, rank):
    return 4 * (64 / rank) ** (0.9 if tokens <= 256 else 0.4)


def _formula(t, r):
    return (4096 * (4096 + t)) / (r * (2 * 4096 + t))


WORLDS = {
    # The origin's own table, and less at other ranks.
    "origin": {"time_ns": with_speedup(_around(lambda t: ORIGIN_TABLE[t][0], lambda t: ORIGIN_TABLE[t][1]))},
    # As fast as the FLOPs say: rank 64 is best everywhere.
    "formula": {"time_ns": with_speedup(_formula)},
    # No rank is ever faster, the largest is the least slow, and it gets worse with length.
    "slow": {"time_ns": with_speedup(lambda t, r: 0.5 * (r / 4096) ** 0.2 * (t / 64) ** -0.1)},
    "fast at every rank": {"time_ns": with_speedup(lambda t, r: 3 * (64 / r) ** 0.1)},
    "superlinear": {"time_ns": with_speedup(_around(lambda _: 64, lambda t: 1.1 * (t / 64) ** 1.3))},
    "advice": {"time_ns": with_speedup(_around(lambda t: 256 if t < 256 else 64, lambda _: 3.0))},
    "blunt when longer": {"time_ns": with_speedup(_blunt)},
    "steeper than FLOPs": {
        "time_ns": lambda t, r, _: float(t) ** 3 * 100 if r is None else float(t) ** 3 * r**2 / 100,
        "tokens": (64, 256, 1024, 4096),
        "ranks": (64, 256, 1024),
    },
    "rank grows with length": {
        "time_ns": with_speedup(_around(lambda t: t * t // 256, lambda _: 3.0)),
        "tokens": (64, 128, 256, 512),
        "ranks": (16, 64, 256, 1024),
    },
    "small ranks near the limit": {"machine": GPU, "share": lambda _, r, __: 0.5 if r is None else (64 / r) ** 0.3},
    "large ranks near the limit": {"machine": GPU, "share": lambda _, r, __: 0.5 if r is None else (r / 4096) ** 0.3},
}

UNREACHABLE = None  # no report can show it: nothing but matmuls is measured
CASES = {
    1: ("origin", "slow"),
    2: ("origin", "slow"),
    3: ("origin", "slow"),
    4: ("formula", "origin"),
    5: ("origin", "formula"),
    6: ("origin", "formula"),
    7: ("origin", "formula"),
    8: ("origin", "fast at every rank"),
    **dict.fromkeys(range(9, 16), ("origin", "slow")),
    16: ("origin", "formula"),
    17: ("origin", "rank grows with length"),
    18: ("origin", "formula"),
    19: ("origin", "formula"),
    20: ("origin", "formula"),
    21: ("origin", "slow"),
    22: ("origin", "blunt when longer"),
    23: (UNREACHABLE, "slow"),
    24: ("origin", "formula"),
    25: ("origin", "slow"),
    26: ("origin", "fast at every rank"),
    27: ("origin", "slow"),
    28: ("origin", "steeper than FLOPs"),
    29: ("formula", "steeper than FLOPs"),
    30: ("formula", "origin"),
    31: (UNREACHABLE, "slow"),
    32: ("small ranks near the limit", "large ranks near the limit"),
    33: ("origin", "rank grows with length"),
    34: ("origin", "slow"),
    35: ("slow", "formula"),
    36: ("origin", "formula"),
    37: ("origin", "slow"),
    38: ("origin", "slow"),
    39: ("advice", "origin"),
    40: ("advice", "origin"),
    41: ("origin", "formula"),
    42: ("origin", "slow"),
    43: ("origin", "slow"),
    44: ("superlinear", "origin"),
    45: ("origin", "slow"),
    46: ("origin", "slow"),
    47: ("origin", "slow"),
    48: ("formula", "origin"),
    49: ("formula", "origin"),
    50: ("formula", "origin"),
    51: ("formula", "origin"),
    52: ("advice", "origin"),
    53: ("formula", "origin"),
    54: ("superlinear", "origin"),
    55: ("origin", "fast at every rank"),
    56: ("formula", "origin"),
}


@cache
def world(name: str) -> Facts:
    return facts_of(make_report(**(SMALL | WORLDS[name])))


def verdict(number: int, facts: Facts) -> str:
    return judged(number, STATEMENTS[number - 1], facts).verdict


def test_every_statement_has_a_world_in_which_it_holds_and_one_that_refutes_it():
    assert sorted(CASES) == list(range(1, len(STATEMENTS) + 1))
    assert len({s.quote for s in STATEMENTS}) == len(STATEMENTS) >= 20
    assert sum(s.kind == "contradiction" for s in STATEMENTS) == 9


@pytest.mark.parametrize(("number", "name"), [(n, holds) for n, (holds, _) in CASES.items() if holds])
def test_a_statement_holds_where_the_data_agrees(number, name):
    answer = judged(number, STATEMENTS[number - 1], world(name))

    assert (answer.number, answer.verdict) == (number, "holds"), answer
    assert any(c.isdigit() for c in answer.figures)


@pytest.mark.parametrize(("number", "name"), [(n, refuted) for n, (_, refuted) in CASES.items()])
def test_a_statement_is_refuted_where_the_data_disagrees(number, name):
    answer = judged(number, STATEMENTS[number - 1], world(name))

    assert answer.verdict == "refuted", answer
    assert any(c.isdigit() for c in answer.figures)


@pytest.mark.parametrize("number", [n for n, (holds, _) in CASES.items() if holds is UNREACHABLE])
def test_what_no_report_measures_cannot_be_told_even_where_matmuls_are_faster(number):
    answer = judged(number, STATEMENTS[number - 1], world("origin"))

    assert answer.verdict == "cannot tell"
    assert "was measured" in answer.figures


# Lengths of their own: T = 100 says nothing of 64..4096. The others speak of any length.
OF_ANY_LENGTH = {23, 31, 32, 34, 37, 38, 39, 42}


@pytest.mark.parametrize("number", [n for n in CASES if n not in OF_ANY_LENGTH])
def test_a_statement_cannot_be_told_where_its_lengths_were_not_measured(number):
    facts = facts_of(make_report(**SMALL, tokens=(100,), ranks=(32, 96)))

    assert verdict(number, facts) == "cannot tell"


@pytest.mark.parametrize("number", [38, 39])
def test_advice_on_a_rank_cannot_be_told_where_that_rank_was_not_measured(number):
    facts = facts_of(make_report(**SMALL, tokens=(100,), ranks=(32, 96)))

    assert verdict(number, facts) == "cannot tell"


def test_memory_cannot_be_told_where_no_peak_was_measured():
    facts = facts_of(make_report(**SMALL, peak_bytes=lambda *_: None))

    answer = judged(42, STATEMENTS[41], facts)

    assert (answer.verdict, "No peak was measured at T=64" in answer.figures) == ("cannot tell", True)


def test_a_gpu_statement_cannot_be_told_from_a_cpu():
    assert verdict(32, world("origin")) == "cannot tell"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"features": 512, "ranks": (64, 128)}, "measured bilinear 512x512 with 1 head"),
        ({"kind": "linear", "variants": ("two",)}, "measured linear 4096x4096"),
        ({"rounds": 2}, "no thin row with 3 rounds"),
    ],
)
def test_no_statement_is_judged_by_another_experiment_or_by_too_few_rounds(changes, reason):
    found = statements(make_report(**(SMALL | changes)))

    assert {j.verdict for j in found} == {"cannot tell"}
    assert all(reason in j.figures for j in found)


def test_wide_noise_gives_cannot_tell_for_superlinear_growth():
    noisy = with_speedup(lambda t, _: 1.1 * t / 64 * (2.0 if t in {128, 1024} else 1.0))

    assert verdict(44, facts_of(make_report(**SMALL, time_ns=noisy))) == "cannot tell"


def test_ranks_that_tie_leave_a_contradiction_open():
    tied = facts_of(make_report(**SMALL, time_ns=with_speedup(lambda *_: 2.0)))

    assert verdict(48, tied) == "cannot tell"


def test_the_origins_chain_is_judged_and_not_a_faster_one():
    def time_ns(tokens: int, rank: int | None, variant: str) -> float:
        base = with_speedup(lambda *_: 2.0)(tokens, rank, variant)
        return base / 3 if variant == "two" else base

    facts = facts_of(make_report(**(SMALL | {"variants": ("three", "two")}), time_ns=time_ns))

    assert facts.thin[64, 64].row.variant == "three"
    assert facts.speedup(64, 64).value == pytest.approx(2.0, rel=0.01)  # 8 rounds of 0.2 % noise


def test_the_origins_dense_chain_is_the_baseline_though_another_is_faster():
    def time_ns(_tokens: int, rank: int | None, variant: str) -> float:
        return {"left": 4e6, "right": 1e6}.get(variant, 2e6 if rank else 0)

    facts = facts_of(make_report(**SMALL, time_ns=time_ns))

    assert facts.speedup(64, 64).value == pytest.approx(2.0, rel=0.01)
    assert facts.dense[64].variant == "left"


def test_every_speedup_in_the_figures_stands_beside_its_error():
    for name in ("origin", "slow"):
        figures = [judged(n, STATEMENTS[n - 1], world(name)).figures for n in CASES]
        assert all("error" in text for text in figures if "x [" in text)


def test_verdicts_are_counted_and_tabled_as_they_are():
    found = statements(make_report(**(SMALL | WORLDS["origin"])))
    table = statements_table(found)

    assert [row[1].text for row in table.rows] == [j.verdict for j in found]
    count = sum(j.verdict == "refuted" for j in found)
    assert f"{len(found)} statements" in verdicts_text(found)
    assert f"{count} are refuted" in verdicts_text(found)
