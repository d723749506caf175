"""Own linear kernels, interpreted where there is no GPU: every form, size, layout and epilogue."""

from __future__ import annotations

import pytest
import torch

from kernels.triton.linear_chain import (
    ACTIVATIONS,
    CONFIGS,
    DEVICE,
    ON_LOAD,
    SINGLE,
    SPLIT,
    WHOLE,
    Sized,
    as_child,
    assert_right,
    finished,
    finished_gated,
    integers,
    make,
    pair,
)
from narrows import Factors, Problem, stack
from narrows._oracle import _check_kernel, poisoned
from narrows.errors import ImplementationError
from narrows.kernels import LinearEpilogue
from narrows.kernels._config import Config, Tiles
from narrows.kernels.triton import _linear
from narrows.kernels.triton._launch import Launch
from narrows.kernels.triton._linear import LinearTriton
from narrows.kernels.triton._support import is_interpreted
from narrows.testing import check_kernel

DTYPES = [torch.float32, torch.float16]
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
FORMS = [(WHOLE, torch.float32), (SPLIT, torch.float16), (ON_LOAD, torch.float16)]
every_form = pytest.mark.parametrize(("config", "dtype"), FORMS, ids=CONFIGS)
# exp overflows to inf, whose sigmoid is the 0 it must be; numpy, of the interpreter, warns of it.
overflows = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")


@pytest.fixture
def launched(monkeypatch):
    """Return the names of the kernels that were launched, in order."""
    names = []
    call = Launch.__call__

    def record(self, stream, *tensors):
        names.append(self._function.fn.__name__)
        call(self, stream, *tensors)

    monkeypatch.setattr(Launch, "__call__", record)
    return names


def test_the_bound_of_a_finished_result_catches_one_element_a_dropped_rank_and_nan():
    x, factors = make(9, 12, dtype=torch.float16), pair(5, 12, 7, torch.float16)
    wanted = finished(x, factors, LinearEpilogue())
    right = wanted.value.half()
    assert_right(right, wanted)
    one = right.clone()
    one[-1, -1] += 1 + one[-1, -1].abs()
    dropped = finished(x, factors.truncate(4), LinearEpilogue()).value.half()
    for wrong in (one, dropped, torch.full_like(right, torch.nan)):
        with pytest.raises(AssertionError):
            assert_right(wrong, wanted)


@pytest.mark.parametrize("reduce", ["kernel", "load"])
def test_they_pass_the_conformance_check(monkeypatch, reduce):
    cases = _check_kernel.CASES
    monkeypatch.setattr(_check_kernel, "CASES", (cases[0], cases[5]))  # one of everything; tails and spare ranks
    monkeypatch.setattr(_check_kernel, "STATISTICAL", _check_kernel.STATISTICAL[:1])
    config = Config(Tiles(64, 64, 32, split=3), Tiles(64, 64, 64), reduce=reduce)
    check_kernel(Sized(config), dtypes=[torch.float16], device=DEVICE)


def full_epilogue(x, rank, columns, activation):
    dtype = x.dtype
    return LinearEpilogue(
        bias=make(columns, dtype=dtype, seed=3),
        middle_bias=make(rank, dtype=dtype, seed=4),
        residual=make(*x.shape[:-1], columns, dtype=dtype, seed=5),
        activation=activation,
    )


@overflows
@every_form
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_full_epilogue_is_within_the_bound(config, dtype, activation):
    x, factors = make(18, 37, dtype=dtype), pair(9, 37, 35, dtype)
    epilogue = full_epilogue(x, 9, 35, activation)
    result = LinearTriton().run_with(config, x, as_child(factors), epilogue=epilogue)
    assert_right(result, finished(x, factors, epilogue))


@overflows
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name])
def test_an_activation_is_as_exact_as_float32(activation):
    x = torch.cat([torch.linspace(-8, 8, 500), torch.logspace(-6, 0, 100)]).unsqueeze(1).to(DEVICE)
    one = torch.ones(1, 1, device=DEVICE)
    result = LinearTriton().run_with(WHOLE, x, Factors(one, one), epilogue=LinearEpilogue(activation=activation))
    # Each is x times a gate of at most 1: 7 roundings of the gate (exp and erf within 4 each) and one of the product.
    assert ((result.double() - ACTIVATIONS[activation](x.double())).abs() <= 8 * SINGLE * x.double().abs()).all()


