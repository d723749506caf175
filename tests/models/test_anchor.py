"""Factors that are fitted to what their layer reads in the compressed model."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import Counter
from functools import cache

import pytest
import torch
from torch import nn

import tiny_models
from models.jobs import job, loss_of, with_parts
from models.taught import taught
from narrows._values import Factors, PivotFactors
from narrows.decompose import weighted
from narrows.errors import InputError, NonFiniteError
from narrows.models import _anchor_blocks
from narrows.models._anchor import anchored_parts
from narrows.models._anchor_shorter import Shorter

WIDE = {"initializer_range": 0.2}  # so that layers matter
MAKERS = {
    "llama": taught,
    "qwen2": lambda: tiny_models.qwen2(**WIDE),
    "gpt2": lambda: tiny_models.gpt2(**WIDE),
    "gemma3": lambda: tiny_models.gemma3(
        **WIDE, sliding_window=16, layer_types=["sliding_attention", "full_attention"]
    ),  # two kinds of mask and of rotation
    "bert": lambda: tiny_models.bert(**WIDE),
}


@cache
def planned(family):
    """Return a job with its plan; moments are calibrated once."""
    one = job(MAKERS[family]())
    return one, one.plan(one.budget)


def parts_of(one, plan, **options):
    return anchored_parts(one.model, plan, one.targets, one.moments, one.reading.calibration, **options)


def plain_parts(one, plan):
    return job(one.model, is_anchored=False).parts(plan)


def swapped(monkeypatch):
    """Exchange what the dense and what the compressed model reads."""
    right = _anchor_blocks.Chain.joint_moments
    monkeypatch.setattr(
        _anchor_blocks.Chain, "joint_moments", lambda self, dense, made: right(self, list(made), iter(dense))
    )


@pytest.mark.parametrize("family", MAKERS)
def test_the_whole_model_loses_less_than_with_layers_fitted_by_themselves(family, monkeypatch):
    one, plan = planned(family)
    ids_NT = one.reading.calibration

    mine = loss_of(one.model, with_parts(one, plan, parts_of(one, plan)), ids_NT)
    plain = loss_of(one.model, with_parts(one, plan, plain_parts(one, plan)), ids_NT)

    assert mine < plain
    swapped(monkeypatch)
    assert loss_of(one.model, with_parts(one, plan, parts_of(one, plan)), ids_NT) > mine


def test_the_first_layers_have_nothing_to_mend():
    one, plan = planned("llama")
    first = "model.layers.0.self_attn."
    choices = {c.layer: c.chosen for c in plan.layers if c.layer.startswith(first) and c.chosen.rank is not None}
    reads_the_input = [name for name in choices if not name.endswith("o_proj")]
    assert reads_the_input

    parts = parts_of(one, plan)

    for name in reads_the_input:
        made = weighted(one.model.get_submodule(name).weight, one.moments[name], method="two-sided")
        best = made.pivot if choices[name].form == "pivot" else made.factors
        # Sums over the same tokens in another order, and weights in float32.
        torch.testing.assert_close(parts[name].dense(), best(choices[name].rank).dense(), rtol=1e-4, atol=1e-6)


def test_every_layer_that_the_plan_makes_smaller_gets_its_form_and_rank_and_the_model_is_untouched():
    one, plan = planned("gpt2")
    before = copy.deepcopy(one.model.state_dict())
    said = []

    parts = parts_of(one, plan, progress=lambda *what: said.append(what))

    wanted = {c.layer: (PivotFactors if c.chosen.form == "pivot" else Factors, c.chosen.rank) for c in plan.layers}
    assert {name: (type(part), part.rank) for name, part in parts.items()} == {
        name: pair for name, pair in wanted.items() if pair[1] is not None
    }
    assert said == [("anchoring", 0, 2), ("anchoring", 1, 2), ("anchoring", 2, 2)]
    after = one.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(module._forward_pre_hooks for module in one.model.modules())
    assert one.model.config.use_cache


def test_one_sided_factors_are_anchored_without_gradients():
    one = job(taught(), method="one-sided")
    plan = one.plan(one.budget)

    parts = one.parts(plan)

    assert all(one.moments[name].gradients is None for name in parts)
    plain = job(one.model, method="one-sided", is_anchored=False)
    ids_NT = one.reading.calibration
    mine, other = (loss_of(one.model, with_parts(one, plan, made), ids_NT) for made in (parts, plain.parts(plan)))
    assert mine < other


def test_autocast_gives_about_the_same_factors():
    one, plan = planned("llama")

    exact, rounded = parts_of(one, plan), parts_of(one, plan, autocast=torch.bfloat16)

    apart = [float((part.dense() - rounded[name].dense()).norm() / part.dense().norm()) for name, part in exact.items()]
    assert 0 < max(apart) < 0.1  # some roundings of 2^-8 on the way to a layer; before the first one there is none


def test_images_are_anchored_from_the_models_own_inputs():
    model = tiny_models.vit(**WIDE)
    generator = torch.Generator().manual_seed(0)
    inputs = [{"pixel_values": torch.randn(4, 1, 16, 16, generator=generator)} for _ in range(8)]
    one = job(model)
    one = type(one)(model, one.budget, one.reading.of(None, None, inputs, one.recipe), (), one.recipe)
    plan = one.plan(one.budget)

    made = with_parts(one, plan, one.parts(plan))
    plain = with_parts(one, plan, {
        name: _of(weighted(model.get_submodule(name).weight, one.moments[name], method="two-sided"), choice)
        for name, choice in ((c.layer, c.chosen) for c in plan.layers)
        if choice.rank is not None
    })  # fmt: skip

    with torch.no_grad():
        lost = [
            sum(float((other(**each)[0] - model(**each)[0]).square().sum()) for each in inputs)
            for other in (made, plain)
        ]
    assert 0 < lost[0] < lost[1]


def _of(made, option):
    return made.pivot(option.rank) if option.form == "pivot" else made.factors(option.rank)


def test_padding_counts_for_nothing():
    model = tiny_models.bert(**WIDE)
    one = job(model)
    ids_NT = one.reading.calibration[:8]
    whole = [{"input_ids": ids[None], "attention_mask": torch.ones(1, 64, dtype=torch.int64)} for ids in ids_NT]
    padded = [
        {
            "input_ids": torch.cat((ids[None], torch.full((1, 9), 258)), dim=1),
            "attention_mask": torch.cat((torch.ones(1, 64), torch.zeros(1, 9)), dim=1).long(),
        }
        for ids in ids_NT
    ]
    plan = one.plan(one.budget)

    first, second = (anchored_parts(model, plan, one.targets, one.moments, windows) for windows in (whole, padded))

    for name, part in first.items():
        torch.testing.assert_close(second[name].dense(), part.dense(), rtol=1e-3, atol=1e-5)


class Twice(nn.Module):
    """A stack that runs every block two times in each forward pass."""

    def __init__(self, model):
        super().__init__()
        self.inner, self.config = model, model.config

    def forward(self, input_ids):
        hidden = self.inner(input_ids=input_ids, output_hidden_states=True).hidden_states[-1]
        return self.inner(inputs_embeds=hidden)


class Scaled(nn.Module):
    """A model that does something between its blocks."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(2))

    def forward(self, input_ids):
        hidden = nn.functional.one_hot(input_ids % 8, 8).float()
        return self.layers[1](3 * self.layers[0](hidden))


