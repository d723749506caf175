"""The bilinear benchmark on a small CPU: which rows it makes, what they are judged by, what it does without a GPU."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import benchmark_fakes as fakes
import pytest
import torch

import chain
import dense
from _chain_targets import TARGETS, judge, report
from _dense import PLAIN, form
from _rows import fastest, of
from narrows import kernels
from narrows.kernels._stacked import BilinearTwo

TOKENS, WIDTH = 16, 32


def arguments(*more):
    return chain.parse(["-", "--width", str(WIDTH), "--ranks", "4,8", "--dense", "none.json", *more])


def rows_of(setting=None):
    with torch.inference_mode():
        return chain.measure(TOKENS, arguments(), setting or fakes.setting(), end=0.0)


@pytest.fixture
def _only_two(monkeypatch):
    """Leave the other implementations out: the interpreter is slow, and these tests are not about them."""
    monkeypatch.setattr(kernels, "kernels_for", lambda kind: (kernels.BILINEAR_TWO,))


@dataclass(frozen=True, slots=True)
class Spoiled(BilinearTwo):
    name: str = "spoiled"

    def run(self, x, factors, y=None, *, out=None):
        return fakes.spoiled(BilinearTwo.run)(BilinearTwo(), x, factors, y, out=out)


@dataclass(frozen=True, slots=True)
class Broken(BilinearTwo):
    name: str = "broken"

    def run(self, *args: Any, **kwargs: Any):
        raise RuntimeError("out of resource: shared memory")


@pytest.mark.parametrize("name", PLAIN)
def test_every_dense_form_computes_the_same(name):
    weight, x = torch.randn(8, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    assert torch.allclose(form(name, weight, weight.mT.contiguous())(x), x @ weight.mT @ x.mT)


def test_a_length_has_every_implementation_at_every_rank_and_dense_in_both_modes():
    rows = rows_of()
    graph, eager = of(rows, mode="graph"), of(rows, mode="eager")
    assert {row["variant"] for row in graph if row["rank"] is None} == set(PLAIN)
    names = {kernel.name for kernel in kernels.kernels_for("bilinear")} | {"auto"}
    for rank in (4, 8):
        assert {row["variant"] for row in of(graph, rank=rank)} == names
    assert {row["rank"] for row in eager} == {None, 4}, "without rank 64, the smallest"
    timed = [row for row in rows if row["status"] == "ok"]
    assert all(row["time_us"] == 1.0 and row["worst"] <= 1 and row["limit_us"] > 0 for row in timed)
    assert {"two", "three", "auto"} <= {row["variant"] for row in timed}


def test_a_kernel_that_refuses_stays_in_the_rows_with_its_reason(monkeypatch):
    @dataclass(frozen=True, slots=True)
    class Refusing(BilinearTwo):
        name: str = "refusing"

        def refuses(self, problem):
            return f"needs sm_90; this is {problem.device}"

    monkeypatch.setattr(kernels, "kernels_for", lambda kind: (kernels.BILINEAR_TWO, Refusing()))
    refusing = of(rows_of(), variant="refusing")
    assert {(row["status"], row["reason"]) for row in refusing} == {("refused", "needs sm_90; this is cpu")}


def test_a_wrong_kernel_and_a_failing_one_have_no_time(monkeypatch):
    monkeypatch.setattr(kernels, "kernels_for", lambda kind: (kernels.BILINEAR_TWO, Spoiled(), Broken()))
    rows = rows_of()
    assert {row["status"] for row in of(rows, variant="spoiled")} == {"wrong result"}
    assert {row["reason"] for row in of(rows, variant="broken")} == {"RuntimeError: out of resource: shared memory"}
    assert all(row["time_us"] is None for row in rows if row["variant"] in {"spoiled", "broken"})
    assert all(row["time_us"] for row in of(rows, variant="two"))


@pytest.mark.usefixtures("_only_two")
def test_recorded_winners_are_the_dense_forms_that_race(tmp_path, capsys):
    recorded = [{"tokens": TOKENS, "variant": n, "time_us": t, "status": "ok"} for t, n in enumerate(PLAIN, start=1)]
    path = tmp_path / "dense.json"
    path.write_text(json.dumps({"machine": {"name": "a CPU"}, "rows": recorded}), encoding="utf-8")
    with torch.inference_mode():
        rows = chain.measure(TOKENS, arguments("--dense", str(path)), fakes.setting(), end=0.0)
    assert {row["variant"] for row in rows if row["rank"] is None} == set(PLAIN[:2])
    assert not capsys.readouterr().out


@pytest.mark.usefixtures("_only_two")
def test_without_a_record_it_says_that_it_races_all_plain_forms(capsys):
    rows_of()
    assert "16 tokens: none.json does not say which dense form is fastest on a CPU" in capsys.readouterr().out


def measured(tokens, times, mode="graph"):
    """Rows of one length: {(variant, rank): microseconds}."""
    return [
        {
            "tokens": tokens, "mode": mode, "variant": variant, "rank": rank, "status": "ok", "reason": "",
            "time_us": time, "limit_us": time / 2, "share": 0.5, "spread": 0.0, "samples_ns": [time * 1e3] * 12,
        }
        for (variant, rank), time in times.items()
    ]  # fmt: skip


GRAPH = {
    ("left out-in", None): 16.0, ("right in-out", None): 15.0,
    ("two", 64): 9.0, ("triton", 64): 4.0, ("auto", 64): 4.5,
    ("two", 128): 9.0, ("triton", 128): 5.0, ("auto", 128): 7.0,
}  # fmt: skip


def test_the_best_rank_is_held_against_the_fastest_dense_form():
    (judged,) = judge(measured(64, GRAPH))
    assert (judged["dense"], judged["must"], judged["aim"]) == ("right in-out", 3.0, 4.0)
    best, auto = judged["best"], judged["auto"]
    assert (best["variant"], best["rank"], best["speedup"]["value"]) == ("triton", 64, 3.75)
    assert (best["reached_must"], best["reached_aim"]) == ("yes", "no")
    assert (auto["speedup"]["value"], auto["reached_must"]) == (pytest.approx(10 / 3), "yes")


def test_a_rank_below_64_is_not_the_best_one():
    (judged,) = judge(measured(64, GRAPH | {("triton", 32): 1.0}))
    assert judged["best"]["rank"] == 64


def test_rank_128_is_held_against_two_cublas_matmuls():
    (judged,) = judge(measured(64, GRAPH))
    (over,) = judged["over_two"]
    assert (over["rank"], over["own_variant"], over["own"]["value"], over["must"]) == (128, "triton", 1.8, 1.5)
    assert (over["reached_must"], over["auto_never_slower"]) == ("no", "yes")
    (slow,) = judge(measured(64, GRAPH | {("auto", 128): 9.5}))[0]["over_two"]
    assert slow["auto_never_slower"] == "no"
    (long,) = judge(measured(1024, GRAPH))[0]["over_two"]
    assert (long["must"], long["reached_must"]) == (None, None)


def test_launched_by_the_host_auto_must_beat_dense_up_to_512_and_never_lose():
    eager = {("left out-in", None): 30.0, ("right in-out", None): 29.0, ("auto", 64): 20.0, ("two", 64): 35.0}
    judged = judge(measured(512, eager, "eager"))[0]["eager"]
    assert (judged["speedup"]["value"], judged["reached_must"], judged["never_slower"]) == (1.45, "yes", "yes")
    slow = judge(measured(1024, eager | {("auto", 64): 31.0}, "eager"))[0]["eager"]
    assert (slow["must"], slow["never_slower"]) == (None, "no")


def test_memory_beyond_what_is_stated_is_said():
    row = {"tokens": 64, "mode": "memory", "variant": "triton", "rank": 64, "status": "ok", "reason": ""}
    sizes = {"requested": 100, "output": 50, "middle": 20, "workspace": 10, "is_within": False}
    rows = [*measured(64, GRAPH), {**row, **sizes}]
    assert judge(rows)[0]["memory"] == "no"
    assert "takes 100 bytes, 20 more than its result, projections and workspace" in report(rows)
    assert judge([*measured(64, GRAPH), {**row, **sizes, "is_within": True}])[0]["memory"] == "yes"


def test_a_length_without_any_time_is_judged_as_not_measured():
    rows = [
        {**row, "status": "failed", "reason": "no", "time_us": None, "samples_ns": []} for row in measured(64, GRAPH)
    ]
    (judged,) = judge(rows)
    assert (judged["best"], judged["auto"], judged["eager"]["never_slower"]) == (None, None, "not measured")
    assert "failed" not in report(rows).splitlines()[0]


def test_the_report_shows_every_length_with_its_targets():
    text = report([row for tokens in TARGETS for row in measured(tokens, GRAPH)])
    assert all(f"{must:.1f}" in text and f"{aim:.1f}" in text for must, aim in TARGETS.values())
    assert "3.75x [3.75, 3.75]" in text


@pytest.mark.usefixtures("_only_two")
def test_a_report_of_real_rows_is_made():
    rows = rows_of()
    assert "over the best dense form" in report(rows)
    assert fastest(rows) is not None


def test_dense_measures_every_form_and_keeps_other_lengths(tmp_path):
    path = tmp_path / "dense.json"
    path.write_text(json.dumps({"rows": [{"tokens": 8}]}), encoding="utf-8")
    assert dense.known(str(path)) == [{"tokens": 8}]
    assert dense.known("-") == dense.known(str(tmp_path / "none.json")) == []
    asked = dense.parse(["-", "--width", str(WIDTH), "--plain", "--seconds", "0"])
    with torch.inference_mode():
        rows = dense.measure(TOKENS, asked, fakes.setting())
    assert [row["variant"] for row in rows] == list(PLAIN)
    assert "over the fastest" in dense.report(rows)


@pytest.mark.usefixtures("_only_two")
def test_float64_finds_a_wrong_dense_form(monkeypatch):
    monkeypatch.setattr("_chain_point.form", lambda *_: lambda x: x @ x.mT)
    assert {row["status"] for row in rows_of() if row["rank"] is None} == {"wrong result"}


def test_calls_rotate_over_the_cold_bytes():
    asked = replace(fakes.setting(), cold=10_000)
    assert [asked.calls(size) for size in (1, 100, 10_000)] == [2048, 100, 4]