@every_config
@pytest.mark.parametrize("part", ["bias", "middle_bias", "residual"])
def test_each_part_of_the_epilogue_is_within_the_bound_alone(config, part):
    x, factors = make(17, 20), pair(5, 20, 18)
    epilogue = LinearEpilogue(**{part: getattr(full_epilogue(x, 5, 18, None), part)})
    result = LinearTriton().run_with(config, x, factors, epilogue=epilogue)
    assert_right(result, finished(x, factors, epilogue))
    with pytest.raises(AssertionError, match="times its bound"):
        assert_right(result, finished(x, factors, LinearEpilogue()))


@every_config
def test_exact_integers_come_out_exactly_with_every_part(config):
    x, factors = integers(19, 40), Factors(integers(7, 40), integers(7, 33, seed=1))
    epilogue = LinearEpilogue(integers(33), integers(7), integers(19, 33), "relu")
    exact = torch.relu((x @ factors.a.mT + epilogue.middle_bias) @ factors.b + epilogue.bias) + epilogue.residual
    for given in (factors, as_child(factors)):
        out = poisoned((19, 33), torch.float32, DEVICE)
        assert LinearTriton().run_with(config, x, given, epilogue=epilogue, out=out) is out
        assert torch.equal(out, exact)


@pytest.mark.parametrize(("tokens", "width", "columns", "rank"), [(1, 1, 1, 1), (33, 1, 17, 1), (1, 50, 1, 17)])
@every_config
def test_odd_sizes_give_exact_integers(config, tokens, width, columns, rank):
    x, factors = integers(tokens, width), Factors(integers(rank, width), integers(rank, columns, seed=1))
    exact = (x @ factors.a.mT) @ factors.b
    assert torch.equal(LinearTriton().run_with(config, x, factors), exact)
    assert torch.equal(LinearTriton().run_with(config, x, as_child(factors)), exact)


@every_dtype
def test_parts_added_on_load_give_the_bits_of_parts_added_by_a_kernel(dtype):
    x, factors = make(18, 100, dtype=dtype), pair(9, 100, 20, dtype)
    by_kernel, on_load = (LinearTriton().run_with(config, x, factors) for config in (SPLIT, ON_LOAD))
    assert torch.equal(by_kernel, on_load)


