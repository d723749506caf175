"""Layers replaced by what a plan chose, in place, and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

import tiny_models
from models.compressed import MAKERS, choice_of, compressed, outputs, part_of, plan_of, planned, weight_of
from narrows.errors import InputError, ShapeError
from narrows.models import Summary, apply_, densify
from narrows.nn import LowRankLinear, PivotLinear

UP = "model.layers.0.mlp.up_proj"
DOWN = "model.layers.0.mlp.down_proj"


def one_layer(model, name, form, rank=8):
    weight = weight_of(model.get_submodule(name))
    return plan_of([choice_of(name, weight, form, rank)]), {name: part_of(weight, form, rank)}


@pytest.mark.parametrize("maker", MAKERS, ids=lambda one: one.__name__)
def test_every_layer_becomes_what_the_plan_says(maker):
    model = maker()
    plan, parts = planned(model)
    summary = apply_(model, plan, parts)
    kinds = {"low-rank": LowRankLinear, "pivot": PivotLinear}
    for choice, line in zip(plan.layers, summary.layers, strict=True):
        layer = model.get_submodule(choice.layer)
        assert (line.layer, line.form, line.rank) == (choice.layer, choice.chosen.form, choice.chosen.rank)
        assert (line.before, line.after) == (choice.dense.numbers, choice.chosen.numbers)
        assert type(layer) is kinds.get(choice.chosen.form, type(layer))
    assert not summary.refused
    assert torch.isfinite(outputs(model)).all()


@pytest.mark.parametrize("form", ["low-rank", "pivot"])
@pytest.mark.parametrize("maker", [tiny_models.qwen2, tiny_models.gpt2])
def test_at_full_rank_the_model_computes_the_same(maker, form):
    model = maker()
    before = outputs(model)
    name = "model.layers.0.self_attn.q_proj" if maker is tiny_models.qwen2 else "transformer.h.0.attn.c_attn"
    with torch.no_grad():
        model.get_submodule(name).bias.normal_(generator=torch.Generator().manual_seed(0))
    changed = outputs(model)
    apply_(model, *one_layer(model, name, form, rank=32))
    # 32 numbers of about 1e-2 a sum: errors of 1e-6 where a lost bias or a transposed weight makes 1e-2.
    assert (outputs(model) - changed).abs().max() < 1e-5
    assert (changed - before).abs().max() > 1e-3


@pytest.mark.parametrize("form", ["low-rank", "pivot"])
def test_bias_dtype_mode_and_gradients_are_kept(form):
    model = tiny_models.qwen2().to(torch.bfloat16).train()
    name = "model.layers.1.self_attn.k_proj"
    old = model.get_submodule(name).eval()
    old.weight.requires_grad_(False)
    with torch.no_grad():
        old.bias.copy_(torch.arange(16))
    apply_(model, *one_layer(model, name, form))
    new = model.get_submodule(name)
    bias = new.up.bias if form == "low-rank" else new.bias
    assert torch.equal(bias, torch.arange(16, dtype=torch.bfloat16))
    assert {p.dtype for p in new.parameters()} == {torch.bfloat16}
    assert {n: p.requires_grad for n, p in new.named_parameters() if "bias" not in n} == {
        "down.weight": False,
        "up.weight": False,
    }
    assert bias.requires_grad
    assert not new.training


def test_a_dense_layer_is_not_touched():
    model = tiny_models.llama()
    before = model.get_submodule(UP)
    summary = apply_(model, plan_of([choice_of(UP, weight_of(before), "dense", 0)]), {})
    assert model.get_submodule(UP) is before
    assert summary.layers[0].reason == "chosen as dense"
    assert getattr(model, "hf_quantizer", None) is None


def test_the_summary_prints_every_layer_aligned_with_its_total():
    model = tiny_models.gpt2()
    plan, parts = planned(model)
    lines = str(apply_(model, plan, parts)).splitlines()
    assert len(lines) == 1 + 8 + 1
    first = "transformer.h.0.attn.c_attn  Conv1D 32 -> 96   low-rank    16           3,072  2,048  chosen as low-rank"
    assert lines[1] == first
    assert lines[0].index("reason") == lines[1].index("chosen")
    assert lines[-1] == "6 of 8 layers factorised, 24,576 -> 17,152 numbers (69.8%)"
    assert str(Summary(())).endswith("0 of 0 layers factorised, 0 -> 0 numbers (100.0%)")


def test_a_tied_layer_stays_dense_and_tied_and_is_told():
    model = tiny_models.llama()
    summary = apply_(model, *one_layer(model, "lm_head", "low-rank"))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert summary.refused[0].reason == "its weight is also model.embed_tokens.weight: replacing it would untie them"
    assert "low-rank" not in str(summary)
    assert str(summary).endswith("0 of 1 layers factorised, 8,288 -> 8,288 numbers (100.0%); 1 refused")


def test_a_layer_with_a_hook_or_without_values_stays_dense():
    model = tiny_models.llama()
    plan, parts = one_layer(model, UP, "pivot")
    model.get_submodule(UP).register_forward_hook(lambda *_: None)
    assert "it has hooks" in apply_(model, plan, parts).refused[0].reason
    model = tiny_models.llama()
    model.get_submodule(UP).to("meta")
    assert "meta device" in apply_(model, plan, parts).refused[0].reason


def cases():
    model = tiny_models.llama()
    plan, parts = one_layer(model, UP, "low-rank")
    weight = weight_of(model.get_submodule(UP))
    pivot, short = part_of(weight, "pivot", 8), part_of(weight, "low-rank", 4)
    absent = plan_of([plan.layers[0], choice_of("model.layers.0.mlp.up", weight, "low-rank", 8)])
    other = plan_of([plan.layers[0], choice_of(DOWN, weight, "low-rank", 8)])
    norm = plan_of([plan.layers[0], choice_of("model.norm", weight, "low-rank", 8)])
    return [
        (
            "missing",
            InputError,
            r"no layer 'model.layers.0.mlp.up'.*Nearest: .*The plan is for another model",
            absent,
            parts,
        ),
        ("other sizes", ShapeError, r"\(64, 32\), the plan says \(32, 64\): it is for another", other, parts),
        ("norm", InputError, "a LlamaRMSNorm is neither nn.Linear nor Conv1D", norm, parts),
        ("no part", InputError, "up_proj becomes low-rank: parts must hold Factors, not nothing", plan, {}),
        ("other form", InputError, "parts must hold Factors, not PivotFactors", plan, {UP: pivot}),
        ("other rank", ShapeError, r"has \(D, E, R\) = \(32, 64, 4\), the plan says \(32, 64, 8\)", plan, {UP: short}),
    ]


def test_what_does_not_fit_is_refused_before_anything_is_changed():
    for name, error, text, plan, parts in cases():
        model = tiny_models.llama()
        with pytest.raises(error, match=text):
            apply_(model, plan, parts)
        assert type(model.get_submodule(UP)) is nn.Linear, name
        assert getattr(model, "hf_quantizer", None) is None


@pytest.mark.parametrize("maker", [tiny_models.llama, tiny_models.gpt2, tiny_models.bert])
def test_densify_gives_an_ordinary_model_of_the_same_function(maker, tmp_path):
    model, plan = compressed(maker())
    kinds = {name: type(module) for name, module in maker().named_modules()}
    before = outputs(model)
    assert densify(model) is model
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    # Rounding of the product, in float32: 1e-7 of outputs of about 1.
    assert (outputs(model) - before).abs().max() < 1e-5
    assert sum(one.chosen.form != "dense" for one in plan.layers) > 4
    assert not hasattr(model.config, "quantization_config")
    model.save_pretrained(tmp_path)
    assert torch.equal(outputs(type(model).from_pretrained(tmp_path)), outputs(model))


def test_densify_refuses_a_layer_with_an_adapter():
    model, _ = compressed(tiny_models.llama(), ("low-rank",))
    layer = model.get_submodule(UP)
    layer.down = nn.Sequential(layer.down)
    with pytest.raises(InputError, match="down is Sequential, not nn.Linear: merge or remove the adapter first"):
        densify(model)


def test_a_module_without_transformers_is_compressed_too():
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 8))
    apply_(model, *one_layer(model, "1", "pivot", rank=3))
    assert type(model[1]) is PivotLinear
    assert type(densify(model)[1]) is nn.Linear


def test_save_pretrained_of_a_compressed_model_says_what_to_use_instead(tmp_path):
    model, _ = compressed(tiny_models.llama())
    for part in (model, model.model):
        with pytest.raises(
            InputError, match=r"leave out the manifest of a compressed model: use narrows\.models\.save"
        ):
            part.save_pretrained(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_compressed_model_casts_and_trains_as_an_ordinary_one():
    model, _ = compressed(tiny_models.llama())
    assert model.half().dtype == torch.float16
    model.float().train()
    model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    layer = model.get_submodule("model.layers.0.self_attn.k_proj")
    assert type(layer) is PivotLinear
    assert layer.down.weight.grad.abs().sum() > 0
    assert not getattr(model, "is_quantized", False)


def test_a_model_that_another_method_quantised_is_refused(tmp_path):
    tiny_models.llama().save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    plan, parts = one_layer(model, UP, "low-rank")
    model.hf_quantizer = type("Foreign", (), {"quantization_config": type("C", (), {"quant_method": "gptq"})})()
    with pytest.raises(InputError, match=r"the model is quantised \(gptq\): start from the dense model"):
        apply_(model, plan, parts)


def test_conv1d_comes_back_with_its_own_layout():
    model = tiny_models.gpt2()
    name = "transformer.h.0.mlp.c_fc"
    shape = model.get_submodule(name).weight.shape
    apply_(model, *one_layer(model, name, "low-rank", rank=32))
    layer = densify(model).get_submodule(name)
    assert type(layer) is Conv1D
    assert layer.weight.shape == shape
    assert torch.allclose(layer.weight, tiny_models.gpt2().get_submodule(name).weight, atol=1e-6)
