"""Gradients of attention on a GPU, where torch's fused kernels give them: masks, lengths, layouts, far scores."""

import pytest
import torch

import narrows
from kernels.attention_operands import bool_mask, call
from kernels.triton.test_attention_gpu import LAYOUTS, as_float

pytestmark = pytest.mark.gpu


def gradients(wanted, given, *, exact=False):
    """Return the gradients of q, k and v; those of float64 are of the specification."""
    convert = torch.Tensor.double if exact else torch.Tensor.detach  # which shares the memory: layouts are tested
    asked = {name: convert(option) if is_floating(option) else option for name, option in wanted.options.items()}
    leaves = [convert(t).requires_grad_() for t in wanted.tensors]
    result = narrows.attend(*leaves, scale=wanted.scale, impl="math" if exact else "auto", **asked)
    return torch.autograd.grad(result, leaves, convert(given))


def is_floating(option):
    return isinstance(option, torch.Tensor) and option.is_floating_point()


def assert_gradients_are_right(wanted, given=None):
    if given is None:
        given = torch.randn(*wanted.q.shape[:3], wanted.v.shape[3], device="cuda").to(wanted.q.dtype)
    found = gradients(wanted, given)
    for got, right in zip(found, gradients(wanted, given, exact=True), strict=True):
        # Weights, their gradients and the result are each rounded to bfloat16 (2^-8) once or twice: 5 roundings.
        assert (got.double() - right).norm() <= 5 * 2.0**-8 * right.norm()
    return found


def test_the_bound_of_gradients_catches_a_scale_that_is_off_by_a_tenth(monkeypatch):
    wanted = call(1, 8, 2, 64, 64, 64, 64, dtype=torch.bfloat16, device="cuda", spread=1.0)
    right = gradients
    monkeypatch.setitem(
        globals(),
        "gradients",
        lambda w, given, *, exact=False: [t * (1.1 - 0.1 * exact) for t in right(w, given, exact=exact)],
    )
    with pytest.raises(AssertionError):
        assert_gradients_are_right(wanted)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens", [256, 300])
def test_gradients_are_those_of_float64(tokens, causal):
    assert_gradients_are_right(
        call(1, 8, 2, tokens, tokens, 64, 128, dtype=torch.bfloat16, device="cuda", causal=causal, spread=1.0)
    )


@pytest.mark.parametrize("is_float", [False, True])
@pytest.mark.parametrize("queries", [5, 130])
def test_a_row_that_sees_nothing_has_gradients_of_zero(queries, is_float):
    mask = bool_mask(queries, 320, device="cuda")
    mask[2] = False
    mask = as_float(mask, torch.bfloat16) if is_float else mask
    wanted = call(2, 8, 2, queries, 320, 64, 64, dtype=torch.bfloat16, device="cuda", mask=mask, spread=1.0)
    dq, _, _ = assert_gradients_are_right(wanted)
    assert not dq[:, :, 2].any()
    wanted.options["mask"] = torch.zeros_like(mask) if mask.dtype == torch.bool else torch.full_like(mask, -torch.inf)
    assert not any(found.any() for found in gradients(wanted, torch.ones_like(wanted.q)))


def test_gradients_with_lengths_are_zero_beyond_them():
    lengths = torch.tensor([0, 7, 200], device="cuda")
    wanted = call(
        3, 8, 2, 40, 256, 64, 128, dtype=torch.bfloat16, device="cuda", lengths=lengths, causal=True, spread=1.0
    )
    dq, dk, dv = assert_gradients_are_right(wanted)
    assert not dq[0].any()
    assert not dq[1, :, :33].any()
    for batch, length in enumerate(lengths.tolist()):
        assert not dk[batch, :, length:].any()
        assert not dv[batch, :, length:].any()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", [(1, 128), (64, 64), (128, 128), (192, 704)], ids=str)
def test_gradients_of_scores_far_below_zero_are_finite(sizes, masked):
    """All scores near -120: cuDNN's gradients are NaN there in blocks of rows or keys that are not full."""
    T, U = sizes
    mask = torch.ones(T, U, dtype=torch.bool, device="cuda") if masked else None
    wanted = call(1, 2, 2, T, U, 64, 64, dtype=torch.bfloat16, device="cuda", mask=mask)
    wanted.q, wanted.k, wanted.scale = wanted.q * 0.1, wanted.k * 0.1, 0.125
    wanted.q[..., 0], wanted.k[..., 0] = 1.0, -960.0
    found = gradients(wanted, torch.randn_like(wanted.q))
    assert all(bool(t.isfinite().all()) for t in found)


@pytest.mark.parametrize("layout", ["an odd start", "an odd address", "one batch for all", "keys before heads"])
def test_gradients_of_operands_in_other_layouts(layout):
    wanted = call(2, 8, 8, 128, 256, 64, 64, dtype=torch.bfloat16, device="cuda", spread=1.0)
    wanted.q, wanted.k, wanted.v = (LAYOUTS[layout](t) for t in wanted.tensors)
    assert_gradients_are_right(wanted, LAYOUTS[layout](torch.randn_like(wanted.q)))
    assert_gradients_are_right(wanted, torch.ones((), dtype=torch.bfloat16, device="cuda").expand(2, 8, 128, 64))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own import
def test_a_compiled_backward_pass_is_the_eager_one():
    torch._dynamo.reset()
    wanted = call(2, 8, 2, 40, 300, 64, 128, dtype=torch.bfloat16, device="cuda", spread=1.0)
    step = lambda q, k, v: narrows.attend(q, k, v, scale=wanted.scale, causal=True) * 2  # noqa: E731
    leaves = [t.requires_grad_() for t in wanted.tensors]
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    mine, reference = (torch.autograd.grad(f(*leaves).square().sum(), leaves) for f in (compiled, step))
    for got, right in zip(mine, reference, strict=True):
        assert (got - right).float().norm() <= 2.0**-7 * right.float().norm()
