"""The operations inside torch's machinery: autograd, compile, export, autocast, opcheck, FLOPs."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.flop_counter import FlopCounterMode

import narrows.ops
from kernels import bounds
from narrows import Factors, Problem
from narrows._cost import thin_cost

linear_op = torch.ops.narrows.linear.default
bilinear_op = torch.ops.narrows.bilinear.default


def leaf(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


BOOL = torch.tensor([[True, False, True, True]])
LINEAR = {
    "plain": lambda: (leaf(4, 5), leaf(2, 5), leaf(2, 3), None, None, None, None, "auto"),
    "bias": lambda: (leaf(4, 5), leaf(2, 5), leaf(2, 3), leaf(3), None, None, None, "auto"),
    "one row": lambda: (leaf(5), leaf(2, 5), leaf(2, 3), leaf(3), None, None, None, "auto"),
    "batch": lambda: (leaf(2, 3, 5), leaf(2, 5), leaf(2, 3), leaf(3), None, None, None, "auto"),
    "heads": lambda: (leaf(2, 1, 3, 5), leaf(3, 2, 5), leaf(3, 2, 4), leaf(4), None, None, None, "two"),
    "no tokens": lambda: (leaf(0, 5), leaf(2, 5), leaf(2, 3), leaf(3), None, None, None, "auto"),
}
BILINEAR = {
    "self": lambda: (leaf(4, 5), leaf(2, 5), leaf(2, 5, seed=1), None, None, None, None, False, "auto"),
    "self in two": lambda: (leaf(4, 5), leaf(2, 5), leaf(2, 5, seed=1), None, 0.5, None, None, False, "two"),
    "rectangular": lambda: (leaf(4, 5), leaf(2, 5), leaf(2, 3), leaf(3, 3), 0.5, None, leaf(4, 3), False, "auto"),
    "float mask": lambda: (leaf(4, 5), leaf(2, 5), leaf(2, 5, seed=1), None, 2.0, None, leaf(1, 4), False, "auto"),
    "softcap": lambda: (leaf(4, 5), leaf(2, 5), leaf(2, 5, seed=1), None, None, 3.0, None, False, "auto"),
    "scale, softcap, mask": lambda: (leaf(4, 5), leaf(2, 5), leaf(2, 3), leaf(3, 3), 0.5, 2.0, leaf(3), False, "auto"),
    "batch": lambda: (leaf(2, 4, 5), leaf(2, 5), leaf(2, 5, seed=1), None, None, None, leaf(4, 1), False, "auto"),
    "y shared by a batch": lambda: (
        *(leaf(2, 4, 5), leaf(2, 5), leaf(2, 3), leaf(3, 3)),
        *(None, None, None, False, "auto"),
    ),
    "x shared by heads": lambda: (
        *(leaf(2, 1, 3, 5), leaf(3, 2, 5), leaf(3, 2, 5, seed=1), None),
        *(0.5, 2.0, None, False, "auto"),
    ),
    "no tokens": lambda: (leaf(0, 5), leaf(2, 5), leaf(2, 3), leaf(3, 3), None, 2.0, None, True, "auto"),
}


@pytest.mark.parametrize("arguments", LINEAR.values(), ids=LINEAR)
def test_linear_gradients_are_the_finite_differences(arguments):
    assert gradcheck(linear_op, arguments())
    assert gradgradcheck(linear_op, arguments())


@pytest.mark.parametrize("arguments", BILINEAR.values(), ids=BILINEAR)
def test_bilinear_gradients_are_the_finite_differences(arguments):
    assert gradcheck(bilinear_op, arguments())
    assert gradgradcheck(bilinear_op, arguments())


def test_nothing_flows_back_through_what_a_bool_mask_removes():
    x, factors = leaf(4, 5), Factors(leaf(2, 5).detach(), leaf(2, 5, seed=1).detach())
    weights = torch.randn(4, 4, dtype=torch.float64)
    scores = narrows.bilinear(x, factors, mask=BOOL)
    (mine,) = torch.autograd.grad((scores.softmax(-1) * weights).sum(), x)
    plain = ((x @ factors.a.mT) @ (x @ factors.b.mT).mT).masked_fill(~BOOL, -torch.inf)
    (reference,) = torch.autograd.grad((plain.softmax(-1) * weights).sum(), x)
    assert torch.allclose(mine, reference, rtol=1e-12, atol=1e-14)
    assert torch.isfinite(mine).all()


def test_factors_of_a_view_receive_their_gradients():
    pair = leaf(3, 2, 5)
    narrows.bilinear(leaf(4, 5).detach(), Factors(pair[:, 0], pair[:, 1]).truncate(2)).sum().backward()
    assert pair.grad[:2].abs().min() > 0
    assert not pair.grad[2].any()


@pytest.mark.parametrize("arguments", LINEAR.values(), ids=LINEAR)
def test_linear_passes_opcheck(arguments):
    torch.library.opcheck(linear_op, arguments())
    torch.library.opcheck(linear_op, detached(arguments()))


@pytest.mark.parametrize("arguments", BILINEAR.values(), ids=BILINEAR)
def test_bilinear_passes_opcheck(arguments):
    torch.library.opcheck(bilinear_op, arguments())
    torch.library.opcheck(bilinear_op, detached(arguments()))


def detached(arguments):
    return tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in arguments)


@pytest.fixture
def factors():
    generator = torch.Generator().manual_seed(0)
    return Factors(torch.randn(3, 6, generator=generator), torch.randn(3, 6, generator=generator)).interleaved()


@pytest.fixture
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph_with_factors_as_argument_and_closure(factors, dynamic):
    both = lambda x, f: narrows.bilinear(x, f, scale=0.5) + narrows.linear(x, factors.truncate(2)).sum()  # noqa: E731
    compiled = torch.compile(both, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for tokens in (4, 7, 9):
        x = torch.randn(tokens, 6)
        assert torch.equal(compiled(x, factors), both(x, factors))


@pytest.mark.usefixtures("_fresh_compiler")
def test_dynamic_lengths_compile_once(factors):
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x: narrows.bilinear(x, factors), fullgraph=True, dynamic=True, backend=counter)
    for tokens in (4, 7, 9):
        compiled(torch.randn(tokens, 6))
    assert counter.frame_count == 1


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own import
def test_inductor_gives_the_same_result_and_gradient(factors):
    compiled = torch.compile(lambda x: narrows.bilinear(x, factors), fullgraph=True)
    x, z = torch.randn(5, 6, requires_grad=True), torch.randn(5, 5)
    (mine,) = torch.autograd.grad((compiled(x) * z).sum(), x)
    (reference,) = torch.autograd.grad((narrows.bilinear(x, factors) * z).sum(), x)
    # Two additions of chains of length 5 * 3 * 6 in float32, in another order.
    assert (mine - reference).abs().max() <= 2 * bounds.gamma(90, torch.float32) * 90 * reference.abs().max()
    assert torch.equal(compiled(x), narrows.bilinear(x, factors))


class Scores(torch.nn.Module):
    def __init__(self, factors):
        super().__init__()
        self.a, self.b = torch.nn.Parameter(factors.a), torch.nn.Parameter(factors.b)

    def forward(self, x):
        return narrows.bilinear(x, Factors(self.a, self.b))


@pytest.mark.parametrize("strict", [False, True])
def test_export_keeps_one_node_at_any_length(factors, strict):
    module = Scores(factors)
    tokens = {"x": {0: torch.export.Dim("tokens")}}
    exported = torch.export.export(module, (torch.randn(7, 6),), dynamic_shapes=tokens, strict=strict)
    called = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert called == [bilinear_op]
    x = torch.randn(11, 6)
    assert torch.equal(exported.module()(x), module(x))


@pytest.mark.parametrize("x_dtype", [torch.float32, torch.bfloat16])
def test_autocast_gives_what_it_gives_f_linear(factors, x_dtype):
    x = torch.randn(5, 6).to(x_dtype)
    rounded = Factors(factors.a.bfloat16(), factors.b.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        y, scores = narrows.linear(x, factors, torch.ones(6)), narrows.bilinear(x, factors, mask=torch.zeros(5, 5))
        assert y.dtype == torch.nn.functional.linear(x, factors.a).dtype == scores.dtype == torch.bfloat16
    assert torch.equal(y, narrows.linear(x.bfloat16(), rounded, torch.ones(6).bfloat16()))
    assert torch.equal(scores, narrows.bilinear(x.bfloat16(), rounded))


def test_autocast_gives_gradients_in_the_dtype_of_the_leaves(factors):
    a = factors.a.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        narrows.linear(torch.randn(5, 6), Factors(a, factors.b)).sum().backward()
    assert a.grad.dtype == torch.float32


@pytest.mark.usefixtures("_fresh_compiler")
def test_autocast_works_compiled(factors):
    x = torch.randn(5, 6)
    compiled = torch.compile(lambda t: narrows.linear(t, factors), fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(x), narrows.linear(x, factors))
        assert torch.equal(compiled(x.bfloat16()), narrows.linear(x, factors))


def test_flops_are_the_formula(factors):
    x, y = torch.randn(5, 6), torch.randn(4, 6)
    cases = {
        Problem("linear", 5, 6, 6): lambda: narrows.linear(x, factors),
        Problem("bilinear", 5, 6, 6): lambda: narrows.bilinear(x, factors),
        Problem("bilinear", 5, 6, 6, other_tokens=4): lambda: narrows.bilinear(x, factors, y),
    }
    for problem, call in cases.items():
        with FlopCounterMode(display=False) as counter:
            call()
        assert counter.get_total_flops() == thin_cost(problem, 3).flops
    headed = Factors(torch.randn(4, 3, 6), torch.randn(4, 3, 6))
    for problem, call in {
        Problem("linear", 5, 6, 6, heads=4): lambda: narrows.linear(x, headed),
        Problem("bilinear", 5, 6, 6, heads=4): lambda: narrows.bilinear(x.unsqueeze(0), headed),
    }.items():
        with FlopCounterMode(display=False) as counter:
            call()
        assert counter.get_total_flops() == thin_cost(problem, 3).flops
