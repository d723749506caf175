"""LowRankAttention: at full width the attention that it stands for; narrower, the one that its maps describe."""

from __future__ import annotations

import copy
import io
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from narrows._values import Moments
from narrows.decompose import HeadMaps, grouped, head_moments, query_key, rotary_query_key, value_output
from narrows.errors import InputError, RankError, ShapeError
from narrows.nn import DenseAttention, KeyValueCache, LowRankAttention, Projection

D, H, G, K, P = 24, 4, 2, 8, 4
THETA = torch.tensor([1.0, 0.3, 0.05, 0.001], dtype=torch.float64)


def dense(*, bias=True, rotary=True, causal=True, dtype=torch.float64, seed=0):
    """Return attention of whole heads with random weights."""
    generator = torch.Generator().manual_seed(seed)

    def projection(rows, columns):
        weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64) * columns**-0.5
        offset = torch.randn(rows, generator=generator, dtype=torch.float64) if bias else None
        return Projection(weight.to(dtype), None if offset is None else offset.to(dtype))

    pairs = torch.arange(P).repeat(G, 1) if rotary else None
    q, k, v, o = projection(H * K, D), projection(G * K, D), projection(G * K, D), projection(D, H * K)
    return DenseAttention(q, k, v, o, heads=H, groups=G, scale=K**-0.5, is_causal=causal, pairs=pairs)


def tokens(length=9, batch=2, dtype=torch.float64, seed=1):
    return torch.randn(batch, length, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def rotary(length, start=0):
    angles = torch.arange(start, start + length, dtype=torch.float64)[:, None] * THETA
    return angles.cos(), angles.sin()


def written_out(whole, x, *, mask=None):
    """Return attention of whole heads as torch has it, every step by itself, rotations as complex numbers."""
    B, T, _ = x.shape
    q, k, v = (
        linear(x, part.weight, part.bias).view(B, T, heads, K).transpose(1, 2)
        for part, heads in ((whole.query, H), (whole.key, G), (whole.value, G))
    )
    if whole.pairs is not None:
        turn = torch.polar(torch.ones(T, P, dtype=torch.float64), torch.arange(T)[:, None] * THETA)
        q, k = (torch.complex(t[..., :P], t[..., P:]) * turn for t in (q, k))
        q, k = (torch.cat((t.real, t.imag), dim=-1) for t in (q, k))
    is_causal = whole.is_causal and mask is None
    mixed = scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal, scale=whole.scale, enable_gqa=True)
    return linear(mixed.transpose(1, 2).flatten(-2), whole.output.weight, whole.output.bias)


