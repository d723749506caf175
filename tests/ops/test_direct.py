"""Calls that torch's matmuls run and that were made before: the operation's bits without the operation."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest
import torch

import narrows
from narrows import Factors
from narrows.kernels import Epilogue
from narrows.ops import _direct, bilinear_tensors, linear_tensors
from narrows.ops._ready import _where
from ops.ready_calls import CALLS, LongWayError, forbid_the_long_way, normal, num_ready, pretend

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture(autouse=True)
def _ready_on_a_cpu(monkeypatch):
    pretend(monkeypatch)


def pair(rank=3, width=8, dtype=torch.float32, seed=1):
    return Factors(normal(rank, width, seed=seed, dtype=dtype), normal(rank, width, seed=seed + 1, dtype=dtype))


def heads(width=8, other=8):
    return Factors(normal(4, 3, width, seed=1), normal(4, 3, other, seed=2))


def bilinear_op(x, factors, y=None, *, scale=None, softcap=None, mask=None, causal=False, impl="auto"):
    return torch.ops.narrows.bilinear(x, factors.a, factors.b, y, scale, softcap, mask, causal, impl)


def linear_op(x, factors, bias=None, *, activation=None, residual=None, middle_bias=None, impl="auto"):
    return torch.ops.narrows.linear(x, factors.a, factors.b, bias, middle_bias, residual, activation, impl)


BILINEAR = {
    "alternating rows": ((5, 8), pair().interleaved(), {}),
    "alternating rows by name": ((5, 8), pair().interleaved(), {"impl": "two"}),
    "three of alternating rows": ((5, 8), pair().interleaved(), {"impl": "three"}),
    "a prefix": ((5, 8), pair().interleaved().truncate(2), {}),
    "one rank": ((5, 8), pair(1).interleaved(), {}),
    "one token": ((1, 8), pair().interleaved(), {}),
    "no token": ((0, 8), pair().interleaved(), {}),
    "separate": ((5, 8), pair(), {}),
    "a transposed factor": ((5, 8), Factors(normal(8, 3).mT, normal(3, 8)), {}),
    "a batch": ((2, 5, 8), pair().interleaved(), {}),
    "a batch, separate": ((2, 5, 8), pair(), {}),
    "heads": ((5, 8), heads().interleaved(), {}),
    "heads, separate": ((2, 1, 5, 8), heads(), {}),
    "y": ((5, 8), Factors(normal(3, 8), normal(3, 6)), {"y": normal(7, 6)}),
    "y with alternating rows": ((5, 8), pair().interleaved(), {"y": normal(7, 8)}),
    "y of a batch": ((5, 8), Factors(normal(3, 8), normal(3, 6)), {"y": normal(2, 7, 6)}),
    "scale": ((5, 8), pair().interleaved(), {"scale": 0.3}),
    "softcap, causal": ((5, 8), pair(), {"softcap": 2.0, "causal": True}),
    "bool mask": ((5, 8), pair().interleaved(), {"mask": normal(5, 5) > 0, "scale": 2.0}),
    "float mask": ((5, 8), pair(), {"mask": normal(5), "softcap": 2.0}),
    "y and mask": ((5, 8), Factors(normal(3, 8), normal(3, 6)), {"y": normal(7, 6), "mask": normal(5, 1)}),
}
LINEAR = {
    "plain": ((5, 8), pair(), {}),
    "by name": ((5, 8), pair(), {"impl": "two"}),
    "one row": ((8,), pair(), {}),
    "no token": ((0, 8), pair(), {}),
    "bias": ((5, 8), pair(), {"bias": normal(8)}),
    "a batch": ((2, 5, 8), pair(), {"bias": normal(8)}),
    "up of a module": ((5, 8), Factors(normal(3, 8), normal(6, 3).mT), {"bias": normal(6)}),
    "alternating rows": ((5, 8), pair().interleaved(), {}),
    "heads": ((2, 1, 5, 8), heads(8, 6), {"bias": normal(6)}),
    "activation": ((5, 8), pair(), {"activation": "gelu_tanh"}),
    "middle bias": ((5, 8), pair(), {"middle_bias": normal(3)}),
    "residual": ((5, 8), pair(), {"residual": normal(5, 8, seed=7)}),
    "all": (
        (5, 8),
        pair(),
        {"bias": normal(8), "activation": "silu", "residual": normal(5, 8), "middle_bias": normal(3)},
    ),
}


def cast(factors, options, dtype):
    """The operands in another dtype, laid out as they are."""

    def like(tensor):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype).copy_(tensor)

    is_pair = factors.in_features == factors.out_features and factors.pair is not None
    low = Factors(like(factors.a), like(factors.b))
    options = {
        k: v.to(dtype) if isinstance(v, torch.Tensor) and v.dtype != torch.bool else v for k, v in options.items()
    }
    return (low.interleaved() if is_pair else low), options


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", BILINEAR.values(), ids=BILINEAR)
def test_a_ready_bilinear_call_has_the_bits_of_the_operation(case, dtype, monkeypatch):
    shape, factors, options = case
    factors, options = cast(factors, options, dtype)
    agree(narrows.bilinear, bilinear_op, shape, factors, options, dtype, monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", LINEAR.values(), ids=LINEAR)
def test_a_ready_linear_call_has_the_bits_of_the_operation(case, dtype, monkeypatch):
    shape, factors, options = case
    factors, options = cast(factors, options, dtype)
    agree(narrows.linear, linear_op, shape, factors, options, dtype, monkeypatch)


def agree(call, operation, shape, factors, options, dtype, monkeypatch):
    xs = [normal(*shape, seed=20 + i, dtype=dtype) for i in range(CALLS + 1)]
    expected = [operation(x, factors, **options) for x in xs]
    for x, wanted in zip(xs[:2], expected, strict=False):
        assert torch.equal(call(x, factors, **options), wanted)
    forbid_the_long_way(monkeypatch)
    for x, wanted in zip(xs[2:], expected[2:], strict=True):
        got = call(x, factors, **options)
        assert torch.equal(got, wanted)
        assert (got.dtype, got.shape, got.is_contiguous()) == (wanted.dtype, wanted.shape, True)
        assert not got._is_view()


@pytest.mark.parametrize("wrong", [lambda result: result + 1, lambda result: result.mT.contiguous().mT])
def test_another_result_or_layout_does_not_agree(wrong, monkeypatch):
    calls = []

    def call(*operands, **options):
        result = narrows.bilinear(*operands, **options)
        calls.append(result)
        return result if len(calls) <= 2 else wrong(result)

    with pytest.raises(AssertionError):
        agree(call, bilinear_op, (5, 8), pair().interleaved(), {}, torch.float32, monkeypatch)
    assert len(calls) == 3


def test_a_call_that_is_not_ready_takes_the_long_way(monkeypatch):
    """The canary of `forbid_the_long_way`: the first call, another length, another stride, factors to be copied."""
    x, factors = normal(5, 8), pair()
    for _ in range(CALLS):
        narrows.bilinear(x, factors)
        narrows.bilinear(x, factors, impl="two")
    forbid_the_long_way(monkeypatch)
    for other in (normal(6, 8), normal(5, 16)[:, :8], normal(8, 5).mT, x.double()):
        with pytest.raises(LongWayError):
            narrows.bilinear(other, factors.to(other.dtype))
    with pytest.raises(LongWayError):
        narrows.bilinear(x, factors, impl="two")
    narrows.bilinear(x, factors)


def test_a_transposed_x_and_a_view_are_read_as_they_lie(monkeypatch):
    for make in (lambda seed: normal(8, 5, seed=seed).mT, lambda seed: normal(9, 16, seed=seed)[2:7, 3:11]):
        for factors in (pair(), pair().interleaved()):
            agree_on(make, factors, monkeypatch)


def agree_on(make, factors, monkeypatch):
    with monkeypatch.context() as patch:
        for _ in range(2):
            narrows.bilinear(make(0), factors)
            narrows.linear(make(0), factors)
        wanted = bilinear_op(make(1), factors), linear_op(make(1), factors)
        forbid_the_long_way(patch)
        assert torch.equal(narrows.bilinear(make(1), factors), wanted[0])
        assert torch.equal(narrows.linear(make(1), factors), wanted[1])


def test_layers_of_one_shape_share_what_is_ready(monkeypatch):
    x, layers = normal(5, 8), [pair(seed=10 * i) for i in range(6)]
    expected = [(bilinear_op(x, f), linear_op(x, f)) for f in layers]
    for _ in range(2):
        narrows.bilinear(x, layers[0])
        narrows.linear(x, layers[0])
    assert num_ready() == 2
    forbid_the_long_way(monkeypatch)
    for factors, (scores, y) in zip(layers, expected, strict=True):
        assert torch.equal(narrows.bilinear(x, factors), scores)
        assert torch.equal(narrows.linear(x, factors), y)


def test_factors_that_are_changed_in_place_are_seen():
    x, factors = normal(5, 8), pair()
    for _ in range(CALLS):
        narrows.bilinear(x, factors)
    changes = [
        lambda a: a.mul_(2),
        lambda a: a.set_(normal(3, 8, seed=9)),
        lambda a: setattr(a, "data", normal(3, 8, seed=10)),
        lambda a: setattr(a, "data", normal(8, 3, seed=11).mT),
        lambda a: setattr(a, "data", normal(3, 16, seed=12)[:, ::2]),
    ]
    for change in changes:
        change(factors.a)
        for _ in range(CALLS):
            assert torch.equal(narrows.bilinear(x, factors), bilinear_op(x, factors))


def test_alternating_and_separate_rows_of_one_layout_take_turns(monkeypatch):
    """Of the same strides, only their addresses tell that two factors are the rows of one tensor."""
    together = pair().interleaved()
    apart = Factors(pair(seed=5).interleaved().a, pair(seed=6).interleaved().b)
    assert apart.pair is None
    assert together.a.stride() == apart.a.stride()
    x = normal(5, 8, seed=3)
    expected = [bilinear_op(x, factors) for factors in (together, apart)]
    for _ in range(2):
        for factors, wanted in zip((together, apart), expected, strict=True):
            assert torch.equal(narrows.bilinear(x, factors), wanted)
    forbid_the_long_way(monkeypatch)
    for factors, wanted in zip((together, apart), expected, strict=True):
        assert torch.equal(narrows.bilinear(x, factors), wanted)


def side_by_side(width=8):
    """Factors of rank 1 that touch, in two storages."""
    block = np.random.default_rng(0).standard_normal(2 * width).astype(np.float32)
    return Factors(torch.from_numpy(block[:width]).view(1, width), torch.from_numpy(block[width:]).view(1, width))


@pytest.mark.parametrize("begins", ["together", "apart"])
def test_rows_that_only_lie_side_by_side_are_not_read_as_one_tensor(begins):
    together, apart = pair(1).interleaved(), side_by_side()
    assert apart.pair is None
    assert apart.b.data_ptr() - apart.a.data_ptr() == together.b.data_ptr() - together.a.data_ptr()
    order = (together, apart) if begins == "together" else (apart, together)
    for factors in order:
        for _ in range(CALLS):
            x = normal(5, 8)
            assert torch.equal(narrows.bilinear(x, factors), bilinear_op(x, factors))


def test_only_addresses_say_which_chain_auto_runs():
    x, together, apart = normal(5, 8), pair(1).interleaved(), side_by_side()
    separate = Factors(pair(1, seed=5).interleaved().a, pair(1, seed=6).interleaved().b)
    runs = [
        _direct.direct_bilinear(x, f.a, f.b, None, epilogue=Epilogue(), impl="auto")
        for f in (together, separate, apart)
    ]
    ran = [[run(x, f.a, f.b) is not None for run in runs] for f in (together, separate, apart)]
    # What touches in two storages is not made ready with the rest: neither chain is known to be what was chosen.
    assert ran == [[True, False, False], [False, True, True], [False, False, False]]


@pytest.mark.parametrize(("impl", "rows", "matmuls"), [
    ("auto", "alternating", 2), ("auto", "separate", 3), ("two", "alternating", 2), ("three", "alternating", 3),
])  # fmt: skip
def test_a_named_chain_is_the_one_that_runs(impl, rows, matmuls, monkeypatch):
    x, factors, made = normal(5, 8), pair(), []
    factors = factors.interleaved() if rows == "alternating" else factors
    monkeypatch.setattr(_direct, "_mm", lambda *given: made.append(1) or torch.mm(*given))
    for _ in range(2):
        narrows.bilinear(x, factors, impl=impl)
    assert made == []
    narrows.bilinear(x, factors, impl=impl)
    assert len(made) == matmuls


def test_operands_of_one_layout_in_another_place_are_told_apart():
    square, other = normal(8, 8), normal(8, 8, seed=3)
    factors, row = pair(8), normal(8, seed=4)
    for _ in range(CALLS):
        for named in ({"y": other}, {"mask": other}):
            assert torch.equal(narrows.bilinear(square, factors, **named), bilinear_op(square, factors, **named))
        for named in ({"bias": row}, {"middle_bias": row}):
            assert torch.equal(narrows.linear(square, factors, **named), linear_op(square, factors, **named))
    assert num_ready() == 4


def test_an_operand_that_is_another_one_too_is_still_right():
    x, factors, square = normal(5, 8), pair(), normal(3, 8)
    for _ in range(CALLS):
        assert torch.equal(narrows.bilinear(x, factors, x), bilinear_op(x, factors, x))
        assert torch.equal(narrows.linear(x, factors, residual=x), linear_op(x, factors, residual=x))
        assert torch.equal(narrows.bilinear(x, Factors(square, square)), bilinear_op(x, Factors(square, square)))
    y, residual = normal(5, 8, seed=4), normal(5, 8, seed=5)
    for _ in range(CALLS):
        assert torch.equal(narrows.bilinear(x, factors, y), bilinear_op(x, factors, y))
        assert torch.equal(narrows.linear(x, factors, residual=residual), linear_op(x, factors, residual=residual))
    assert num_ready() == 2


@pytest.mark.parametrize("rows", ["alternating", "separate"])
def test_what_is_ready_keeps_no_operand_alive(rows):
    memory = [np.ones(2 * 3 * 8, dtype=np.float32) for _ in range(3)]
    block, other, tokens = (torch.from_numpy(m) for m in memory)
    rows_a, rows_b = block.view(3, 2, 8).unbind(1)
    factors = (
        Factors(rows_a, rows_b) if rows == "alternating" else Factors(block[:24].view(3, 8), other[:24].view(3, 8))
    )
    x, bias, mask = tokens.view(6, 8), normal(8), normal(6, 6)
    for _ in range(CALLS):
        narrows.bilinear(x, factors)
        narrows.bilinear(x, factors, mask=mask, scale=2.0)
        narrows.linear(x, factors, bias)
    assert num_ready() == 3
    gone = [weakref.ref(m) for m in (*memory, factors.a, factors.b, x, bias, mask, factors)]
    del memory, block, other, tokens, rows_a, rows_b, factors, x, bias, mask
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone)


def test_views_of_two_tensors_are_all_that_a_module_needs(monkeypatch):
    block = normal(4, 2, 8)
    for _ in range(2):
        bilinear_tensors(normal(5, 8), block[:3, 0], block[:3, 1])
        linear_tensors(normal(5, 8), block[:3, 0], block[:3, 1], normal(8))
    x = normal(5, 8, seed=6)
    wanted = torch.ops.narrows.bilinear(x, block[:3, 0], block[:3, 1], None, None, None, None, False, "auto")
    forbid_the_long_way(monkeypatch)
    assert torch.equal(bilinear_tensors(x, block[:3, 0], block[:3, 1]), wanted)
    linear_tensors(x, block[:3, 0], block[:3, 1], normal(8))


def python_calls(function):
    """How many Python functions one call enters."""
    entered = []

    def note(frame, event, _):
        if event == "call":
            entered.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return entered


@pytest.mark.parametrize("kind", ["bilinear", "linear"])
def test_a_ready_call_enters_few_python_functions(kind):
    x, factors = normal(5, 8), pair().interleaved()
    operation = getattr(narrows, kind)
    long_way = len(python_calls(lambda: operation(x, factors)))
    for _ in range(CALLS):
        operation(x, factors)
    entered = python_calls(lambda: operation(x, factors))
    # Its own frame, the operation's two, the check of the factors, the look-up's five, the chain's two and what
    # torch.autograd and pretend() add.
    assert len(entered) <= 13, entered
    assert long_way > 3 * len(entered)


def test_a_view_is_made_where_its_memory_is():
    """The view that is not checked against its memory: this is what it must give."""
    x = normal(5, 8)
    assert _direct._view(x, (8, 5), (1, 8)).data_ptr() == x.data_ptr()
    assert torch.equal(_direct._view(x, (8, 5), (1, 8)), x.t())
    assert torch.equal(_direct._view(x[1:], (2, 3), (1, 2), 4), x[1:].as_strided((2, 3), (1, 2), 8 + 4))


def test_calls_of_one_size_and_another_shape_are_told_apart():
    a, b = normal(3, 8), normal(3, 8)
    xs = [normal(6, 8), normal(2, 3, 8), normal(3, 2, 8)]
    places = {_where(("linear",), (x, a, b)) for x in xs}
    assert len(places) == 1
    for x in xs * CALLS:
        assert torch.equal(linear_tensors(x, a, b), linear_op(x, Factors(a, b)))
