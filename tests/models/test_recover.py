"""Training a compressed model on what its dense model says."""

from __future__ import annotations

import copy
import time
from functools import partial

import pytest
import torch

import tiny_models
from models.jobs import job, loss_of, with_parts
from models.taught import taught
from narrows import factorize
from narrows.errors import InputError, NonFiniteError
from narrows.models import Summary, _compress_trial, _recover
from narrows.models._compress_trial import Built, built, recovered
from narrows.models._recover import BATCH, recover_, reorder_, trainable
from narrows.nn import LowRankLinear, PivotLinear

STEPS = 24


@pytest.fixture(scope="module")
def made():
    """Return a job, its plan, and parts of that plan from the weights alone: there is much to recover."""
    one = job(taught(), keep=0.45, forms=("low-rank",))
    plan = one.plan(one.budget)
    thin = {c.layer: c.chosen.rank for c in plan.layers if c.chosen.rank is not None}
    weights = {name: one.model.get_submodule(name).weight.detach() for name in thin}
    return one, plan, {name: factorize(weights[name], rank=rank) for name, rank in thin.items()}


@pytest.fixture
def student(made):
    one, plan, parts = made
    return copy.deepcopy(with_parts(one, plan, parts))


@pytest.fixture
def _counted(monkeypatch):
    """Let a step be the clock: a run has STEPS of them, whatever the machine does."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(_recover.time, "monotonic", lambda: float(next(ticks)))


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(before, model):
    after = model.state_dict()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


@pytest.mark.usefixtures("_counted")
@pytest.mark.parametrize("trained", ["factors", "blocks"])
def test_the_loss_falls_and_only_what_was_asked_for_moves(made, student, trained):
    one = made[0]
    ids_NT = one.reading.training
    before, dense_before = snapshot(student), snapshot(one.model)
    lost = loss_of(one.model, student, ids_NT[:16])
    said = []

    found = recover_(
        student,
        one.model,
        ids_NT,
        seconds=STEPS,
        trained=trained,
        learning_rate=2e-3,
        progress=lambda *what: said.append(what),
    )

    assert loss_of(one.model, student, ids_NT[:16]) < 0.5 * lost
    assert found.last < found.first
    assert (found.steps, found.tokens) == (STEPS - 1, (STEPS - 1) * BATCH * 64)
    thin = tuple(name for name, layer in student.named_modules() if isinstance(layer, (LowRankLinear, PivotLinear)))
    changed = moved(before, student)
    assert changed
    assert {name.startswith("model.layers.") for name in changed} == {True}  # no embedding, no head, no last norm
    outside = {name for name in changed if not name.startswith(thin)}
    assert (not outside) is (trained == "factors")
    assert not moved(dense_before, one.model)
    assert said[-1] == ("recovery seconds", STEPS, STEPS)
    assert all(one.requires_grad and one.grad is None for one in student.parameters())
    assert not student.training


@pytest.mark.usefixtures("_counted")
def test_the_seed_decides_the_run(made, student):
    one = made[0]
    other, third = copy.deepcopy(student), copy.deepcopy(student)

    for model, seed in ((student, 0), (other, 0), (third, 1)):
        recover_(model, one.model, one.reading.training, seconds=4, seed=seed)

    assert not moved(snapshot(student), other)
    assert moved(snapshot(student), third)


def test_it_stops_at_the_time_that_was_given(made, student):
    one = made[0]
    started = time.monotonic()

    found = recover_(student, one.model, one.reading.training, seconds=0.5)

    # The step that runs when the time is over is finished; it takes milliseconds, but a busy machine stalls.
    assert 0.5 <= found.seconds <= time.monotonic() - started < 5.0
    assert found.steps > 1


@pytest.mark.usefixtures("_counted")
def test_weights_in_bfloat16_move_by_less_than_their_rounding(made, student):
    one = made[0]
    dense, student = copy.deepcopy(one.model).bfloat16(), student.bfloat16()
    lost = loss_of(dense, student, one.reading.training[:16])

    recover_(student, dense, one.reading.training, seconds=STEPS, learning_rate=2e-3)

    assert all(parameter.dtype == torch.bfloat16 for parameter in student.parameters())
    assert loss_of(dense, student, one.reading.training[:16]) < 0.5 * lost


@pytest.mark.usefixtures("_counted")
def test_factors_are_put_back_in_order_with_a_certificate_of_their_own(made, student):
    one = made[0]
    layers = {name: layer for name, layer in student.named_modules() if isinstance(layer, LowRankLinear)}
    assert layers
    recover_(student, one.model, one.reading.training, seconds=6, learning_rate=2e-3)
    before = {name: layer.factors for name, layer in layers.items()}
    assert not any(factors.is_ordered for factors in before.values())

    reorder_(student, one.moments, method="two-sided")

    for name, factors in before.items():
        after = student.get_submodule(name).factors
        assert after.is_ordered
        assert after.certificate is not None
        assert after.certificate.method == "two-sided"
        scale = factors.dense().norm()
        assert (after.dense() - factors.dense()).norm() < 1e-5 * scale  # float32 factors: 1e-7 for each of 64 sums


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"seconds": 0.0}, "seconds=0.0 must be a finite number above 0"),
        ({"seconds": float("inf")}, "seconds=inf must be a finite number"),
        ({"seconds": 1.0, "trained": "all"}, "trained='all' is not known. Use 'factors' or 'blocks'"),
    ],
)
def test_what_cannot_be_trained_is_refused(made, student, changes, text):
    one = made[0]

    with pytest.raises(InputError, match=text):
        recover_(student, one.model, one.reading.training, **changes)


def test_a_dense_model_has_nothing_to_recover(made):
    one = made[0]

    with pytest.raises(InputError, match="no compressed layer: there is nothing to recover"):
        trainable(one.model, "factors")
    with pytest.raises(InputError, match=r"ids \(0, 64\) must be \(N, T\)"):
        recover_(one.model, one.model, torch.zeros(0, 64, dtype=torch.int64), seconds=1.0)


def test_a_loss_that_is_no_number_is_an_error_and_leaves_the_model_as_it_was_set(made, student):
    one = made[0]
    bad = next(layer for layer in student.modules() if isinstance(layer, (LowRankLinear, PivotLinear)))
    with torch.no_grad():
        bad.down.weight[0, 0] = float("nan")

    with pytest.raises(NonFiniteError, match="the loss is nan nats a token"):
        recover_(student, one.model, one.reading.training, seconds=5.0)

    assert all(parameter.requires_grad for parameter in student.parameters())


@pytest.mark.usefixtures("_counted")
def test_training_that_makes_it_worse_is_not_kept(made, student, monkeypatch):
    one, plan, _ = made
    before = Built(plan, student, Summary(()))

    better = recovered(one, before, STEPS)
    monkeypatch.setattr(_compress_trial, "recover_", partial(recover_, learning_rate=10.0))
    worse = recovered(one, before, STEPS)

    assert better.is_trained
    assert better.model is not student
    assert not worse.is_trained
    assert worse.model is student
    assert worse.recovery is not None
    assert worse.quality.ratio.value > better.quality.ratio.value > 1


@pytest.mark.usefixtures("_counted")
def test_a_conv1d_keeps_knowing_that_it_was_one():
    one = job(tiny_models.gpt2(initializer_range=0.2), keep=0.7, forms=("low-rank",))
    plan = one.plan(one.budget)

    found = recovered(one, built(one, plan), 6)

    layers = [layer for layer in found.model.modules() if isinstance(layer, LowRankLinear)]
    assert layers
    assert all(layer.is_transposed for layer in layers)
