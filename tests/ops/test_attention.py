"""narrows.attend and narrows.attention: errors, gradients, and torch's machinery."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.flop_counter import FlopCounterMode

import narrows
from kernels.attention_operands import call, options
from narrows import Factors
from narrows.errors import DeviceError, DtypeError, ImplementationError, InputError, ShapeError
from narrows.kernels import ATTENTION_MATH
from narrows.ops._attention_op import attend_op

Q, K, V = torch.ones(2, 4, 3, 8), torch.ones(2, 2, 5, 8), torch.ones(2, 2, 5, 6)


@pytest.mark.parametrize("impl", ["auto", "sdpa", "math"])
@pytest.mark.parametrize("name", options())
def test_every_implementation_is_within_the_derived_bound_and_contiguous(name, impl):
    wanted = call(T=3, **options()[name])
    result = narrows.attend(*wanted.tensors, scale=wanted.scale, impl=impl, **wanted.options)
    assert wanted.error(result) <= 1
    assert result.is_contiguous()


def test_a_missing_scale_says_which_one():
    with pytest.raises(InputError, match=r"scale is missing: give scale=K\*\*-0\.5 with K the width of the heads"):
        narrows.attend(Q, K, V)
    with pytest.raises(InputError, match="scale is missing"):
        narrows.attention(torch.ones(3, 5), Factors(torch.ones(2, 4, 5), torch.ones(2, 4, 5)), torch.ones(2, 3, 6))
    with pytest.raises(InputError, match="scale is a Tensor: give a number"):
        narrows.attend(Q, K, V, scale=torch.ones(()))


WRONG = {
    r"q \(4, 3, 8\).* must be \(B, H, T, R\)": ((Q[0], K, V), {}, ShapeError),
    r"batches B=1, 2 and 2": ((Q[:1], K, V), {}, ShapeError),
    r"v \(2, 2, 5, 6\): q and k need the same rank R": ((Q[..., :7], K, V), {}, ShapeError),
    r"v \(2, 2, 5, 0\): q and k need the same rank R and all a width of at least 1": (
        (Q, K, V[..., :0]),
        {},
        ShapeError,
    ),
    r"v \(2, 2, 4, 6\): k and v need the same key heads G and keys U": ((Q, K, V[:, :, 1:]), {}, ShapeError),
    r"G=2 key heads must divide H=3 heads": ((Q[:, :3], K, V), {}, ShapeError),
    r"needs T <= U; here q has T=3, k has U=2": ((Q, K[:, :, :2], V[:, :, :2]), {"causal": True}, ShapeError),
    r"mask \(4, 5\) does not broadcast .* = \(2, 4, 3, 5\)": ((Q, K, V), {"mask": torch.ones(4, 5)}, ShapeError),
    r"mask \(1, 2, 4, 3, 5\) does not": ((Q, K, V), {"mask": torch.ones(1, 2, 4, 3, 5)}, ShapeError),
    r"mask \(not bool\) is torch\.float64": ((Q, K, V), {"mask": torch.ones(3, 5).double()}, DtypeError),
    r"mask is a list": ((Q, K, V), {"mask": [1]}, InputError),
    r"mask is on meta": ((Q, K, V), {"mask": torch.ones(3, 5, device="meta") > 0}, DeviceError),
    r"lengths is torch\.float32": ((Q, K, V), {"lengths": torch.ones(2)}, DtypeError),
    r"lengths \(3,\) must be \(B,\) = \(2,\)": ((Q, K, V), {"lengths": torch.ones(3).int()}, ShapeError),
    r"lengths is on meta": ((Q, K, V), {"lengths": torch.ones(2, device="meta").int()}, DeviceError),
    r"lengths is a list": ((Q, K, V), {"lengths": [5, 5]}, InputError),
    r"v is torch\.float64 and k is torch\.float32": ((Q, K, V.double()), {}, DtypeError),
    r"impl='flash' is not an implementation": ((Q, K, V), {"impl": "flash"}, ImplementationError),
}


@pytest.mark.parametrize("text", WRONG)
def test_each_wrong_operand_is_named(text):
    operands, asked, error = WRONG[text]
    with pytest.raises(error, match=text):
        narrows.attend(*operands, scale=0.3, **asked)


def test_an_implementation_that_cannot_run_does_not_fall_back():
    wide = torch.ones(1, 1, 17, 8)
    with pytest.raises(ImplementationError, match="impl='triton' cannot run this"):
        narrows.attend(wide, wide, wide, scale=0.3, impl="triton")


def test_nothing_to_compute_gives_zeros():
    for tensors in ((Q[:, :, :0], K, V), (Q[:0], K[:0], V[:0]), (Q, K[:, :, :0], V[:, :, :0])):
        for impl in ("auto", "math", "sdpa"):
            result = narrows.attend(*tensors, scale=0.3, impl=impl)
            assert result.shape == (*tensors[0].shape[:3], 6)
            assert not result.any()


def leaf(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def arguments(T=3, U=4, R=3, F=2, H=2, G=1, mask=None, causal=False, lengths=None, impl="auto"):
    return (leaf(2, H, T, R), leaf(2, G, U, R), leaf(2, G, U, F), 0.7, mask, causal, lengths, impl)


CASES = {
    "plain": arguments,
    "equal widths and heads": lambda: arguments(R=2, G=2),
    "causal": lambda: arguments(causal=True),
    "causal, as many keys": lambda: arguments(T=3, U=3, causal=True),
    "causal, as many keys, equal heads": lambda: arguments(T=3, U=3, G=2, R=2, causal=True),
    "lengths of no key": lambda: arguments(lengths=torch.tensor([0, 3]), causal=True),
    "bool mask": lambda: arguments(mask=torch.tensor([[True, False, True, True]])),
    "a row that sees nothing": lambda: arguments(mask=torch.tensor([[True], [False], [True]])),
    "float mask": lambda: arguments(mask=leaf(1, 2, 1, 4)),
    "math": lambda: arguments(impl="math"),
    "no keys": lambda: arguments(U=0),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_are_the_finite_differences(case):
    assert gradcheck(attend_op, case())
    if case()[1].numel():
        assert gradgradcheck(attend_op, case(), fast_mode=True)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_opcheck_passes(case):
    given = case()
    torch.library.opcheck(attend_op, given)
    torch.library.opcheck(attend_op, tuple(t.detach() if isinstance(t, torch.Tensor) else t for t in given))


def test_one_tensor_in_three_places_gets_its_gradient_once():
    x = leaf(1, 2, 3, 4)
    (mine,) = torch.autograd.grad(narrows.attend(x, x, x, scale=0.5).sin().sum(), x)
    plain = (x @ x.mT * 0.5).softmax(-1) @ x
    (reference,) = torch.autograd.grad(plain.sin().sum(), x)
    assert torch.allclose(mine, reference, rtol=1e-12, atol=1e-14)


@pytest.fixture
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
def test_compiles_into_one_graph_at_any_length_and_differentiates():
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    both = lambda q, k, v: narrows.attend(q, k, v, scale=0.3, causal=True)  # noqa: E731
    compiled = torch.compile(both, fullgraph=True, dynamic=True, backend=counter)
    for keys in (5, 7, 9):
        q, k, v = call(T=3, U=keys).tensors
        assert torch.equal(compiled(q, k, v), both(q, k, v))
    assert counter.frame_count == 1
    leaves = [t.requires_grad_() for t in call(T=3, U=9).tensors]
    mine, reference = (torch.autograd.grad(f(*leaves).sin().sum(), leaves) for f in (compiled, both))
    assert all(torch.allclose(m, r, rtol=1e-5, atol=1e-6) for m, r in zip(mine, reference, strict=True))


def test_export_keeps_one_node():
    class Module(torch.nn.Module):
        def forward(self, q, k, v):
            return narrows.attend(q, k, v, scale=0.3)

    exported = torch.export.export(Module(), (Q, K, V), dynamic_shapes=({}, *({2: torch.export.Dim("keys")},) * 2))
    assert [n.target for n in exported.graph.nodes if n.op == "call_function"] == [attend_op]
    k, v = torch.ones(2, 2, 11, 8), torch.ones(2, 2, 11, 6)
    assert torch.equal(exported.module()(Q, k, v), narrows.attend(Q, k, v, scale=0.3))


def test_autocast_gives_its_dtype_and_leaves_lengths_alone():
    wanted = call(T=3)
    with torch.autocast("cpu", torch.bfloat16):
        result = narrows.attend(*wanted.tensors, scale=wanted.scale, lengths=torch.tensor([77, 5]))
    assert result.dtype == torch.bfloat16
    rounded = (t.bfloat16() for t in wanted.tensors)
    assert torch.equal(result, narrows.attend(*rounded, scale=wanted.scale, lengths=torch.tensor([77, 5])))


def test_flops_are_two_matmuls():
    with FlopCounterMode(display=False) as counter:
        narrows.attend(Q, K, V, scale=0.3)
    assert counter.get_total_flops() == 2 * 2 * 4 * 3 * 5 * (8 + 6)


def plain_attention(x, a, b, v, y, scale):
    """Return attention written out, x (B, T, D), y (B, U, E), v (B, G, U, F)."""
    b, v = (t.repeat_interleave(a.shape[0] // b.shape[0], dim=-3) for t in (b, v))
    scores = (x[:, None] @ a.mT) @ (y[:, None] @ b.mT).mT * scale
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("batched", ["nothing", "x", "y", "v", "all"])
def test_attention_is_projections_and_attend(batched):
    given = lambda name: [2] if batched in (name, "all") else []  # noqa: E731
    x, y, v = leaf(*given("x"), 3, 6), leaf(*given("y"), 5, 7), leaf(*given("v"), 2, 5, 4)
    a, b = leaf(4, 3, 6), leaf(2, 3, 7)
    result = narrows.attention(x, (a, b), v, y, scale=0.5)
    wide = [t.expand(2, *t.shape[-n:]) for t, n in ((x, 2), (y, 2), (v, 3))]
    reference = plain_attention(wide[0], a, b, wide[2], wide[1], 0.5)
    reference = reference[0] if batched == "nothing" else reference
    assert result.shape == reference.shape
    assert torch.allclose(result, reference, rtol=1e-12, atol=1e-14)
    mine, theirs = (torch.autograd.grad(r.sin().sum(), [x, y, v, a, b]) for r in (result, reference))
    assert all(torch.allclose(m, t, rtol=1e-10, atol=1e-12) for m, t in zip(mine, theirs, strict=True))


def test_attention_of_factors_reads_y_from_x_and_truncates():
    factors = Factors(leaf(4, 3, 6).detach(), leaf(4, 3, 6, seed=1).detach())
    x, v = leaf(2, 5, 6).detach(), leaf(2, 4, 5, 2).detach()
    for kept in (factors, factors.truncate(2)):
        reference = plain_attention(x, kept.a, kept.b, v, x, 0.5)
        assert torch.allclose(narrows.attention(x, kept, v, scale=0.5), reference, rtol=1e-12, atol=1e-14)


def test_attention_passes_mask_causality_and_implementation_on():
    a, b, x, v = torch.randn(4, 3, 6), torch.randn(2, 3, 6), torch.randn(5, 6), torch.randn(2, 5, 2)
    mask = torch.randn(5, 5)
    result = narrows.attention(x, (a, b), v, scale=0.5, mask=mask, causal=True, impl="math")
    q, k = (x @ a.mT)[None], (x @ b.mT)[None]
    reference = ATTENTION_MATH.run(q, k, v[None], scale=0.5, mask=mask, causal=True)[0]
    assert torch.allclose(result, reference, rtol=1e-5, atol=1e-6)


A, B_ = torch.ones(4, 3, 6), torch.ones(2, 3, 6)
WRONG_ATTENTION = {
    r"factors is a Tensor: give Factors, or a pair": ((torch.ones(5, 6), A, V), InputError),
    r"factors a \(3, 6\) and b \(3, 6\) must be \(H, R, D\) and \(G, R, E\)": (
        (torch.ones(5, 6), (A[0], B_[0]), torch.ones(2, 5, 2)),
        ShapeError,
    ),
    r"factors a \(3, 3, 6\) and b \(2, 3, 6\) must be .* with the same R and G dividing H": (
        (torch.ones(5, 6), (A[:3], B_), torch.ones(2, 5, 2)),
        ShapeError,
    ),
    r"x \(5, 7\) must be .* D=6": ((torch.ones(5, 7), (A, B_), torch.ones(2, 5, 2)), ShapeError),
    r"x \(as y\) \(5, 6\) must be .* E=7": (
        (torch.ones(5, 6), (A, torch.ones(2, 3, 7)), torch.ones(2, 5, 2)),
        ShapeError,
    ),
    r"v \(3, 5, 2\) must be .* G=2 .* U=5": ((torch.ones(5, 6), (A, B_), torch.ones(3, 5, 2)), ShapeError),
    r"batches \[\(2,\), \(2,\), \(3,\)\]": ((torch.ones(2, 5, 6), (A, B_), torch.ones(3, 2, 5, 2)), ShapeError),
    r"v is torch\.float64": ((torch.ones(5, 6), (A, B_), torch.ones(2, 5, 2).double()), DtypeError),
}


@pytest.mark.parametrize("text", WRONG_ATTENTION)
def test_each_wrong_operand_of_attention_is_named(text):
    operands, error = WRONG_ATTENTION[text]
    with pytest.raises(error, match=text):
        narrows.attention(*operands, scale=0.3)


def test_a_y_of_another_dtype_or_without_values_is_named():
    x, v = torch.ones(5, 6), torch.ones(2, 5, 2)
    with pytest.raises(DtypeError, match=r"y is torch\.float64 and factors\.b is torch\.float32"):
        narrows.attention(x, (A, B_), v, y=torch.ones(5, 6).double(), scale=1.0)
    with pytest.raises(DeviceError, match=r"y is on meta and factors\.b is on cpu"):
        narrows.attention(x, (A, B_), v, y=torch.ones(5, 6, device="meta"), scale=1.0)
