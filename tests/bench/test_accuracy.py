"""The error of a chain, split into truncation and rounding, against a computation by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.experiments import GAUSSIAN, PRODUCT, small
from narrows.bench import _accuracy
from narrows.bench._accuracy import output_errors, sampled_rows, upper95
from narrows.bench._material import make_inputs, make_operands


def _errors(experiment, source=GAUSSIAN):
    operands = make_operands(source, experiment)
    x, y = make_inputs(experiment)
    dtype = getattr(torch, experiment.dtype)
    x, y = x.to(dtype), None if y is None else y.to(dtype)
    factors = operands.factorize(max(experiment.ranks))
    found = output_errors(experiment, weight_name=source.name, exact_weight=operands.exact(), factors=factors, x=x, y=y)
    return {(e.tokens, e.rank): e for e in found}, operands, factors, x, y


@pytest.mark.parametrize("kind", ["linear", "bilinear"])
def test_truncation_is_the_distance_of_the_exact_chains(kind):
    experiment = small(kind=kind)
    errors, operands, factors, x, _ = _errors(experiment)
    # 64 rows: all of them for linear, two blocks of 32 with Y = X.
    W, blocks = operands.exact(), torch.split(x[:64].double(), 64 if kind == "linear" else 32)
    for rank in experiment.ranks:
        thin = factors.truncate(rank).dense()
        ends = [torch.eye(64, dtype=torch.float64)] if kind == "linear" else [block.T for block in blocks]
        wanted = torch.stack([x64 @ W.T @ end for x64, end in zip(blocks, ends, strict=True)])
        got = torch.stack([x64 @ thin.T @ end for x64, end in zip(blocks, ends, strict=True)])
        assert errors[32, rank].truncation == pytest.approx(float((got - wanted).norm() / wanted.norm()), rel=1e-6)


def test_a_rectangular_bilinear_form_uses_y_and_not_x():
    experiment = small(out_features=48, other_tokens=20)
    errors, operands, factors, x, y = _errors(experiment)
    wanted = x[:64].double() @ operands.exact().T @ y.double().T
    got = x[:64].double() @ factors.truncate(4).dense().T @ y.double().T
    assert errors[32, 4].truncation == pytest.approx(float((got - wanted).norm() / wanted.norm()), rel=1e-6)


def test_rounding_is_of_the_size_of_the_dtypes_and_apart_from_truncation():
    """Two roundings of the result and one of each factor: 0.3 to 3 units of roundoff in the norm."""
    full, _, _, _, _ = _errors(small())
    half, _, _, _, _ = _errors(small(dtype="bfloat16"))
    assert 0.1 * 2**-24 < full[32, 16].rounding < 20 * 2**-24
    assert 0.3 * 2**-8 < half[32, 16].rounding < 3 * 2**-8
    assert half[32, 16].truncation == pytest.approx(full[32, 16].truncation, rel=0.02)


def test_a_product_has_no_truncation_error_from_its_true_rank_on():
    errors, _, _, _, _ = _errors(small(ranks=(8, 16, 32), weights=(PRODUCT,)), PRODUCT)
    assert errors[32, 8].truncation > 0.1
    assert errors[32, 16].truncation < 1e-12
    assert errors[32, 32].total < 1e-5


def test_the_upper_end_lies_above_the_estimate_and_nears_it_with_more_rows():
    rng = np.random.default_rng(0)
    few, many = rng.chisquare(3, 16), rng.chisquare(3, 4096)
    gap_few = upper95(few, np.ones(16)) / np.sqrt(few.mean()) - 1
    gap_many = upper95(many, np.ones(4096)) / np.sqrt(many.mean()) - 1
    assert 0 < gap_many < gap_few


def test_a_sample_of_rows_is_ascending_without_repeats_and_repeatable():
    rows = sampled_rows(1000, seed=3)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == 64
    assert torch.equal(rows, sampled_rows(1000, seed=3))
    assert not torch.equal(rows, sampled_rows(1000, seed=4))
    assert sampled_rows(5, seed=0).tolist() == [0, 1, 2, 3, 4]


def test_errors_of_many_tokens_are_added_up_part_by_part(monkeypatch):
    """Sums of squares in another order: a few roundings of float64, and of float32 for the rounded chain."""
    whole, *_ = _errors(small())
    monkeypatch.setattr(_accuracy, "PART_BYTES", 8 * 64 * 5)
    parts, *_ = _errors(small())
    for key, error in whole.items():
        assert parts[key].truncation == pytest.approx(error.truncation, rel=1e-12)
        assert parts[key].upper95 == pytest.approx(error.upper95, rel=1e-6)


def test_lengths_without_an_input_have_no_error():
    experiment = small(tokens=(16, 128))
    operands = make_operands(GAUSSIAN, experiment)
    x, _ = make_inputs(experiment, 16)
    factors = operands.factorize(16)
    found = output_errors(experiment, weight_name="w", exact_weight=operands.exact(), factors=factors, x=x, y=None)
    assert {error.tokens for error in found} == {16}


def test_a_chain_that_overflows_has_an_infinite_error():
    assert upper95(np.array([1.0, np.nan]), np.ones(2)) == np.inf


def test_one_token_is_judged_by_many_rows_of_the_input_and_not_by_its_first():
    experiment = small(kind="linear", tokens=(1, 32), ranks=(4,))
    operands = make_operands(GAUSSIAN, experiment)
    factors = operands.factorize(4)
    x, _ = make_inputs(experiment)
    x[0] = 1e4 * factors.a[0].float()  # an outlier that the factors keep exactly
    fields = {"weight_name": "w", "exact_weight": operands.exact(), "factors": factors, "y": None}
    one, many = output_errors(experiment, x=x, **fields)
    assert (one.total, one.upper95) == (many.total, many.upper95)
    assert one.upper95 > 0.5 > one.total


@pytest.mark.parametrize("tokens", [1, 5])
def test_short_self_products_take_several_blocks(tokens):
    experiment = small(tokens=(tokens,), ranks=(4,))
    errors, _, _, _, _ = _errors(experiment)
    assert 0 < errors[tokens, 4].total < errors[tokens, 4].upper95
