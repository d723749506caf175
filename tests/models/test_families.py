"""Narrow attention in models of every family: whole heads change nothing, narrow ones run wherever the model did."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import tiny_models
from narrows.decompose import HeadMaps, ValueMaps
from narrows.errors import FileError, ImplementationError, InputError, RankError
from narrows.models._attention import AttentionWidths, attention_, attention_inputs, attention_layers
from narrows.models._attention_form import (
    attention_replaces,
    empty_attention,
    from_config,
    restore_attention,
    to_config,
)
from narrows.models._attention_module import ModelAttention
from narrows.models._calibrate import calibrate
from narrows.models._match import targets
from narrows.models.families import family_of


def mpnet():
    """Return an MPNet encoder: its scores have a bias by distance."""
    from transformers import MPNetConfig, MPNetModel

    torch.manual_seed(0)
    sizes = {"vocab_size": tiny_models.VOCABULARY, "hidden_size": 32, "intermediate_size": 64}
    return MPNetModel(
        MPNetConfig(**sizes, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=130)
    ).eval()


MAKERS = (
    tiny_models.llama,
    tiny_models.mistral,
    tiny_models.qwen2,
    tiny_models.qwen3,
    tiny_models.gemma3,
    tiny_models.gpt2,
    tiny_models.bert,
    mpnet,
    tiny_models.vit,
)
DECODERS = MAKERS[:6]
HALF = AttentionWidths(query_key=4, value=4)
NORMED = (tiny_models.qwen3, tiny_models.gemma3)  # their queries and keys keep their width


def by_name(maker):
    return maker.__name__


def inputs(model, length=24, batch=2, seed=0):
    """Return keyword arguments of a forward pass."""
    generator = torch.Generator().manual_seed(seed)
    if "ViT" in type(model).__name__:
        return {"pixel_values": torch.rand(batch, 1, 16, 16, generator=generator)}
    return {"input_ids": torch.randint(4, 250, (batch, length), generator=generator)}


def width_of(model):
    config = model.config
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def moments_of(model, widths=HALF):
    names = attention_inputs(model, widths)
    texts = [inputs(model, seed=seed) for seed in range(4)]
    return calibrate(model, texts, targets(model, lambda _, name: name in names), gradients=False)


def narrowed(maker, widths=HALF, **changes):
    """Return a model with its heads narrowed, the dense one, and the summary."""
    dense = spread(maker(**changes))
    model = copy.deepcopy(dense)
    summary = attention_(model, moments_of(dense), widths, context=24)
    return model, dense, summary


def spread(model):
    """Return the model with larger attention weights, of different size by feature.

    At small random ones attention is all but uniform, and no feature of a head matters more than another.
    """
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and any(part in name for part in ("attn", "attention")):
                parameter.mul_(6 * torch.randn(len(parameter), 1, generator=generator).exp())
    return model.eval()


@torch.no_grad()
def out(model, **more):
    given = model(**{**inputs(model, seed=9), **more})
    return given.logits if "logits" in given else given.last_hidden_state


def swapped_whole(maker):
    """Return a model whose attentions are ModelAttention with the weights that they had."""
    dense = spread(maker())
    model = copy.deepcopy(dense)
    for name, module in list(attention_layers(model)):
        family = family_of(module)
        model.set_submodule(name, ModelAttention.in_place_of(module, family.read(module), family))
    return model, dense


@pytest.mark.parametrize("maker", MAKERS, ids=by_name)
def test_whole_heads_give_what_the_model_gave(maker):
    model, dense = swapped_whole(maker)
    assert sum(isinstance(module, ModelAttention) for module in model.modules()) == 2
    assert torch.allclose(out(model), out(dense), atol=2e-5)


@pytest.mark.parametrize("maker", MAKERS, ids=by_name)
def test_a_padding_mask_and_eager_attention_give_what_the_model_gave(maker):
    model, dense = swapped_whole(maker)
    more = {}
    if maker is not tiny_models.vit:
        mask = torch.ones(2, 24, dtype=torch.int64)
        mask[1, :9] = 0
        more = {"attention_mask": mask}
    for implementation in ("sdpa", "eager"):
        for one in (model, dense):
            if maker is not mpnet:
                one.set_attn_implementation(implementation)
        given, expected = out(model, **more), out(dense, **more)
        if more:
            given, expected = given[more["attention_mask"].bool()], expected[more["attention_mask"].bool()]
        assert torch.allclose(given, expected, atol=2e-5), implementation


@pytest.mark.parametrize("maker", MAKERS, ids=by_name)
def test_heads_get_the_widths_that_were_asked_for(maker):
    model, dense, summary = narrowed(maker)
    assert summary.changed == len(summary.layers) == 2
    whole = width_of(dense)
    for name, layer in attention_layers(model):
        assert isinstance(layer, ModelAttention), name
        assert layer.value_width == 4
        assert layer.query_key_width == (whole if maker in NORMED else 4)
        assert layer.scale == pytest.approx(whole**-0.5 if maker is not tiny_models.gemma3 else 256**-0.5)
    lost = torch.linalg.vector_norm(out(model) - out(dense)) / torch.linalg.vector_norm(out(dense))
    assert 1e-4 < lost < 1


@pytest.mark.parametrize("maker", NORMED, ids=by_name)
def test_norms_of_queries_and_keys_keep_their_width_and_say_why(maker):
    _, dense, summary = narrowed(maker)
    for layer in summary.layers:
        assert layer.query_key_error is None
        assert "q_norm and k_norm divide each head by its length" in layer.reason
        assert f"queries and keys stay {width_of(dense)} wide" in str(layer)


def cut_short(whole, query_key, value):
    """Return attention that keeps the first features of each head as they are."""
    P, G = whole.query_key_width // 2, whole.groups

    def picked(places, width):
        return torch.eye(width, dtype=torch.float64)[places].expand(G, -1, -1)

    scores = None
    if query_key is not None:
        first = list(range(query_key // 2)) if whole.pairs is not None else list(range(query_key))
        pairs = None if whole.pairs is None else torch.tensor(first).expand(G, -1)
        maps = picked(first if pairs is None else [*first, *(P + f for f in first)], 2 * P)
        scores = HeadMaps(maps, maps, 1.0, pairs)
    maps = picked(list(range(value)), whole.value_width)
    return whole.narrowed(scores, ValueMaps(maps, maps.mT, 1.0))


@pytest.mark.parametrize("maker", MAKERS, ids=by_name)
def test_better_maps_than_cutting_heads_short(maker):
    """Canary: the first features of each head, as they are, must lose more."""
    model, dense, _ = narrowed(maker)
    cut = copy.deepcopy(dense)
    for name, module in list(attention_layers(cut)):
        family = family_of(module)
        short = cut_short(family.read(module), None if maker in NORMED else 4, 4)
        cut.set_submodule(name, ModelAttention.in_place_of(module, short, family))
    target = out(dense)
    assert torch.linalg.vector_norm(out(model) - target) < 0.9 * torch.linalg.vector_norm(out(cut) - target)


@pytest.mark.parametrize("maker", DECODERS, ids=by_name)
def test_generation_with_a_cache_is_that_without(maker):
    model, _, _ = narrowed(maker)
    ids = inputs(model, length=7, batch=1)["input_ids"]
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 258, "eos_token_id": None}
    cached = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    again = model.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **settings)
    assert cached.shape == (1, 19)
    assert torch.equal(cached, again)


@pytest.mark.parametrize("maker", DECODERS, ids=by_name)
def test_a_cache_holds_narrow_keys_and_values_and_gives_the_same_logits(maker):
    model, dense, summary = narrowed(maker)
    ids = inputs(model, length=16)["input_ids"]
    with torch.no_grad():
        first = model(ids[:, :10], use_cache=True)
        rest = model(ids[:, 10:], past_key_values=first.past_key_values, use_cache=True)
        whole = model(ids)
    keys, values = (getattr(first.past_key_values.layers[0], name) for name in ("keys", "values"))
    assert keys.shape[-1] == (width_of(dense) if maker in NORMED else 4)
    assert values.shape[-1] == 4
    assert torch.allclose(torch.cat((first.logits, rest.logits), dim=1), whole.logits, atol=2e-5)
    share = (keys.shape[-1] + 4) / (2 * width_of(dense))
    assert summary.cache_share == pytest.approx(share)


@pytest.mark.parametrize("maker", [tiny_models.llama, tiny_models.gpt2, tiny_models.gemma3], ids=by_name)
def test_a_static_cache_and_left_padding_generate_the_same(maker):
    model, _, _ = narrowed(maker)
    ids = inputs(model, length=9)["input_ids"]
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 258, "eos_token_id": None}
    dynamic = model.generate(ids, attention_mask=mask, **settings)
    static = model.generate(ids, attention_mask=mask, cache_implementation="static", disable_compile=True, **settings)
    assert torch.equal(dynamic, static)
    alone = model.generate(ids[:1, 4:], attention_mask=mask[:1, 4:], **settings)
    assert torch.equal(dynamic[0, 9:], alone[0, 5:])


@pytest.mark.parametrize("maker", MAKERS, ids=by_name)
def test_merging_gives_the_models_own_attention_with_the_same_function(maker):
    model, dense, _ = narrowed(maker)
    merged = copy.deepcopy(model)
    for name, layer in list(attention_layers(merged)):
        module = layer.merge()
        assert type(module) is type(dense.get_submodule(name))
        merged.set_submodule(name, module)
    assert merged.state_dict().keys() == dense.state_dict().keys()
    assert not any(parameter.is_meta for parameter in merged.parameters())
    assert torch.allclose(out(merged), out(model), atol=2e-5)


@pytest.mark.parametrize("maker", MAKERS, ids=by_name)
def test_a_description_and_a_state_dict_rebuild_the_layer(maker):
    model, dense, _ = narrowed(maker)
    with torch.device("meta"):
        empty = type(dense)(dense.config)
    assert next(empty.parameters()).is_meta
    for name, layer in attention_layers(model):
        config = to_config(layer)
        assert (config["form"], config["rank"], config["value_width"]) == ("attention", layer.rank, 4)
        made = from_config(empty, name, config)
        assert made.q_proj.weight.is_meta
        assert made.state_dict().keys() == layer.state_dict().keys()
    assert empty.state_dict().keys() == model.state_dict().keys()
    rebuilt = copy.deepcopy(dense)
    for name, layer in attention_layers(model):
        from_config(rebuilt, name, to_config(layer))
    rebuilt.load_state_dict(model.state_dict())
    for _, layer in attention_layers(rebuilt):
        restore_attention(layer, {})
    assert torch.equal(out(rebuilt), out(model))


@pytest.mark.parametrize("maker", MAKERS, ids=by_name)
def test_the_dense_model_cannot_take_narrow_weights_for_its_own(maker):
    """Each dense weight either is missing, and listed as replaced, or has another shape."""
    model, dense, _ = narrowed(maker)
    narrow = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    for name, layer in attention_layers(model):
        config = to_config(layer)
        replaced = {f"{name}.{weight}" for weight in attention_replaces(config)}
        weights = {
            key: tuple(one.shape)
            for key, one in dense.state_dict().items()
            if key.startswith(f"{name}.") and one.ndim == 2 and "relative" not in key
        }
        missing = {key for key in weights if key not in narrow}
        assert missing == replaced
        assert missing or any(narrow[key] != shape for key, shape in weights.items())


def test_the_kept_frequencies_are_checked_when_read():
    model, _, _ = narrowed(tiny_models.llama)
    layer = dict(attention_layers(model))["model.layers.0.self_attn"]
    restore_attention(layer, {})
    layer.pairs[0, 0] = layer.pairs[0, 1]
    with pytest.raises(FileError, match=r"rotary frequencies \(2, 2\) are not different ones of 0\.\.3"):
        restore_attention(layer, {})


def test_another_family_or_width_is_not_rebuilt():
    attention = tiny_models.llama().get_submodule("model.layers.0.self_attn")
    with pytest.raises(InputError, match=r"a LlamaAttention is not attention of the family 'gpt2'"):
        empty_attention(attention, 4, {"family": "gpt2", "value_width": 4})
    with pytest.raises(RankError, match=r"width=10 must be a whole number within 2\.\.8"):
        empty_attention(attention, 10, {"family": "llama", "value_width": 4})
    with pytest.raises(RankError, match=r"width=None must be a whole number within 1\.\.8"):
        empty_attention(attention, 4, {"family": "llama"})


def test_only_named_attentions_are_narrowed():
    dense = tiny_models.llama()
    model = copy.deepcopy(dense)
    name = "model.layers.1.self_attn"
    summary = attention_(model, moments_of(dense), {name: AttentionWidths(value=2)}, context=24)
    assert [layer.reason for layer in summary.layers] == ["not asked for", ""]
    assert summary.layers[1].query_key_width == 8
    assert type(model.get_submodule("model.layers.0.self_attn")).__name__ == "LlamaAttention"
    assert "1 of 2 attentions narrowed; a cache keeps 81.2% of its bytes" in str(summary)
    assert "model.layers.0.self_attn: stays as it is (not asked for)" in str(summary)
    with pytest.raises(InputError, match=r"model\.layers\.7\.self_attn"):
        attention_(model, {}, {"model.layers.7.self_attn": HALF})
    again = attention_(model, moments_of(dense), {name: HALF}, context=24)
    assert again.layers[1].reason == "narrow already"


def test_what_cannot_be_narrowed_is_listed_with_a_reason():
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8}
    widths = {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    model = DeepseekV3ForCausalLM(
        DeepseekV3Config(**sizes, **heads, **widths, num_hidden_layers=1, first_k_dense_replace=1)
    )
    summary = attention_(model, {}, HALF)
    assert [(layer.kind, layer.reason) for layer in summary.layers] == [
        ("DeepseekV3Attention", "its family is not known")
    ]
    assert summary.changed == 0


def test_changed_projections_are_left_alone():
    dense = tiny_models.llama()
    model = copy.deepcopy(dense)
    first, second = (model.get_submodule(f"model.layers.{i}.self_attn") for i in range(2))
    first.q_proj = nn.Sequential(first.q_proj)
    second.v_proj.register_forward_hook(lambda *_: None)
    summary = attention_(model, moments_of(dense), HALF)
    assert summary.layers[0].reason == "its q_proj is Sequential, not a plain linear layer"
    assert summary.layers[1].reason == "its v_proj has hooks or a forward of its own, which would be lost"


def test_missing_moments_and_wrong_widths_change_nothing():
    dense = tiny_models.llama()
    model = copy.deepcopy(dense)
    moments = dict(moments_of(dense))
    for width in (3, 0, 10, 4.0, True):
        with pytest.raises(
            RankError,
            match=rf"model\.layers\.0\.self_attn: query_key={width} must be a whole number within 2\.\.8, the width of "
            "its heads, and even",
        ):
            attention_(model, moments, AttentionWidths(query_key=width))
    with pytest.raises(RankError, match=r"model\.layers\.1\.self_attn: value=9 must be a whole number within 1\.\.8"):
        attention_(model, moments, {"model.layers.1.self_attn": AttentionWidths(value=9)})
    moments.pop("model.layers.1.self_attn.o_proj")
    with pytest.raises(
        InputError, match=r"moments lack model\.layers\.1\.self_attn\.o_proj: .* attention_inputs\(model, widths\)"
    ):
        attention_(model, moments, HALF)
    assert not any(isinstance(module, ModelAttention) for module in model.modules())


def test_only_what_is_asked_for_must_be_calibrated():
    dense, names = tiny_models.llama(), ("model.layers.0.self_attn", "model.layers.1.self_attn")
    asked = {names[0]: AttentionWidths(query_key=4), names[1]: AttentionWidths(query_key=8, value=4)}
    assert attention_inputs(dense, asked) == (f"{names[0]}.q_proj", f"{names[1]}.o_proj")
    moments = moments_of(dense, asked)
    assert set(moments) == {f"{names[0]}.q_proj", f"{names[1]}.o_proj"}
    first, second = attention_(dense, moments, asked, context=24).layers
    assert (first.query_key_width, first.value_width, second.query_key_width, second.value_width) == (4, 8, 8, 4)
    assert attention_inputs(tiny_models.qwen3(), AttentionWidths(query_key=4)) == ()


def test_widths_that_the_heads_have_leave_them_alone():
    model, dense, summary = narrowed(tiny_models.llama, AttentionWidths(query_key=8, value=8))
    assert summary.changed == 0
    assert "its heads are of these widths" in str(summary)
    assert torch.equal(out(model), out(dense))


def test_other_attention_implementations_are_refused_when_they_run():
    model, _, _ = narrowed(tiny_models.llama)
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(ImplementationError, match=r"attn_implementation='flex_attention' does not run narrow heads"):
        next(iter(attention_layers(model)))[1](torch.zeros(1, 2, 32), (torch.ones(1, 2, 8),) * 2)


def test_training_works_and_frozen_weights_stay_frozen():
    dense = tiny_models.llama()
    dense.get_submodule("model.layers.0.self_attn.k_proj").requires_grad_(False)
    model = copy.deepcopy(dense)
    attention_(model, moments_of(dense), HALF, context=24)
    model.train()
    model(**inputs(model), labels=inputs(model)["input_ids"]).loss.backward()
    layer = model.get_submodule("model.layers.0.self_attn")
    assert layer.k_proj.weight.grad is None
    assert layer.q_proj.weight.grad.abs().max() > 0
    assert layer.training


def test_progress_is_told():
    seen = []
    dense = tiny_models.bert()
    attention_(copy.deepcopy(dense), moments_of(dense), HALF, progress=lambda *told: seen.append(told))
    assert seen == [("attention", 1, 2), ("attention", 2, 2)]
