"""narrows.bilinear's scale, softcap, mask and causal: values, gradients, errors, and own kernels behind it."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import narrows
from kernels.triton.scores import DEVICE, assert_right, finished, make
from narrows import Factors
from narrows.errors import ImplementationError, InputError
from narrows.kernels import Epilogue
from narrows.ops import _bilinear_choice, _bilinear_gradients

IMPLS = ["auto", "two", "three", "triton"]


def softcapped(z, softcap):
    return softcap * torch.tanh(z / softcap)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", [(17, 12), (2, 9, 12)])
def test_softcap_comes_after_scale_and_before_the_masks(shape, impl):
    x, factors = make(*shape), Factors(make(5, 12), make(5, 12, seed=1)).interleaved()
    mask = make(shape[-2], shape[-2])
    result = narrows.bilinear(x, factors, scale=0.5, softcap=2.0, mask=mask, causal=True, impl=impl)
    value = softcapped((x.double() @ factors.a.double().mT) @ (x.double() @ factors.b.double().mT).mT * 0.5, 2.0)
    value = (value + mask.double()).masked_fill(torch.ones_like(value).triu(1) > 0, -torch.inf)
    assert torch.equal(result == -torch.inf, value == -torch.inf)
    finite = value > -torch.inf
    # Chains of 12 * 5 products of numbers near 1, in float32, and a dozen roundings of what is below 8.
    assert (result.double() - value)[finite].abs().max() < 1e-4


@pytest.mark.parametrize("impl", ["auto", "three", "triton"])
@pytest.mark.parametrize("others", [3, 9])
def test_causal_lets_position_u_be_seen_by_t_from_u_on(others, impl):
    x, y = make(6, 12), make(others, 12, seed=2)
    scores = narrows.bilinear(x, Factors(make(3, 12), make(3, 12, seed=1)), y, causal=True, impl=impl)
    assert torch.equal(scores > -torch.inf, torch.ones(6, others, device=DEVICE).tril() > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_own_kernels_compute_the_epilogue_in_float32(dtype):
    x, factors = make(33, 40, dtype=dtype), Factors(make(8, 40, dtype=dtype), make(8, 40, dtype=dtype, seed=1))
    finish = Epilogue(0.3, 5.0, make(33, 33, dtype=dtype), is_causal=True)
    scores = narrows.bilinear(x, factors, scale=0.3, softcap=5.0, mask=finish.mask, causal=True, impl="triton")
    assert_right(scores, finished(x, factors.a, factors.b, x, finish))


def leaf(*shape, seed=0):
    return make(*shape, dtype=torch.float64, seed=seed, device="cpu").requires_grad_()


@pytest.mark.parametrize("mask", [None, (4, 4), (1, 4)])
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_gradients_of_what_is_hidden_are_zero_and_the_rest_are_the_finite_differences(softcap, mask):
    """-inf itself has no finite difference: softmax, which makes it 0, is part of the function."""
    arguments = (leaf(4, 5), leaf(2, 5), leaf(2, 5, seed=1), None if mask is None else leaf(*mask))

    def weights(x, a, b, given):
        scores = torch.ops.narrows.bilinear(x, a, b, None, 0.5, softcap, given, True, "auto")
        return scores.softmax(-1)

    assert gradcheck(weights, arguments)
    assert gradgradcheck(weights, arguments)


def test_gradients_through_own_kernels_are_those_of_the_specification():
    grads = []
    for impl in ("three", "triton"):
        x, pair = make(9, 12).requires_grad_(), make(3, 2, 12).requires_grad_()
        factors = Factors(pair[:, 0], pair[:, 1])
        narrows.bilinear(x, factors, softcap=3.0, causal=True, impl=impl).softmax(-1).square().sum().backward()
        grads.append((x.grad, pair.grad))
    # Chains of 9 * 12 * 3 products in float32: 2e-5 of numbers near 1.
    for expected, mine in zip(*grads, strict=True):
        assert torch.allclose(mine, expected, rtol=1e-4, atol=1e-5)


# The interpreter's loops of a length known at run time only: numpy 2.3 warns (2.4 raises).
@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")
def test_the_own_backward_gives_the_gradients_that_two_matmuls_give(monkeypatch):
    calls = []

    def chosen(grad, p, q):
        calls.append(p.shape)
        return not torch.is_grad_enabled()

    grads = []
    for is_own in (False, True):
        if is_own:
            monkeypatch.setattr(_bilinear_gradients, "uses_own_backward", chosen)
        x, factors = make(2, 9, 12).requires_grad_(), Factors(make(3, 12), make(3, 12, seed=1))
        narrows.bilinear(x, factors, scale=0.5).sin().sum().backward()
        grads.append(x.grad)
    assert calls == [(2, 9, 3)]
    assert torch.allclose(*grads, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("softcap", [0.0, -1.0, float("inf"), float("nan")])
def test_a_softcap_that_is_not_above_zero_is_refused_with_its_value(softcap):
    with pytest.raises(InputError, match=rf"softcap={softcap} must be finite and above 0"):
        narrows.bilinear(make(3, 12), Factors(make(1, 12), make(1, 12)), softcap=softcap)


def test_a_named_own_implementation_never_falls_back():
    factors = Factors(make(2, 3, 12), make(2, 3, 12))
    with pytest.raises(ImplementationError, match="impl='triton' cannot run this: .*dtype=float64"):
        narrows.bilinear(make(7, 12).double(), factors.to(torch.float64), impl="triton")
    with pytest.raises(ImplementationError, match=r"x \(2, 7, 12\) differs by head \(H=2\)"):
        narrows.bilinear(make(2, 7, 12), factors, impl="triton")


def test_auto_asks_for_a_choice_only_where_own_kernels_could_run(monkeypatch):
    asked = []

    class OnDevice:
        """What is looked at of a CUDA tensor before anything runs."""

        is_cuda = True

        def __init__(self, *shape, dtype=torch.bfloat16):
            self.shape, self.ndim, self.dtype, self.device = shape, len(shape), dtype, torch.device("cuda:1")

    def implementation(signature):
        asked.append(signature)
        return "triton"

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(_bilinear_choice, "implementation", implementation)
    ask = lambda x, a, y=None: _bilinear_choice.own_kernel("auto", x, Factors(a, a), y, Epilogue())  # noqa: E731
    chosen = ask(OnDevice(100, 64), OnDevice(8, 64), OnDevice(50, 64))
    assert chosen is not None
    assert chosen[0].name == "triton"
    (signature,) = asked
    assert (signature.kind, signature.tokens, signature.other_tokens, signature.heads) == ("bilinear", 100, 50, 1)
    assert (signature.in_features, signature.out_features, signature.rank) == (64, 64, 8)
    assert (signature.dtype, signature.mode, signature.device) == ("bfloat16", "graph", 1)
    assert ask(OnDevice(4, 100, 64), OnDevice(4, 8, 64)) is None  # x differs by head
    assert ask(OnDevice(100, 64, dtype=torch.float64), OnDevice(8, 64, dtype=torch.float64)) is None
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["scale", "softcap"])
def test_a_tensor_in_the_place_of_a_number_is_refused(name):
    """Its value would be read once, and its gradient lost."""
    x, factors = make(3, 12), Factors(make(1, 12), make(1, 12))
    with pytest.raises(InputError, match=rf"{name} is a Tensor of shape \(\): give a number, {name}=float\(value\)"):
        narrows.bilinear(x, factors, **{name: torch.tensor(2.0)})