SHAPES = {
    "one row": (20,),
    "a batch": (2, 3, 20),
    "a batch of one": (1, 1, 20),
    "no tokens": (0, 20),
    "an empty batch": (2, 0, 20),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_leading_dimensions_are_flattened(shape):
    x, factors = make(*shape), pair(5, 20, 18)
    epilogue = full_epilogue(x, 5, 18, "silu")
    result = LinearTriton().run_with(SPLIT, x, factors, epilogue=epilogue)
    assert_right(result, finished(x, factors, epilogue))
    assert result.is_contiguous()


def strided(tensor):
    """Return the same values with NaN between any two of them."""
    return torch.stack((tensor, torch.full_like(tensor, torch.nan)), dim=-1)[..., 0]


LAYOUTS = {
    "rows apart": lambda t: torch.cat((t, torch.full_like(t, torch.nan)), dim=-1)[..., : t.shape[-1]],
    "columns apart": strided,
    "tokens last": lambda t: t.mT.contiguous().mT,
    "batches swapped": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
}


@pytest.mark.parametrize("arrange", LAYOUTS.values(), ids=LAYOUTS)
def test_operands_of_any_strides_give_exact_integers(arrange):
    x, residual = integers(3, 6, 20), integers(3, 6, 18)
    a, b, bias, middle = integers(5, 20), integers(5, 18, seed=1), integers(18), integers(5)
    exact = (x @ a.mT + middle) @ b + bias + residual
    epilogue = LinearEpilogue(strided(bias), strided(middle), arrange(residual))
    result = LinearTriton().run_with(SPLIT, arrange(x), Factors(arrange(a), arrange(b)), epilogue=epilogue)
    assert torch.equal(result, exact)


def test_factors_cut_to_a_smaller_rank_run_as_views():
    x, full = integers(7, 20), Factors(integers(9, 20), integers(9, 18, seed=1))
    for factors in (full.truncate(4), as_child(full).truncate(4)):
        assert torch.equal(LinearTriton().run_with(WHOLE, x, factors), (x @ full.a[:4].mT) @ full.b[:4])


@pytest.mark.parametrize("shape", [(7, 20), (2, 7, 20)])
def test_one_head_keeps_its_place_as_in_matmul(shape):
    x, factors = integers(*shape), Factors(integers(1, 5, 20), integers(1, 5, 18, seed=1))
    assert torch.equal(LinearTriton().run_with(WHOLE, x, factors), (x @ factors.a.mT) @ factors.b)


MEMBERS = ((9, 35), (4, 18), (17, 33), (5, 16))  # R, E


@every_form
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_group_of_unequal_members_is_within_the_bound(config, dtype, count):
    x = make(2, 9, 37, dtype=dtype)
    factors = [pair(r, 37, e, dtype, seed=i) for i, (r, e) in enumerate(MEMBERS[:count])]
    biases = [make(e, dtype=dtype) if i % 2 else None for i, (_, e) in enumerate(MEMBERS[:count])]
    results = LinearTriton().run_group_with(config, x, stack(factors), biases)
    for result, member, bias in zip(results, factors, biases, strict=True):
        assert_right(result, finished(x, member, LinearEpilogue(bias)))


def test_a_group_gives_the_same_bits_stacked_partly_stacked_and_apart():
    x, factors = make(17, 40), [pair(r, 40, e, seed=r) for r, e in MEMBERS[:3]]
    apart = LinearTriton().run_group_with(SPLIT, x, factors, [None] * 3)
    for given in (stack(factors), [*stack(factors[:2]), factors[2]], [factors[0], *stack(factors[1:])]):
        together = LinearTriton().run_group_with(SPLIT, x, given, [None] * 3)
        assert all(torch.equal(left, right) for left, right in zip(apart, together, strict=True))


@pytest.mark.parametrize("place", range(3))
def test_a_group_reads_every_member_as_it_lies(place):
    x, factors = integers(9, 20), [Factors(integers(r, 20), integers(r, e, seed=r)) for r, e in MEMBERS[:3]]
    given = [as_child(one) if i == place else one for i, one in enumerate(factors)]
    for result, member in zip(LinearTriton().run_group_with(WHOLE, x, given, [None] * 3), factors, strict=True):
        assert torch.equal(result, (x @ member.a.mT) @ member.b)


def test_a_stacked_group_launches_one_projection_and_one_expansion_for_three(launched):
    x, factors = make(17, 40), [pair(r, 40, e, seed=r) for r, e in MEMBERS]
    runs = {
        ("project_kernel", "grouped_kernel"): (WHOLE, stack(factors[:3])),
        ("project_kernel", "reduce_kernel", "grouped_kernel"): (SPLIT, stack(factors[:3])),
        ("project_kernel", "grouped_kernel", "grouped_kernel"): (ON_LOAD, stack(factors)),
        ("project_kernel", "project_kernel", "reduce_kernel", "grouped_kernel"): (SPLIT, factors[:2]),
    }
    for wanted, (config, given) in runs.items():
        launched.clear()
        LinearTriton().run_group_with(config, x, given, [None] * len(given))
        assert tuple(launched) == wanted


@overflows
@every_form
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gated_pair_is_within_the_bound(config, dtype, activation):
    x, gate, up = make(18, 37, dtype=dtype), pair(9, 37, 35, dtype), as_child(pair(17, 37, 35, dtype, seed=7))
    biases = (make(35, dtype=dtype), None if activation == "relu" else make(35, dtype=dtype, seed=1))
    given = stack((gate, up)) if activation == "silu" else (gate, up)
    result = LinearTriton().run_gated_with(config, x, *given, biases=biases, activation=activation)
    assert_right(result, finished_gated(x, gate, up, biases, activation))


@every_config
def test_a_gated_pair_gives_exact_integers(config):
    x, gate, up = (integers(19, 40), *(Factors(integers(r, 40), integers(r, 33, seed=r)) for r in (7, 3)))
    exact = torch.relu((x @ gate.a.mT) @ gate.b) * ((x @ up.a.mT) @ up.b)
    assert torch.equal(LinearTriton().run_gated_with(config, x, gate, up, activation="relu"), exact)


def test_no_tokens_give_empty_groups_and_launch_nothing(launched):
    x, factors = make(0, 20), pair(5, 20, 18)
    (one,) = LinearTriton().run_group_with(WHOLE, x, [factors], [None])
    assert one.shape == LinearTriton().run_gated_with(WHOLE, x, factors, factors).shape == (0, 18)
    assert LinearTriton().run_with(WHOLE, x, factors).shape == (0, 18)
    assert launched == []


def test_the_launches_are_those_of_the_configuration(launched):
    x, factors = make(17, 40), pair(5, 40, 18)
    middle = LinearEpilogue(middle_bias=make(5))
    runs = [
        (WHOLE, LinearEpilogue(), ["project_kernel", "outer_kernel"]),
        (SPLIT, LinearEpilogue(), ["project_kernel", "reduce_kernel", "outer_kernel"]),
        (ON_LOAD, LinearEpilogue(), ["project_kernel", "outer_kernel"]),
        (WHOLE, middle, ["project_kernel", "reduce_kernel", "outer_kernel"]),
        (ON_LOAD, middle, ["project_kernel", "reduce_kernel", "outer_kernel"]),
    ]
    for config, epilogue, wanted in runs:
        launched.clear()
        LinearTriton().run_with(config, x, factors, epilogue=epilogue)
        assert launched == wanted


def test_a_second_call_makes_no_plan_and_the_number_of_plans_is_bounded(monkeypatch):
    kernel, factors = LinearTriton(), pair(5, 20, 18)
    for _ in range(2):
        kernel.run_with(WHOLE, make(3, 20), factors)
    assert len(kernel._plans) == 1
    monkeypatch.setattr(_linear, "MOST_PLANS", 3)
    for tokens in range(1, 7):
        kernel.run_with(WHOLE, make(tokens, 20), factors)
    assert len(kernel._plans) == 3
    assert torch.equal(kernel.run_with(WHOLE, make(1, 20), factors), kernel.run_with(WHOLE, make(1, 20), factors))


def test_the_tuned_sizes_run(launched):
    x, factors = make(3, 40), pair(5, 40, 18)
    epilogue = full_epilogue(x, 5, 18, "gelu")
    result = LinearTriton().run(
        x,
        factors,
        bias=epilogue.bias,
        middle_bias=epilogue.middle_bias,
        residual=epilogue.residual,
        activation=epilogue.activation,
    )
    assert_right(result, finished(x, factors, epilogue))
    assert launched[-1] == "outer_kernel"


def problem(**changes):
    return Problem(**{"kind": "linear", "tokens": 7, "in_features": 20, "out_features": 18, "device": DEVICE} | changes)


def test_what_it_cannot_run_is_refused_with_the_reason():
    kernel = LinearTriton()
    assert kernel.refuses(problem()) == ""
    assert kernel.refuses(problem(heads=3)) == "triton runs linear chains without heads; here H=3"
    assert kernel.refuses(problem(dtype="float64")).endswith("here dtype=float64")
    assert "this problem is bilinear" in kernel.refuses(problem(kind="bilinear", other_tokens=3))
    if is_interpreted():
        assert "bfloat16" in kernel.refuses(problem(dtype="bfloat16"))


def test_what_it_cannot_run_raises_where_it_is_run():
    headed = Factors(make(3, 5, 20), make(3, 5, 18))
    with pytest.raises(ImplementationError, match="without heads; here H=3"):
        LinearTriton().run_with(WHOLE, make(3, 7, 20), headed)
    with pytest.raises(ImplementationError, match="here dtype=float64"):
        LinearTriton().run_with(WHOLE, make(7, 20).double(), pair(5, 20, 18, torch.float64))