def narrow(whole, query_key_width, value_width, x):
    """Return the attention narrowed for these tokens."""
    flat = x.flatten(0, 1)
    moments = Moments(flat.mT @ flat / len(flat), flat.mean(0), None, len(flat))
    queries = grouped(head_moments(whole.query.weight, whole.query.bias, moments, heads=H), G)
    keys = head_moments(whole.key.weight, whole.key.bias, moments, heads=G)
    if whole.pairs is None:
        scores = query_key(queries, keys).at(query_key_width)
    else:
        scores = rotary_query_key(queries, keys, frequencies=THETA, context=9).at(query_key_width)
    values = head_moments(whole.value.weight, whole.value.bias, moments, heads=G).repeat_interleave(H // G, dim=0)
    return whole.narrowed(scores, value_output(whole.output.weight, values, groups=G).at(value_width))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_whole_heads_give_the_attention_they_stand_for(causal, turned, bias):
    whole, x = dense(bias=bias, rotary=turned, causal=causal), tokens()
    layer = LowRankAttention.from_dense(whole)
    out = layer(x, rotary(9) if turned else None)
    assert torch.allclose(out, written_out(whole, x), atol=1e-12)


@pytest.mark.parametrize("turned", [False, True])
def test_full_width_maps_change_nothing(turned):
    """Joint maps of full width mix the features of a head, and the scores stay."""
    whole, x = dense(rotary=turned), tokens()
    layer = LowRankAttention.from_dense(narrow(whole, K, K, x))
    assert turned or not torch.allclose(layer.q_proj.weight, whole.query.weight)
    assert torch.allclose(layer(x, rotary(9) if turned else None), written_out(whole, x), atol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_narrow_heads_padded_with_zeros_are_the_same_attention(turned):
    whole, x = dense(rotary=turned), tokens()
    small = narrow(whole, 4, 3, x)
    layer = LowRankAttention.from_dense(small)
    assert layer.q_proj.weight.shape == (H * 4, D)
    assert layer.o_proj.weight.shape == (D, H * 3)
    wide = small.padded(query_key=K, value=K)
    assert wide.query.weight.shape == whole.query.weight.shape
    assert torch.allclose(layer(x, rotary(9) if turned else None), written_out(wide, x), atol=1e-12)


def test_narrower_heads_lose_more_but_not_everything():
    whole, x = dense(), tokens(length=40)
    target = written_out(whole, x)
    errors = []
    for width in (8, 6, 4, 2):
        out = LowRankAttention.from_dense(narrow(whole, width, K, x))(x, rotary(40)).detach()
        errors.append(float(torch.linalg.vector_norm(out - target) / torch.linalg.vector_norm(target)))
    assert errors == sorted(errors)
    assert errors[0] < 1e-9 < errors[1]
    assert errors[-1] < 1


def test_the_scale_stays_that_of_the_original_heads():
    whole, x = dense(), tokens()
    small = LowRankAttention.from_dense(narrow(whole, 4, K, x))
    assert small.scale == K**-0.5


def test_heads_of_a_group_share_keys_and_not_queries():
    """Mixing up which query heads share a key head must show."""
    whole, x = dense(rotary=False), tokens()
    layer = LowRankAttention.from_dense(whole)
    with torch.no_grad():
        swapped = layer.q_proj.weight.view(H, K, D)[[0, 2, 1, 3]].reshape(H * K, D)
        layer.q_proj.weight.copy_(swapped)
    assert not torch.allclose(layer(x), written_out(whole, x), atol=1e-2)


@pytest.mark.parametrize("chunks", [(9,), (4, 5), (1,) * 9, (6, 1, 2)])
def test_tokens_through_a_cache_are_those_of_one_pass(chunks):
    whole, x = dense(), tokens()
    layer, cache = LowRankAttention.from_dense(narrow(whole, 4, 3, x)), KeyValueCache()
    outs, start = [], 0
    with torch.no_grad():
        for length in chunks:
            outs.append(layer(x[:, start : start + length], rotary(length, start), cache=cache))
            start += length
        assert torch.allclose(torch.cat(outs, dim=1), layer(x, rotary(9)), atol=1e-12)
    assert cache.length == 9
    assert cache.num_bytes == 2 * G * 9 * (4 + 3) * 8


def test_a_cache_refuses_other_heads():
    cache = KeyValueCache()
    cache.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))
    with pytest.raises(ShapeError, match=r"\(B, G, width\) = \(1, 2, 4\), the new tokens have \(1, 2, 6\)"):
        cache.update(torch.zeros(1, 2, 1, 6), torch.zeros(1, 2, 1, 4))


@pytest.mark.parametrize("kind", ["bool", "added"])
def test_a_mask_takes_the_place_of_the_causal_rule(kind):
    whole, x = dense(), tokens()
    mask = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(3)) < 0.7
    mask = mask | torch.eye(9, dtype=torch.bool)
    if kind == "added":
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -1e9)
    layer = LowRankAttention.from_dense(whole)
    assert torch.allclose(layer(x, rotary(9), mask=mask), written_out(whole, x, mask=mask), atol=1e-9)


def test_positions_of_a_batch_may_differ():
    whole, x = dense(), tokens()
    layer = LowRankAttention.from_dense(whole)
    cos, sin = (torch.stack((rotary(9)[i], rotary(9, 5)[i])) for i in range(2))
    both = layer(x, (cos, sin))
    assert torch.allclose(both[1], layer(x[1:], rotary(9, 5))[0], atol=1e-12)
    assert torch.allclose(both, written_out(whole, x), atol=1e-9)  # only distances count


def test_half_precision_rotates_in_the_wider_dtype():
    whole, x = dense(dtype=torch.bfloat16), tokens(dtype=torch.bfloat16)
    layer = LowRankAttention.from_dense(whole)
    cos, sin = (part.float() for part in rotary(9))
    out = layer(x, (cos, sin))
    assert out.dtype == torch.bfloat16
    exact = LowRankAttention.from_dense(dense())(x.double(), rotary(9)).detach()
    out = out.detach()
    assert torch.linalg.vector_norm(out.double() - exact) / torch.linalg.vector_norm(exact) < 2e-2


