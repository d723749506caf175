"""The centring benchmark: its errors are those of outputs, and centring wins where it must."""

import json

import pytest
import torch

import centring
from narrows._values import Moments
from narrows.decompose import weighted


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(mean, *, windows=8, D=12, E=9):
    """Return a layer whose inputs have a mean of this size."""
    return centring.Layer("toy", "layer", normal(E, D), normal(windows, centring.WINDOW, D, seed=1) + mean)


@pytest.mark.parametrize(("E", "D"), [(9, 12), (12, 9)])
def test_the_errors_are_those_of_the_outputs(E, D):
    weight, x_TD, mean_D = normal(E, D), normal(30, D, seed=1), normal(D, seed=2)
    found = weighted(weight, Moments(x_TD.mT @ x_TD / 30, mean_D, None, 30), method="one-sided")
    around_KK = centring.Sums.of(x_TD).projected(found.a).around(found.a @ mean_D)
    norms = centring.lost_norms(found.b, around_KK)
    assert norms.shape == (9,)
    for rank in range(1, 9):
        apart = weight - found.factors(rank).dense()
        assert float(norms[rank]) == pytest.approx(float(((x_TD - mean_D) @ apart.mT).norm()), rel=1e-9)
    assert float(norms[0]) == pytest.approx(float(((x_TD - mean_D) @ weight.mT).norm()), rel=1e-9)


def test_a_large_mean_is_worth_centring_and_none_is_not():
    large, none = (centring.summary(centring.compare(layer(mean))) for mean in (10.0, 0.0))
    assert all(one["largest"] < 1 and one["mean_ratio"] < 0.95 for one in large if one["way"] == "centred")
    assert all(abs(one["mean_ratio"] - 1) < 0.02 for one in none)


def test_a_half_tests_what_it_did_not_calibrate():
    one = layer(0.0)
    seen, tested = centring.halves(one.x_NTD)
    errors = centring.split_errors(one, seen[True], tested, 0.1)[True][0.4]
    assert errors["uncentred"] > centring.split_errors(one, tested[True], tested, 0.1)[True][0.4]["uncentred"]
    assert seen[True].count == 4 * centring.WINDOW
    assert seen[False].count == 4 * (centring.WINDOW - 1)


def test_the_page_says_what_was_recorded(root):
    record = json.loads((root / "benchmarks" / "results" / "centring.json").read_text(encoding="utf-8"))
    page = (root / "docs" / "explanation" / "weighted.md").read_text(encoding="utf-8")
    where = {(True, True): "in calibration and test", (False, False): "in neither", (False, True): "in the test only"}
    for one in record["summary"]:
        first = where.get((one["calibrated_first"], one["tested_first"]))
        if first and one["way"] == "centred":
            figures = " | ".join(f"{one[key]:.4f}" for key in ("mean_ratio", "smallest", "largest"))
            assert f"| {one['shrinkage']:g} | {first} | {figures} |" in page
    biased = [x for one in record["summary"] if one["way"] == "bias only" for x in (one["smallest"], one["largest"])]
    assert max(abs(x - 1) for x in biased) <= 0.0002
    by_case = {}
    for row in record["rows"]:
        if row["calibrated_first"] and row["tested_first"]:
            by_case.setdefault((row["layer"], row["keep"]), {})[row["shrinkage"]] = row["error"]["uncentred"]
    gains = [1 - case[0.1] / case[0.0] for case in by_case.values()]
    assert f"lower in {sum(gain > 0 for gain in gains)} of {len(gains)} cases" in page
    assert f"by up to {100 * max(gains):.1f} %" in page