def test_blocks_that_do_not_follow_one_another_are_refused_with_what_to_do():
    one, plan = planned("llama")
    ids_NT = one.reading.calibration

    with pytest.raises(InputError, match=r"2 blocks ran 4 times: they cannot be anchored\. Fit each layer by itself"):
        anchored_parts(Twice(one.model.model), plan, (), {}, ids_NT)
    with pytest.raises(InputError, match=r"layers\.1 does not read what layers\.0 gives"):
        anchored_parts(Scaled(), plan, (), {}, ids_NT)
    with pytest.raises(InputError, match="Linear has no repeated blocks"):
        anchored_parts(nn.Linear(8, 8), plan, (), {}, ids_NT)


def test_a_layer_that_runs_twice_in_its_block_is_refused(monkeypatch):
    one, plan = planned("llama")
    mlp = one.model.model.layers[0].mlp
    right = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda x: right(right(x)))
    smaller = [c.layer for c in plan.layers if c.chosen.rank is not None and c.layer.startswith("model.layers.0.mlp")]

    with pytest.raises(InputError, match=rf"{smaller[0]} runs 64 times in 32 windows"):
        parts_of(one, plan)


def test_what_is_kept_of_a_window_changes_no_bit(monkeypatch):
    """The block run as it is, every time, is the specification."""
    one, plan = planned("gpt2")
    mine = parts_of(one, plan)

    monkeypatch.setattr(Shorter, "_run_once_a_window", lambda *_: None)
    plain = parts_of(one, plan)

    assert all(torch.equal(part.dense(), plain[name].dense()) for name, part in mine.items())


def test_every_layer_of_the_compressed_model_is_multiplied_once_a_window(monkeypatch):
    one, plan = planned("llama")
    windows, calls = len(one.reading.calibration), Counter()
    right = nn.Linear.forward

    def counted(self, x):
        calls[self] += 1
        return right(self, x)

    monkeypatch.setattr(nn.Linear, "forward", counted)
    parts_of(one, plan)
    dense = set(one.model.modules())

    compressed = {layer: times for layer, times in calls.items() if layer not in dense}
    assert compressed
    assert set(compressed.values()) == {windows}


def test_nothing_of_a_block_is_held_behind_it(monkeypatch):
    one, plan = planned("llama")
    right, held = Shorter.after, []

    def after(self):
        assert self._kept
        held.append(weakref.ref(self))
        assert [ref() for ref in held[:-1]] == [None] * (len(held) - 1)
        return right(self)

    monkeypatch.setattr(Shorter, "after", after)
    gc.disable()
    try:
        parts_of(one, plan)
    finally:
        gc.enable()

    assert [ref() for ref in held] == [None, None]


def test_nan_in_the_compressed_model_names_the_block(monkeypatch):
    one, plan = planned("llama")
    right = Shorter.after
    monkeypatch.setattr(Shorter, "after", lambda self: [one * float("nan") for one in right(self)])

    with pytest.raises(NonFiniteError, match=r"model\.layers\.0 gives NaN or Inf in the compressed model"):
        parts_of(one, plan)
