"""The linear benchmark and the one of the scores' gradients on a small CPU."""

from __future__ import annotations

import benchmark_fakes as fakes
import pytest
import torch

import backward
import linear
from _linear_point import LinearPoint
from _linear_targets import judge, report
from _rows import of
from narrows import kernels


def arguments(*more):
    return linear.parse(["-", "--width", "32", "--out", "24", "--ranks", "4,8", "--tokens", "1,128", *more])


def rows_of(tokens=5, factors="hot"):
    with torch.inference_mode():
        return linear.measure(tokens, 24, factors, arguments(), fakes.setting(), end=0.0)


def test_factors_are_cold_too_up_to_64_tokens():
    assert linear.points_of(arguments()) == [(1, 24, "hot"), (1, 24, "cold"), (128, 24, "hot")]


@pytest.mark.parametrize("factors", ["hot", "cold"])
def test_a_point_has_dense_and_every_implementation_at_every_rank(factors):
    rows = rows_of(factors=factors)
    assert [row["variant"] for row in rows if row["rank"] is None] == ["F.linear"]
    names = {kernel.name for kernel in kernels.kernels_for("linear")} | {"auto"}
    for rank in (4, 8):
        assert {row["variant"] for row in of(rows, rank=rank)} == names
    assert {row["status"] for row in rows if row["variant"] in {"F.linear", "two", "auto"}} == {"ok"}
    assert {row["factors"] for row in rows} == {factors}


def test_cold_factors_are_different_memory_and_different_values_in_every_call():
    setting = fakes.setting(cold=20_000)
    with torch.inference_mode():
        racers = LinearPoint(1, 32, 24, (4,), factors="cold", setting=setting).racers()
        two = next(racer for racer in racers if racer.variant == "two")
        first, again, second = two.call(0), two.call(0), two.call(1)
    assert two.count > 4
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


def test_a_wrong_linear_kernel_has_no_time(monkeypatch):
    class Wrong:
        name, kind = "wrong", "linear"

        def refuses(self, problem):
            return ""

        def launches(self, problem):
            return 1

        def pack(self, factors):
            return factors

        def run(self, x, factors):
            return fakes.spoiled(kernels.LINEAR_TWO.run)(x, factors)

    monkeypatch.setattr(kernels, "kernels_for", lambda kind: (kernels.LINEAR_TWO, Wrong()))
    rows = rows_of()
    assert {row["status"] for row in of(rows, variant="wrong")} == {"wrong result"}
    assert {row["status"] for row in of(rows, variant="two")} == {"ok"}


def measured(tokens, times, factors="hot", out=4096):
    return [
        {
            "tokens": tokens, "out_features": out, "factors": factors, "variant": variant, "rank": rank, "status": "ok",
            "reason": "", "time_us": time, "limit_us": time / 2, "share": 0.5, "samples_ns": [time * 1e3] * 12,
        }
        for (variant, rank), time in times.items()
    ]  # fmt: skip


TIMES = {("F.linear", None): 8.0, ("two", 64): 6.0, ("triton", 64): 3.0, ("auto", 64): 4.0, ("two", 1024): 6.0,
         ("triton", 1024): 6.0, ("auto", 1024): 6.3}  # fmt: skip


def test_each_rank_is_held_against_two_dense_and_its_limit():
    first, second = judge(measured(16, TIMES))["points"]
    assert (first["rank"], first["auto"]["value"], first["own"]["value"], first["own_variant"]) == (
        64,
        1.5,
        2.0,
        "triton",
    )
    assert first["auto_over_dense"]["value"] == 2.0
    assert first["limit_over_dense"] == pytest.approx(8 / 3)
    assert (first["auto_never_slower"], second["auto_never_slower"]) == ("yes", "no")


def test_the_mean_is_over_ranks_64_and_256_up_to_1024_tokens_with_hot_factors():
    rows = measured(16, TIMES) + measured(1024, {k: v * (2 if k[0] == "two" else 1) for k, v in TIMES.items()})
    rows += measured(4096, TIMES) + measured(16, TIMES, factors="cold")
    auto, own = judge(rows)["means"]
    assert auto["over_two"]["num_points"] == 2
    assert auto["over_two"]["value"] == pytest.approx((1.5 * 3.0) ** 0.5)
    assert own["over_two"]["value"] == pytest.approx((2.0 * 4.0) ** 0.5)
    assert (auto["must"], auto["reached_must"]) == (1.3, "yes")


def test_points_without_a_time_are_counted_as_missing():
    rows = [row for row in measured(16, TIMES) if row["variant"] != "triton"]
    _, own = judge(rows)["means"]
    assert (own["missing"], own["over_two"], own["reached_must"]) == (1, None, "not measured")
    assert "(1 points have no time)" in report(rows)


def test_rows_without_a_time_are_listed_with_their_reason():
    rows = measured(16, TIMES)
    rows[2] |= {"status": "refused", "reason": "needs sm_90", "time_us": None, "samples_ns": []}
    assert "4096, 16 tokens, hot, triton, rank 64: refused: needs sm_90" in report(rows)


def gradients(own, monkeypatch):
    monkeypatch.setattr(kernels, "score_gradients", own, raising=False)
    with torch.inference_mode():
        return backward.measure(32, 4, fakes.setting(), end=0.0)


def test_both_gradients_are_raced_against_two_matmuls(monkeypatch):
    rows = gradients(lambda grad, p, q: (grad @ q, grad.mT @ p), monkeypatch)
    assert {row["variant"]: row["status"] for row in rows} == {"two": "ok", "triton": "ok"}
    (judged,) = backward.judge(rows)
    assert (judged["over_two"]["value"], judged["never_slower"]) == (1.0, "yes")
    assert "1.00x [1.00, 1.00]" in backward.report(rows)


def test_a_gradient_of_the_wrong_side_has_no_time(monkeypatch):
    rows = gradients(lambda grad, p, q: (grad @ q, grad @ p), monkeypatch)
    assert of(rows, variant="triton")[0]["status"] == "wrong result"


def test_without_an_own_kernel_the_row_says_so(monkeypatch):
    (refused,) = of(gradients(None, monkeypatch), variant="triton")
    assert (refused["status"], refused["reason"]) == ("refused", "narrows.kernels has no score_gradients")
