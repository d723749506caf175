"""Which layers can be factorised, and which models are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tiny_models
from narrows.errors import InputError, NonFiniteError
from narrows.models._match import blocks, left_dense, targets
from narrows.models._match_shared import shared_inputs

IDS = torch.arange(12)


class Block(nn.Module):
    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, x):
        return self.b(self.a(x).relu())


class Stacked(nn.Module):
    """A stack of blocks between two linears that belong to no block."""

    def __init__(self, *items: nn.Module) -> None:
        super().__init__()
        self.first, self.stack, self.last = nn.Linear(8, 8), nn.ModuleList(items), nn.Linear(8, 8)

    def forward(self, x):
        for item in self.stack:
            x = item(x)
        return x


def names(found) -> list[str]:
    return [one.name for one in found]


def last_parts(model, window) -> list[tuple[str, ...]]:
    """Return the layers of the first block, those that read the same tensor together."""
    prefix = blocks(model)[0][0]
    groups: dict[str, list[str]] = {}
    for one in targets(model, window=window):
        if one.name.startswith(prefix):
            groups.setdefault(one.group, []).append(one.name.split(".")[-1])
    return [tuple(group) for group in groups.values()]


LLAMA = [("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma3"])
def test_layers_that_read_one_tensor_are_found_in_the_models_order(family):
    assert last_parts(getattr(tiny_models, family)(), IDS) == LLAMA


def test_encoders_and_images_share_the_inputs_of_query_key_and_value():
    assert last_parts(tiny_models.bert(), IDS) == [("query", "key", "value"), ("dense",), ("dense",), ("dense",)]
    image = {"pixel_values": torch.randn(1, 1, 16, 16)}
    assert last_parts(tiny_models.vit(), image) == [("q_proj", "k_proj", "v_proj"), ("o_proj",), ("fc1",), ("fc2",)]


def test_without_a_window_every_layer_is_a_group_of_its_own():
    assert all(one.group == one.name for one in targets(tiny_models.llama()))


def test_a_tensor_changed_in_place_between_two_reads_is_not_shared():
    class Changing(Block):
        def forward(self, x):
            y = self.a(x)
            return y + self.b(x.mul_(2))

    model = Stacked(Changing())
    groups = shared_inputs(model, targets(model), {"x": torch.ones(1, 8)})
    assert groups == {"stack.0.a": "stack.0.a", "stack.0.b": "stack.0.b"}


def test_conv1d_layers_are_transposed():
    found = targets(tiny_models.gpt2())
    assert names(found[:4]) == [
        f"transformer.h.0.{name}" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ]
    assert [(one.in_features, one.out_features) for one in found[:4]] == [(32, 96), (32, 32), (32, 128), (128, 32)]
    assert all(one.is_transposed for one in found)


def test_linears_are_not_transposed():
    down = targets(tiny_models.llama())[6]
    assert (down.name, down.in_features, down.out_features) == ("model.layers.0.mlp.down_proj", 64, 32)
    assert not down.is_transposed


def test_embeddings_heads_and_poolers_stay_dense_and_are_listed():
    assert dict(left_dense(tiny_models.llama())) == {
        "model.embed_tokens": "an embedding",
        "lm_head": "Linear outside the repeated blocks",
    }
    assert dict(left_dense(tiny_models.bert()))["pooler.dense"] == "Linear outside the repeated blocks"


def test_experts_convolutions_and_indirectly_read_weights_are_listed_with_a_reason():
    class Mixed(Block):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.Parameter(torch.zeros(4, 8, 8))
            self.conv = nn.Conv1d(8, 8, 3)
            self.attention = nn.MultiheadAttention(8, 2)

    model = Stacked(Mixed())
    reasons = dict(left_dense(model))
    assert names(targets(model)) == ["stack.0.a", "stack.0.b"]
    assert reasons["stack.0"] == "Mixed with weights (4, 8, 8) is no linear layer"
    assert reasons["stack.0.conv"] == "Conv1d with weights (8, 8, 3) is no linear layer"
    assert reasons["stack.0.attention.out_proj"] == "MultiheadAttention reads its weight by itself"


def test_a_linear_with_a_forward_of_its_own_stays_dense():
    class Odd(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    model = Stacked(Block())
    model.stack[0].b = Odd(8, 8)
    assert names(targets(model)) == ["stack.0.a"]
    assert dict(left_dense(model))["stack.0.b"] == "Odd is a linear layer with a forward or a weight of its own"


def test_a_subclass_that_computes_the_same_is_a_target():
    class Named(nn.Linear):
        pass

    model = Stacked(Block())
    model.stack[0].b = Named(8, 8)
    assert names(targets(model)) == ["stack.0.a", "stack.0.b"]


def test_blocks_are_the_items_of_the_outermost_stacks():
    assert [name for name, _ in blocks(tiny_models.gpt2())] == ["transformer.h.0", "transformer.h.1"]
    nested = Stacked(Stacked(Block(), Block()), Stacked(Block()))
    assert [name for name, _ in blocks(nested)] == ["stack.0", "stack.1"]


def test_a_sequence_of_blocks_is_a_stack_and_a_model_without_one_is_a_block():
    sequence = nn.Sequential(Block(), Block())
    assert [name for name, _ in blocks(sequence)] == ["0", "1"]
    plain = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    assert [name for name, _ in blocks(plain)] == [""]
    assert names(targets(plain)) == ["0", "2"]


def test_a_pattern_matches_the_whole_name():
    model = tiny_models.llama()
    assert names(targets(model, patterns=["model.layers.1.mlp.up_proj"])) == ["model.layers.1.mlp.up_proj"]
    assert len(targets(model, patterns=[r"re:.*\.q_proj"])) == 2
    with pytest.raises(InputError, match=r"no linear layer 're:q_proj' among its 14"):
        targets(model, patterns=["re:q_proj"])


def test_targets_keep_the_models_order_whatever_the_order_of_patterns():
    found = targets(tiny_models.llama(), patterns=["re:.*down_proj", "model.layers.0.self_attn.q_proj"])
    assert [name.split(".")[-1] for name in names(found)] == ["q_proj", "down_proj", "down_proj"]


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_names():
    with pytest.raises(InputError, match=r"Nearest: model\.layers\.0\.self_attn\.q_proj.*write 're:' before it"):
        targets(tiny_models.llama(), patterns=["layers.0.self_attn.q_proj"])


def test_a_pattern_for_a_layer_that_stays_dense_says_why():
    with pytest.raises(InputError, match="names lm_head, which stays dense: Linear outside the repeated blocks"):
        targets(tiny_models.llama(), patterns=["lm_head"])


def test_a_pattern_that_is_no_regular_expression_is_named():
    with pytest.raises(InputError, match=r"pattern 're:\(' is not a regular expression"):
        targets(tiny_models.llama(), patterns=["re:("])


def test_filter_fn_takes_module_and_name():
    seen = []

    def keep(module: nn.Module, name: str) -> bool:
        seen.append((type(module).__name__, name))
        return name.endswith("o_proj")

    assert len(targets(tiny_models.llama(), keep)) == 2
    assert ("Linear", "model.layers.0.self_attn.q_proj") in seen


def test_a_filter_that_leaves_nothing_is_an_error():
    with pytest.raises(InputError, match="filter_fn left none of the 14 linear layers"):
        targets(tiny_models.llama(), lambda module, name: False)


def test_a_model_without_linear_layers_is_an_error():
    with pytest.raises(InputError, match="Sequential has no linear layer inside repeated blocks"):
        targets(nn.Sequential(nn.Conv1d(1, 1, 1)))


def test_meta_weights_are_refused():
    model = Stacked(Block().to("meta"))
    with pytest.raises(InputError, match=r"stack\.0\.a is on the meta device"):
        targets(model)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_in_other_dtypes_are_refused(dtype):
    model = Stacked(Block())
    model.stack[0].a.weight = nn.Parameter(torch.zeros(8, 8).to(dtype), requires_grad=False)
    with pytest.raises(InputError, match=rf"stack\.0\.a is {dtype}"):
        targets(model)


def test_weights_of_a_tensor_subclass_are_refused():
    class Packed(torch.Tensor):
        pass

    model = Stacked(Block())
    model.stack[0].b.weight = nn.Parameter(torch.zeros(8, 8).as_subclass(Packed))
    with pytest.raises(InputError, match=r"stack\.0\.b is Packed: only plain weights"):
        targets(model)


def test_a_model_that_is_quantised_already_is_refused():
    model = tiny_models.llama()
    model.config.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(InputError, match=r"already quantised or compressed \(fp8"):
        targets(model)


def test_a_model_that_narrows_compressed_is_refused():
    from narrows import factorize
    from narrows.nn import LowRankLinear

    model = Stacked(Block())
    model.stack[0].a = LowRankLinear.from_factors(factorize(torch.randn(8, 8), rank=2))
    with pytest.raises(InputError, match=r"stack\.0\.a is a LowRankLinear already"):
        targets(model)


def test_adapters_are_refused():
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base_layer, self.down = nn.Linear(8, 8), nn.Linear(8, 2)

    model = Stacked(Block())
    model.stack[0].a = Adapted()
    with pytest.raises(InputError, match=r"stack\.0\.a carries an adapter.*merge_and_unload"):
        targets(model)


def test_tied_weights_are_refused_with_both_names():
    model = Stacked(Block(), Block())
    model.stack[1].a.weight = model.stack[0].a.weight
    with pytest.raises(InputError, match=r"stack\.0\.a and stack\.1\.a share one weight"):
        targets(model)


def test_a_weight_tied_to_an_embedding_is_refused():
    model = Stacked(Block())
    model.words = nn.Embedding(8, 8)
    model.stack[0].b.weight = model.words.weight
    with pytest.raises(InputError, match=r"stack\.0\.b.*words|words.*stack\.0\.b"):
        targets(model)


def test_one_module_in_two_places_is_refused():
    model = Stacked(Block())
    model.stack[0].b = model.stack[0].a
    with pytest.raises(InputError, match=r"stack\.0\.a and stack\.0\.b share one weight"):
        targets(model)


def test_one_block_that_a_stack_repeats_is_no_tie():
    block = Block()
    assert names(targets(Stacked(block, block))) == ["stack.0.a", "stack.0.b"]


def test_tied_weights_apart_from_the_targets_are_no_obstacle():
    model = tiny_models.llama()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert len(targets(model)) == 14


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(value):
    model = Stacked(Block())
    with torch.no_grad():
        model.stack[0].b.weight[3, 5] = value
    with pytest.raises(NonFiniteError, match=r"stack\.0\.b \(8, 8\) holds 1 NaN or Inf, the first at \(3, 5\)"):
        targets(model)
    assert names(targets(model, lambda module, name: name.endswith("a"))) == ["stack.0.a"]


def test_a_layer_whose_weight_its_parent_reads_stays_dense():
    from transformers import T5Config, T5EncoderModel

    model = T5EncoderModel(T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2))

    names = {one.name for one in targets(model)}

    assert "encoder.block.0.layer.1.DenseReluDense.wi" in names
    assert not any(name.endswith(".wo") for name in names)
    assert dict(left_dense(model))["encoder.block.0.layer.1.DenseReluDense.wo"] == (
        "T5DenseActDense reads its weight by itself"
    )
