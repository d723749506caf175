"""From times to rows, ratios and judgements; reading the recorded dense forms."""

from __future__ import annotations

import json

import benchmark_fakes as fakes
import pytest

from _race import Racer
from _rows import as_json, contenders, fastest, geometric_mean, limit_of, never_slower, ratio, reached, row_of, table
from narrows._cost import Cost
from narrows._stats import Ratio


def row(variant, times, **more):
    racer = Racer(variant, more.pop("rank", None), lambda _: None, 4, {}, more.pop("limit_ns", None))
    racer.samples_ns = list(times)
    return row_of(racer, tokens=64, mode="graph", **more)


def test_a_row_holds_median_spread_share_and_samples():
    found = row("two", [900.0, 1000.0, 1100.0] * 4, rank=64, limit_ns=250.0)
    assert found["time_us"] == 1.0
    assert found["share"] == 0.25
    assert found["spread"] == pytest.approx(0.2)
    assert len(found["samples_ns"]) == 12
    assert json.loads(json.dumps(found)) == found


def test_a_row_without_times_has_no_ratio():
    racer = Racer("gluon", 64, lambda _: None, 4, {}, status="refused", reason="needs sm_90")
    refused = row_of(racer, tokens=64)
    assert refused["time_us"] is None
    assert refused["reason"] == "needs sm_90"
    assert ratio(row("dense", [1.0] * 12), refused) is None


def test_a_row_faster_than_its_limit_says_so():
    assert any("faster than the limit" in doubt for doubt in row("two", [100.0] * 12, limit_ns=200.0)["doubts"])


def test_a_ratio_is_paired_by_round():
    drifting = [1.0, 2.0, 4.0] * 4
    found = ratio(row("dense", [3 * t for t in drifting]), row("thin", drifting))
    assert (found.value, found.low, found.high, found.num_rounds) == (3.0, 3.0, 3.0, 12)


def test_the_fastest_is_the_smallest_median_among_rows_with_a_time():
    rows = [row("a", [3.0] * 9), row("b", [2.0] * 9), row("c", [])]
    assert fastest(rows)["variant"] == "b"
    assert fastest(rows[2:]) is None


@pytest.mark.parametrize(
    ("low", "value", "high", "answer"),
    [(3.1, 3.2, 3.3, "yes"), (2.7, 2.8, 2.9, "no"), (2.9, 3.1, 3.3, "about"), (3.0, 3.0, 3.0, "yes")],
)
def test_a_target_is_reached_missed_or_too_near_to_tell(low, value, high, answer):
    assert reached(as_json(Ratio(value, low, high, 12)), 3.0) == answer


def test_a_target_without_a_ratio_is_not_measured():
    assert reached(None, 3.0) == "not measured"
    assert never_slower(None) == "not measured"


@pytest.mark.parametrize(("low", "high", "answer"), [(0.9, 0.97, "no"), (0.97, 1.01, "yes"), (1.2, 1.3, "yes")])
def test_slower_means_slower_beyond_a_tie(low, high, answer):
    assert never_slower(as_json(Ratio((low + high) / 2, low, high, 12))) == answer


def test_a_geometric_mean_is_that_of_values_and_of_ends():
    ratios = [as_json(Ratio(1.0, 0.5, 2.0, 12)), as_json(Ratio(4.0, 2.0, 8.0, 12))]
    mean = geometric_mean(ratios)
    assert (mean["value"], mean["low"], mean["high"], mean["num_points"]) == pytest.approx((2.0, 1.0, 4.0, 2))
    assert geometric_mean([]) is None


def test_the_limit_counts_hot_weights_at_the_speed_of_the_cache():
    cost = Cost(flops=0, bytes_read=2_000_000, bytes_written=0, intermediate_bytes=0)
    assert limit_of(cost, 1, fakes.CEILINGS, hot_bytes=0) == 2000.0
    assert limit_of(cost, 1, fakes.CEILINGS, hot_bytes=1_000_000) == 1500.0
    assert limit_of(cost, 1, fakes.CEILINGS, hot_bytes=1_500_000) == 2000.0, "more than the cache holds"
    assert limit_of(cost, 5, fakes.CEILINGS, hot_bytes=0) == 2500.0, "launches take longer than the bytes"
    assert limit_of(cost, 5, fakes.CEILINGS, hot_bytes=0, mode="eager") == 5000.0


def recorded(tmp_path, times):
    rows = [
        {"tokens": 64, "variant": name, "time_us": time, "status": "ok" if time else "failed"}
        for name, time in times.items()
    ]
    path = tmp_path / "dense.json"
    path.write_text(json.dumps({"machine": {"name": "GPU"}, "rows": rows}), encoding="utf-8")
    return path


TIMES = {"left out-in": 15.5, "left in-out": 15.4, "right out-in": 15.3, "left max-autotune": 16.0}


def test_the_two_fastest_recorded_forms_race(tmp_path):
    assert contenders(recorded(tmp_path, TIMES), 64, "GPU") == ("right out-in", "left in-out")


def test_a_compiled_form_races_only_where_it_won(tmp_path):
    won = recorded(tmp_path, TIMES | {"left max-autotune": 14.6, "right max-autotune": 14.7})
    assert contenders(won, 64, "GPU") == ("left max-autotune", "right out-in")
    second = recorded(tmp_path, TIMES | {"left max-autotune": 15.35})
    assert contenders(second, 64, "GPU") == ("right out-in", "left in-out")


def test_a_form_without_a_time_does_not_race(tmp_path):
    assert contenders(recorded(tmp_path, TIMES | {"right out-in": None}), 64, "GPU") == ("left in-out", "left out-in")


def test_a_record_of_another_device_names_no_forms(tmp_path):
    assert contenders(recorded(tmp_path, TIMES), 64, "another GPU") == ()


def test_no_record_or_no_such_length_gives_no_forms(tmp_path):
    assert contenders(tmp_path / "none.json", 64, "GPU") == ()
    assert contenders(recorded(tmp_path, TIMES), 128, "GPU") == ()


def test_a_table_aligns_its_columns():
    assert table(("us", "by"), [(1, "two"), (100.5, "-")]) == "   us   by\n    1  two\n100.5    -"
