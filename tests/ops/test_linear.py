"""narrows.linear with biases, activation and residual: values, gradients, errors and torch's machinery."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

import narrows
from kernels.triton.linear_chain import ACTIVATIONS
from narrows import Factors
from narrows.errors import DeviceError, DtypeError, ImplementationError, InputError, ShapeError
from narrows.kernels.triton._support import is_interpreted
from narrows.ops import linear_planned
from narrows.ops._planned_op import is_beyond, rank_at

linear_op = torch.ops.narrows.linear.default
planned_op = torch.ops.narrows.linear_planned.default
TABLE = [1, 2, 1, 3, 4, 2]  # 1 rank up to 2 tokens, 2 up to 4, else all


def leaf(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def everything(activation, lead=(4,), heads=()):
    shape = (*lead[:-1], *(heads or ()), lead[-1], 3)
    x = leaf(*lead[:-1], *([1] if heads else ()), lead[-1], 5)
    return x, leaf(*heads, 2, 5), leaf(*heads, 2, 3), leaf(3), leaf(2), leaf(*shape), activation, "auto"


def plain(x, a, b, bias, middle_bias, residual, activation, impl):
    return ACTIVATIONS[activation]((x @ a.mT + middle_bias) @ b + bias) + residual


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("lead", "heads"), [((4,), ()), ((2, 3), ()), ((2, 3), (4,)), ((0,), ())])
def test_the_value_is_that_of_plain_operations(activation, lead, heads):
    arguments = everything(activation, lead, heads)
    assert torch.allclose(linear_op(*arguments), plain(*arguments), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("heads", [(), (3,)])
def test_gradients_with_every_part_are_the_finite_differences(activation, heads):
    arguments = everything(activation, heads=heads)
    assert gradcheck(linear_op, arguments)
    assert gradgradcheck(linear_op, arguments)


@pytest.mark.parametrize("bias", [None, leaf(3)], ids=["no bias", "bias"])
@pytest.mark.parametrize("middle_bias", [None, leaf(2)], ids=["no middle bias", "middle bias"])
def test_gradients_of_an_activation_are_right_whatever_is_left_out(bias, middle_bias):
    x, a, b, *_ = everything("silu")
    assert gradcheck(linear_op, (x, a, b, bias, middle_bias, None, "silu", "auto"))


@pytest.mark.parametrize("position", range(6))
def test_each_operand_alone_gets_the_gradient_it_gets_among_all(position):
    arguments = everything("silu")
    wanted = torch.autograd.grad(linear_op(*arguments).sin().sum(), arguments[position])
    alone = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
    alone[position].requires_grad_()
    got = torch.autograd.grad(linear_op(*alone).sin().sum(), alone[position])
    assert torch.allclose(*got, *wanted, rtol=1e-12, atol=1e-12)


def test_half_precision_gradients_are_near_those_of_double():
    arguments = everything("silu")
    low = [a.detach().bfloat16().requires_grad_() if isinstance(a, torch.Tensor) else a for a in arguments]
    high = [a.detach().double().requires_grad_() if isinstance(a, torch.Tensor) else a for a in low]
    got = torch.autograd.grad(linear_op(*low).sum(), low[0])[0]
    wanted = torch.autograd.grad(linear_op(*high).sum(), high[0])[0]
    assert got.dtype == torch.bfloat16
    # Chains of 5, 2 and 3 terms and seven roundings to bfloat16 (2^-8 each) of numbers of the size of the result.
    assert (got.double() - wanted).abs().max() <= 17 * 2**-8 * wanted.abs().max()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_passes_opcheck_with_every_part(activation):
    torch.library.opcheck(linear_op, everything(activation))


@pytest.mark.parametrize("arrange", [lambda x: x, lambda x: x.mT.contiguous().mT], ids=["rows", "columns"])
@pytest.mark.parametrize("shape", [(12,), (7, 12), (1, 7, 12), (2, 3, 5, 12)])
def test_the_middle_bias_is_added_before_the_projection_is_rounded(shape, arrange):
    """For some of these x functional.linear rounds the matmul first."""
    generator = torch.Generator().manual_seed(0)
    make = lambda *size: torch.randn(*size, generator=generator).bfloat16()  # noqa: E731
    x, factors, middle = make(*shape), Factors(make(1, 12), torch.ones(1, 1).bfloat16()), make(1)
    x = arrange(x) if x.ndim > 1 else x
    y = narrows.linear(x, factors, middle_bias=middle)
    once = x.double() @ factors.a.double().mT + middle.double()
    # float32 sums of 13 numbers, then half a unit of bfloat16's last place.
    assert ((y.double() - once).abs() <= once.abs() * 2**-8 + 1e-5).all()


def test_the_middle_bias_follows_the_prefix():
    x, factors, middle = torch.randn(4, 5), Factors(torch.randn(3, 5), torch.randn(3, 6)), torch.randn(3)
    y = narrows.linear(x, factors.truncate(2), middle_bias=middle[:2])
    assert torch.allclose(y, (x @ factors.a[:2].mT + middle[:2]) @ factors.b[:2], rtol=1e-5, atol=1e-5)
    with pytest.raises(ShapeError, match=r"middle_bias \(3,\) must be \(R,\) = \(2,\)"):
        narrows.linear(x, factors.truncate(2), middle_bias=middle)


def test_what_does_not_fit_is_refused_by_name():
    x, factors = torch.ones(4, 5), Factors(torch.ones(2, 5), torch.ones(2, 3))
    cases = [
        (
            InputError,
            "activation='tanh' is not known. Use None or one of: relu, silu, gelu, gelu_tanh",
            "activation",
            "tanh",
        ),
        (InputError, "activation=3 is not known", "activation", 3),
        (ShapeError, r"residual \(3,\) must have the result's shape \(4, 3\)", "residual", torch.ones(3)),
        (DtypeError, r"residual is torch\.float64 and x is torch\.float32", "residual", torch.ones(4, 3).double()),
        (DeviceError, "residual is on meta", "residual", torch.ones(4, 3, device="meta")),
        (DtypeError, r"middle_bias is torch\.float64", "middle_bias", torch.ones(2).double()),
        (InputError, "middle_bias is a list", "middle_bias", [1.0, 1.0]),
        (InputError, "residual is a float", "residual", 1.0),
    ]
    for error, text, name, value in cases:
        with pytest.raises(error, match=text):
            narrows.linear(x, factors, **{name: value})


def test_no_operand_is_changed_and_the_residual_is_not_the_result():
    arguments = [a.detach() if isinstance(a, torch.Tensor) else a for a in everything("gelu")]
    copies = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    y = linear_op(*arguments)
    assert all(torch.equal(a, c) for a, c in zip(arguments, copies, strict=True) if isinstance(a, torch.Tensor))
    assert y.data_ptr() != arguments[5].data_ptr()


def test_autocast_casts_every_part():
    x, factors = torch.randn(4, 5), Factors(torch.randn(2, 5), torch.randn(2, 3))
    parts = {"residual": torch.randn(4, 3), "middle_bias": torch.randn(2), "activation": "silu"}
    with torch.autocast("cpu", torch.bfloat16):
        y = narrows.linear(x, factors, **parts)
    low = {name: part.bfloat16() if isinstance(part, torch.Tensor) else part for name, part in parts.items()}
    assert torch.equal(y, narrows.linear(x.bfloat16(), factors.to(torch.bfloat16), **low))


def test_it_compiles_with_every_part():
    torch._dynamo.reset()
    x, factors = torch.randn(4, 5), Factors(torch.randn(2, 5), torch.randn(2, 5))
    call = lambda t: narrows.linear(t, factors, activation="gelu_tanh", residual=t, middle_bias=t[0, :2])  # noqa: E731
    assert torch.equal(torch.compile(call, fullgraph=True, backend="aot_eager")(x), call(x))


@pytest.mark.skipif(not is_interpreted(), reason="the GPU suite runs this on a device")
def test_own_kernels_run_through_the_operation_by_name():
    x, factors = torch.randn(2, 3, 5), Factors(torch.randn(2, 5), torch.randn(2, 3))
    parts = {"residual": torch.randn(2, 3, 3), "middle_bias": torch.randn(2), "activation": "silu"}
    mine, two = (narrows.linear(x, factors, torch.ones(3), **parts, impl=impl) for impl in ("triton", "two"))
    # Both round every product and sum of chains of 5 and 2 terms at most once to float32.
    assert torch.allclose(mine, two, rtol=0, atol=64 * 2**-24 * float(two.abs().max()))
    headed = Factors(torch.randn(3, 2, 5), torch.randn(3, 2, 3))
    with pytest.raises(
        ImplementationError, match=r"impl='triton' cannot run this: .*without heads; here H=3\. Use auto"
    ):
        narrows.linear(torch.randn(3, 4, 5), headed, impl="triton")


@pytest.mark.parametrize(("tokens", "rank"), [(0, 3), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_table_names_the_rank_of_a_length(tokens, rank):
    assert rank_at(TABLE, tokens, 3) == rank
    assert is_beyond(TABLE, tokens, 3, torch.device("cpu")).tolist() == [i >= rank for i in range(3)]


@pytest.mark.parametrize("tokens", [1, 3, 5])
def test_a_planned_operation_is_the_operation_on_the_prefix(tokens):
    x, a, b, bias, middle, residual, activation, impl = (leaf(tokens, 5), leaf(3, 5), leaf(3, 4), leaf(4), leaf(3),
                                                         leaf(tokens, 4), "silu", "auto")  # fmt: skip
    rank = rank_at(TABLE, tokens, 3)
    planned = planned_op(x, a, b, bias, middle, residual, activation, impl, TABLE)
    sliced = linear_op(x, a[:rank], b[:rank], bias, middle[:rank], residual, activation, impl)
    assert torch.equal(planned, sliced)
    given = (x, a, b, bias, middle, residual)
    for got, wanted in zip(
        torch.autograd.grad(planned.sin().sum(), given), torch.autograd.grad(sliced.sin().sum(), given), strict=True
    ):
        assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-12)
    assert not a.grad


def test_planned_gradients_are_the_finite_differences():
    arguments = (leaf(4, 5), leaf(3, 5), leaf(3, 4), leaf(4), leaf(3), leaf(4, 4), "gelu", "auto", TABLE)
    assert gradcheck(planned_op, arguments)
    assert gradgradcheck(planned_op, arguments)
    torch.library.opcheck(planned_op, arguments)


def test_ranks_that_take_no_part_may_hold_anything():
    x, a, b = leaf(2, 5), leaf(3, 5).detach(), leaf(3, 4).detach()
    a[1:], b[1:] = torch.inf, torch.nan
    y = planned_op(x, a, b, None, None, None, None, "auto", TABLE)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(y).all()
    assert torch.isfinite(gradient).all()


def test_planned_flops_are_those_of_the_rank():
    from torch.utils.flop_counter import FlopCounterMode

    a, b = torch.randn(3, 5), torch.randn(3, 4)
    for tokens, rank in ((2, 1), (4, 2), (6, 3)):
        with FlopCounterMode(display=False) as counter:
            planned_op(torch.randn(tokens, 5), a, b, None, None, None, None, "auto", TABLE)
        assert counter.get_total_flops() == 2 * tokens * rank * (5 + 4)


def test_eager_code_takes_the_prefix_before_the_operation():
    x, a, b = torch.randn(3, 5), torch.randn(3, 5), torch.randn(3, 4)
    assert torch.equal(linear_planned(x, a, b, None, TABLE), functional.linear(x, a[:2]) @ b[:2])