def test_gradients_reach_every_weight_and_the_input():
    layer = LowRankAttention.from_dense(narrow(dense(), 4, 3, tokens()))
    x = tokens(length=4, batch=1).requires_grad_()
    layer(x, rotary(4)).square().sum().backward()
    assert x.grad.abs().max() > 0
    for name, parameter in layer.named_parameters():
        assert torch.isfinite(parameter.grad).all()
        # Adding the same vector to all keys adds the same number to all scores of a row, unless positions turn it.
        assert parameter.grad.abs().max() > 0, name


def test_dropout_acts_in_training_only():
    whole, x = dense(), tokens(length=20)
    layer = LowRankAttention.from_dense(copy.copy(whole))
    layer.dropout = 0.5
    assert torch.allclose(layer.eval()(x, rotary(20)), written_out(whole, x), atol=1e-12)
    torch.manual_seed(0)
    changed = layer.train()(x, rotary(20))
    assert not torch.allclose(changed, written_out(whole, x), atol=1e-2)
    cache = KeyValueCache()
    with torch.no_grad():
        layer(x[:, :12], rotary(12), cache=cache)
        torch.manual_seed(0)
        layer.dropout = 1e-9  # nothing is dropped, and the path with dropout is taken
        later = layer(x[:, 12:], rotary(8, 12), cache=cache)
    assert torch.allclose(later, written_out(whole, x)[:, 12:], atol=1e-6)


def test_an_adapter_on_a_child_changes_the_output():
    layer, x = LowRankAttention.from_dense(dense()), tokens()
    before = layer(x, rotary(9))

    class Adapted(torch.nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base

        def forward(self, x):
            return self.base(x) + 1

    layer.v_proj = Adapted(layer.v_proj)
    assert not torch.allclose(layer(x, rotary(9)), before)
    with pytest.raises(InputError, match=r"v_proj is Adapted, not nn.Linear"):
        _ = layer.dense


def test_a_module_survives_its_state_dict():
    layer = LowRankAttention.from_dense(narrow(dense(), 4, 3, tokens()))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = LowRankAttention(
        D,
        heads=H,
        groups=G,
        query_key_width=4,
        value_width=3,
        scale=K**-0.5,
        biases=(True,) * 4,
        is_causal=True,
        has_rotary=True,
        dtype=torch.float64,
    )
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.pairs, layer.pairs)
    assert torch.equal(other(tokens(), rotary(9)), layer(tokens(), rotary(9)))


def test_sizes_that_cannot_be_are_refused():
    sizes = {"heads": 4, "groups": 2, "query_key_width": 4, "value_width": 4, "scale": 1.0}
    with pytest.raises(ShapeError, match=r"heads=4, groups=3, .* groups dividing heads"):
        LowRankAttention(8, **(sizes | {"groups": 3}))
    with pytest.raises(ShapeError, match=r"query_key_width=3 must be even"):
        LowRankAttention(8, **(sizes | {"query_key_width": 3}), has_rotary=True)
    with pytest.raises(InputError, match=r"rotary is missing: give cos and sin"):
        LowRankAttention.from_dense(dense())(tokens())
    with pytest.raises(ShapeError, match=r"query \(32, 24\) of 4 heads and key \(32, 24\) of 2 .* the same width"):
        DenseAttention(*(dense().query,) * 4, heads=4, groups=2, scale=1.0)
    with pytest.raises(ShapeError, match=r"pairs \(2, 3\) must be \(G, R / 2\) = \(2, 4\)"):
        replace(dense(), pairs=torch.zeros(G, 3, dtype=torch.int64))
    with pytest.raises(RankError, match=r"width=3 must be a whole number within 2\.\.8, .* a multiple of 2"):
        dense().empty(query_key=3, value=2)


def test_maps_of_another_layer_do_not_fit():
    maps = HeadMaps(torch.eye(K).expand(3, K, K), torch.eye(K).expand(3, K, K), 0.0)
    with pytest.raises(ShapeError, match=r"the maps query_key \(3, 8, 8\) are not for G=2 key heads of width 8"):
        dense().narrowed(maps)


def test_it_compiles_into_one_graph():
    whole, x = dense(dtype=torch.float32), tokens(dtype=torch.float32)
    layer = LowRankAttention.from_dense(whole).eval()
    cos, sin = (part.float() for part in rotary(9))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.allclose(compiled(x, (cos, sin)), layer(x, (cos, sin)), atol=1e-5)
