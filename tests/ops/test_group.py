"""narrows.linear_group, gated_linear and stack: values, gradients, errors and torch's machinery."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.flop_counter import FlopCounterMode

import narrows
from kernels.counting import Calls
from kernels.triton.linear_chain import ACTIVATIONS
from narrows import Factors, stack
from narrows.errors import DeviceError, DtypeError, ImplementationError, InputError, ShapeError
from narrows.kernels import LINEAR_TWO
from narrows.kernels.triton._support import is_interpreted

group_op = torch.ops.narrows.linear_group.default
gated_op = torch.ops.narrows.gated_linear.default
MEMBERS = ((3, 7), (2, 4), (5, 6))  # R, E
D = 5


def leaf(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def members(dtype=torch.float32):
    return [
        Factors(leaf(r, D, seed=i).detach().to(dtype), leaf(r, e, seed=i).detach().to(dtype))
        for i, (r, e) in enumerate(MEMBERS)
    ]


def group_call(x, *tensors):
    """Call the operation with flat tensors, so that gradcheck sees every one of them."""
    count = len(MEMBERS)
    a, b, biases = list(tensors[:count]), list(tensors[count : 2 * count]), list(tensors[2 * count :])
    return tuple(group_op(x, a, b, biases, [True, False, True], "auto"))


def group_arguments(*lead):
    a, b = [leaf(r, D, seed=i) for i, (r, _) in enumerate(MEMBERS)], [leaf(r, e) for r, e in MEMBERS]
    return leaf(*lead, D), *a, *b, leaf(7), leaf(6)


def gated_arguments(activation, *lead):
    return (
        leaf(*lead, D),
        leaf(3, D),
        leaf(3, 4),
        leaf(2, D),
        leaf(2, 4, seed=1),
        leaf(4),
        leaf(4, seed=1),
        activation,
        "auto",
    )


@pytest.mark.parametrize("lead", [(4,), (2, 3), (0,), ()])
def test_a_group_gives_every_members_own_result(lead):
    x, factors = leaf(*lead, D).detach(), members(torch.float64)
    biases = [leaf(7).detach(), None, leaf(6).detach()]
    results = narrows.linear_group(x, factors, biases)
    assert isinstance(results, tuple)
    for result, member, bias in zip(results, factors, biases, strict=True):
        assert torch.allclose(result, narrows.linear(x, member, bias), rtol=1e-13, atol=1e-13)
        assert result.is_contiguous()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("lead", [(4,), (2, 3), (0,), ()])
def test_a_gated_pair_is_the_product_of_both(lead, activation):
    x, gate_a, gate_b, up_a, up_b, gate_bias, up_bias, *_ = gated_arguments(activation, *lead)
    result = narrows.gated_linear(
        x, Factors(gate_a, gate_b), Factors(up_a, up_b), gate_bias, up_bias, activation=activation
    )
    plain = ACTIVATIONS[activation](x @ gate_a.mT @ gate_b + gate_bias) * (x @ up_a.mT @ up_b + up_bias)
    assert torch.allclose(result, plain, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("lead", [(3,), (2, 2), (0,)])
def test_group_gradients_are_the_finite_differences(lead):
    arguments = group_arguments(*lead)
    assert gradcheck(group_call, arguments)
    assert gradgradcheck(group_call, arguments)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gated_gradients_are_the_finite_differences(activation):
    arguments = gated_arguments(activation, 3)
    assert gradcheck(gated_op, arguments)
    assert gradgradcheck(gated_op, arguments)


def test_one_used_member_leaves_the_others_without_a_gradient():
    x, *tensors = group_arguments(3)
    results = group_call(x, *tensors)
    gradients = torch.autograd.grad(results[1].sum(), tensors, allow_unused=True)
    for position, gradient in enumerate(gradients):
        moved = gradient is not None and bool(gradient.any())
        assert moved == (position in {1, 4})


def test_gradients_pass_through_stacking():
    first, second = leaf(3, D), leaf(2, D)
    factors = stack((Factors(first, leaf(3, 4).detach()), Factors(second, leaf(2, 4).detach())))
    narrows.gated_linear(leaf(3, D).detach(), *factors).sum().backward()
    assert first.grad.abs().min() > 0
    assert second.grad.abs().min() > 0


def test_stacked_factors_are_views_of_one_block_with_the_same_values():
    factors = members()
    stacked = stack(factors)
    assert [f.rank for f in stacked] == [3, 2, 5]
    for before, after in zip(factors, stacked, strict=True):
        assert torch.equal(before.a, after.a)
        assert after.b is before.b
        assert after.is_ordered == before.is_ordered
    assert len({f.a.untyped_storage().data_ptr() for f in stacked}) == 1
    assert stacked[1].a.data_ptr() == stacked[0].a.data_ptr() + 3 * D * 4


@pytest.mark.parametrize(
    ("arrange", "matmuls"),
    [
        (stack, 4),
        (list, 6),
        (lambda f: [*stack(f[:2]), f[2]], 5),
        (lambda f: [m.truncate(m.rank - 1) for m in stack(f)], 6),
    ],
    ids=["stacked", "apart", "two of three", "cut after stacking"],
)
def test_stacked_factors_are_projected_with_one_matmul(arrange, matmuls):
    factors = arrange(members())
    x = torch.randn(4, D)
    with Calls() as calls:
        results = LINEAR_TWO.run_group(x, factors, [None] * 3)
    assert (calls.matmuls, calls.copies) == (matmuls, 0)
    for result, member in zip(results, factors, strict=True):
        assert torch.allclose(result, x @ member.a.mT @ member.b, rtol=1e-5, atol=1e-5)


def test_neighbours_of_other_strides_are_not_joined():
    block = torch.randn(4, 2 * D)
    factors = [Factors(block[:2, :D], torch.randn(2, 3)), Factors(block[2:, D:], torch.randn(2, 3))]
    x = torch.randn(4, D)
    for result, member in zip(narrows.linear_group(x, factors), factors, strict=True):
        assert torch.allclose(result, x @ member.a.mT @ member.b, rtol=1e-5, atol=1e-5)


def test_both_pass_opcheck():
    x, *tensors = group_arguments(4)
    torch.library.opcheck(group_op, (x, tensors[:3], tensors[3:6], tensors[6:], [True, False, True], "auto"))
    torch.library.opcheck(group_op, (x, tensors[:3], tensors[3:6], [], [False] * 3, "two"))
    torch.library.opcheck(gated_op, gated_arguments("silu", 4))
    torch.library.opcheck(gated_op, (*gated_arguments(None, 4)[:5], None, None, None, "auto"))


def test_what_does_not_fit_is_refused_by_name():
    x, factors = torch.ones(4, D), members()
    headed = Factors(torch.ones(2, 3, D), torch.ones(2, 3, 4))
    short, same = [None, torch.ones(3), None], (factors[0], factors[0])
    cases = [
        (InputError, "factors must be a sequence of at least one Factors", lambda: narrows.linear_group(x, [])),
        (InputError, "for a single one use narrows.linear", lambda: narrows.linear_group(x, factors[0])),
        (InputError, "biases has 2 entries for 3 factors", lambda: narrows.linear_group(x, factors, [None, None])),
        (InputError, "factors is a Tensor", lambda: narrows.linear_group(x, [torch.ones(3, D)])),
        (ShapeError, r"factors\[0\] has heads, a \(2, 3, 5\)", lambda: narrows.linear_group(x, [headed])),
        (ShapeError, r"bias \(3,\) must be \(E,\) = \(4,\)", lambda: narrows.linear_group(x, factors, short)),
        (ShapeError, r"x \(4, 6\) has 6 features", lambda: narrows.linear_group(torch.ones(4, 6), factors)),
        (DtypeError, r"x is torch\.float64", lambda: narrows.linear_group(x.double(), factors)),
        (ShapeError, "gate has E=7 and up has E=4", lambda: narrows.gated_linear(x, factors[0], factors[1])),
        (ShapeError, r"up has heads", lambda: narrows.gated_linear(x, factors[0], headed)),
        (InputError, "activation='swish' is not known", lambda: narrows.gated_linear(x, *same, activation="swish")),
        (InputError, "factors is empty", lambda: stack([])),
        (ShapeError, r"factors have a of \[\(3, 5\), \(2, 6\)\]: each must be \(R, D\) without heads, with the same D",
         lambda: stack([factors[0], Factors(torch.ones(2, 6), torch.ones(2, 4))])),
        (ShapeError, r"factors have a of \[\(2, 3, 5\)\]: each must be", lambda: stack([headed])),
        (DtypeError, r"factors are \[torch.float32, torch.float64\]: give all the same dtype",
         lambda: stack([factors[0], factors[1].to(torch.float64)])),
        (DeviceError, r"factors are on \['cpu', 'meta'\]: move all to one device",
         lambda: stack([factors[0], factors[1].to("meta")])),
        (ImplementationError, "impl='fast' is not an", lambda: narrows.linear_group(x, factors, impl="fast")),
    ]  # fmt: skip
    for error, text, call in cases:
        with pytest.raises(error, match=text):
            call()


def test_autocast_casts_every_member():
    x, factors = torch.randn(4, D), members()
    low = [f.to(torch.bfloat16) for f in factors]
    with torch.autocast("cpu", torch.bfloat16):
        results = narrows.linear_group(x, factors, [torch.ones(7), None, None])
        gated = narrows.gated_linear(x, factors[0], factors[0])
    wanted = narrows.linear_group(x.bfloat16(), low, [torch.ones(7).bfloat16(), None, None])
    assert all(torch.equal(result, other) for result, other in zip(results, wanted, strict=True))
    assert torch.equal(gated, narrows.gated_linear(x.bfloat16(), low[0], low[0]))


def test_both_compile_into_one_graph_at_any_length():
    torch._dynamo.reset()
    factors = stack(members())

    def call(x):
        q, k, v = narrows.linear_group(x, factors, [None, torch.ones(4), None])
        return q.sum(-1) + k.sum(-1) + v.sum(-1), narrows.gated_linear(x, factors[0], factors[0])

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in (4, 7):
        x = torch.randn(tokens, D)
        assert all(torch.equal(left, right) for left, right in zip(compiled(x), call(x), strict=True))


def test_they_are_one_operation_each_and_work_on_meta():
    x, factors = torch.randn(4, D), members()
    with Calls() as calls:
        narrows.linear_group(x, factors)
        narrows.gated_linear(x, factors[0], factors[0])
    assert calls.names == {"linear_group": 1, "gated_linear": 1}
    results = narrows.linear_group(x.to("meta"), [f.to("meta") for f in factors])
    assert [(r.device.type, tuple(r.shape)) for r in results] == [("meta", (4, e)) for _, e in MEMBERS]


def test_flops_are_those_of_every_member():
    x, factors = torch.randn(2, 3, D), members()
    with FlopCounterMode(display=False) as counter:
        narrows.linear_group(x, factors)
    assert counter.get_total_flops() == sum(2 * 6 * r * (D + e) for r, e in MEMBERS)
    with FlopCounterMode(display=False) as counter:
        narrows.gated_linear(x, factors[0], factors[0])
    assert counter.get_total_flops() == 2 * 2 * 6 * 3 * (D + 7)


@pytest.mark.skipif(not is_interpreted(), reason="the GPU suite runs this on a device")
def test_own_kernels_run_through_the_operations_by_name():
    x, factors = torch.randn(3, D), stack(members())
    for mine, two in zip(
        (
            *narrows.linear_group(x, factors, impl="triton"),
            narrows.gated_linear(x, factors[0], factors[0], impl="triton"),
        ),
        (*narrows.linear_group(x, factors, impl="two"), narrows.gated_linear(x, factors[0], factors[0], impl="two")),
        strict=True,
    ):
        # Both round every product and sum of chains of 5 and at most 5 terms once to float32, twice for a pair.
        assert torch.allclose(mine, two, rtol=0, atol=128 * 2**-24 * float(two.abs().max()))
