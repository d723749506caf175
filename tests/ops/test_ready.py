"""When a call that was made before is not made again: whatever watches, changes or refuses it."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
import torch._dynamo.testing
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

import narrows
from narrows import Factors
from narrows.errors import DtypeError, InputError, ShapeError
from narrows.kernels import tuned
from narrows.ops import _bilinear, _ready
from ops.ready_calls import CALLS, LongWayError, forbid_the_long_way, normal, num_ready, pretend


@pytest.fixture(autouse=True)
def _ready_on_a_cpu(monkeypatch):
    pretend(monkeypatch)


@pytest.fixture
def factors():
    return Factors(normal(3, 8, seed=1), normal(3, 8, seed=2)).interleaved()


@pytest.fixture
def x(factors):
    """An x whose calls are ready."""
    x = normal(5, 8)
    for _ in range(CALLS):
        narrows.bilinear(x, factors)
        narrows.linear(x, factors)
    assert num_ready() == 2
    return x


def takes_the_long_way(call):
    """Whether a call does more than what was made ready."""
    with pytest.MonkeyPatch.context() as patch:
        forbid_the_long_way(patch)
        try:
            call()
        except LongWayError:
            return True
        return False


def test_the_second_call_makes_it_ready(factors):
    x = normal(5, 8)
    ready = []
    for _ in range(4):
        narrows.bilinear(x, factors)
        ready.append(num_ready())
    assert ready == [0, 1, 1, 1]
    assert not takes_the_long_way(lambda: narrows.bilinear(x, factors))


class Seen(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Named(torch.Tensor):
    pass


def dual(x):
    with forward_ad.dual_level():
        return narrows.bilinear(forward_ad.make_dual(x, x), Factors(normal(3, 8), normal(3, 8)).interleaved())


CHANGES = {
    "a subclass": lambda x, f: narrows.bilinear(x.as_subclass(Named), f),
    "a parameter of a graph": lambda x, f: narrows.bilinear(torch.nn.Parameter(x), f),
    "x wants a gradient": lambda x, f: narrows.bilinear(x.clone().requires_grad_(), f),
    "a negated view": lambda x, f: narrows.bilinear(torch._neg_view(x), f),
    "inside vmap": lambda x, f: torch.vmap(lambda t: narrows.bilinear(x, f) + t)(torch.zeros(2, 1, 1)),
    "inside grad": lambda x, f: torch.func.grad(lambda t: (narrows.bilinear(x, f) * t).sum())(torch.ones(())),
    "another dtype": lambda x, f: narrows.bilinear(x.double(), f.to(torch.float64).interleaved()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_operands_of_another_kind_take_the_long_way(change, x, factors):
    assert takes_the_long_way(lambda: change(x, factors))
    assert not takes_the_long_way(lambda: narrows.bilinear(x.clone(), factors))


def watched(context):
    def call(x, factors):
        with context():
            return narrows.bilinear(x, factors)

    return call


def traced(x, factors):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit's, of itself and of sizes
        return torch.jit.trace(lambda t: narrows.bilinear(t, factors), (x,), check_trace=False)


WATCHERS = {
    "a dispatch mode": watched(lambda: FlopCounterMode(display=False)),
    "a function mode": watched(Seen),
    "autocast": watched(lambda: torch.autocast("cpu", torch.bfloat16)),
    "forward differentiation": watched(forward_ad.dual_level),
    "torch.jit.trace": traced,
}


@pytest.mark.parametrize("call", WATCHERS.values(), ids=WATCHERS)
def test_a_watched_call_takes_the_long_way(call, x, factors):
    assert takes_the_long_way(lambda: call(x, factors))
    assert not takes_the_long_way(lambda: narrows.bilinear(x, factors))


def test_a_captured_call_takes_the_long_way(x, factors, monkeypatch):
    monkeypatch.setattr(_ready, "_is_capturing", lambda: True)
    assert takes_the_long_way(lambda: narrows.bilinear(x, factors))
    assert takes_the_long_way(lambda: narrows.linear(x, factors))


def test_gradients_flow_where_they_are_wanted_and_only_there(x, factors):
    wanting = x.clone().requires_grad_()
    narrows.bilinear(wanting, factors).sum().backward()
    assert wanting.grad.abs().min() > 0
    a = torch.nn.Parameter(factors.a.clone())
    for _ in range(CALLS):
        assert narrows.linear(x, Factors(a, factors.b)).requires_grad
        with torch.no_grad():
            assert not narrows.linear(x, Factors(a, factors.b)).requires_grad
    with torch.no_grad():
        assert not takes_the_long_way(lambda: narrows.linear(x, Factors(a, factors.b)))


def test_inference_mode_is_made_ready_on_its_own(x, factors):
    expected = narrows.bilinear(x, factors)
    with torch.inference_mode():
        assert takes_the_long_way(lambda: narrows.bilinear(x, factors))
        for _ in range(CALLS):
            result = narrows.bilinear(x, factors)
            assert result.is_inference()
            assert torch.equal(result, expected)
        assert not takes_the_long_way(lambda: narrows.bilinear(x, factors))
        inner = x.clone()
    assert takes_the_long_way(lambda: narrows.bilinear(inner, factors))
    result = narrows.bilinear(x, factors)
    assert not result.is_inference()
    assert not takes_the_long_way(lambda: narrows.bilinear(x, factors))


def test_a_result_may_be_changed_in_place_where_gradients_are_recorded(factors):
    """As that of an operation: a view made under no_grad may not."""
    x, weight = normal(2, 5, 8), torch.ones(8, requires_grad=True)
    for _ in range(CALLS):
        with torch.no_grad():
            y = narrows.linear(x, factors, normal(8))
        y += weight
        assert y.requires_grad


def test_autocast_gives_its_dtype(x, factors):
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(CALLS):
            assert narrows.bilinear(x, factors).dtype == torch.bfloat16
    assert narrows.bilinear(x, factors).dtype == torch.float32


def test_a_mode_counts_what_it_counted(x, factors):
    with FlopCounterMode(display=False) as counter:
        narrows.bilinear(x, factors)
    assert counter.get_total_flops() == 2 * 5 * 8 * 3 * 2 + 2 * 5 * 5 * 3


def test_a_new_choice_is_asked_for_after_the_old_ones_are_forgotten(x, factors, monkeypatch):
    tuned.forget()
    assert takes_the_long_way(lambda: narrows.bilinear(x, factors))
    asked = []
    monkeypatch.setattr(_bilinear, "own_kernel", lambda *arguments: asked.append(arguments[0]))
    for _ in range(CALLS):
        narrows.bilinear(x, factors)
    assert asked == ["auto"]
    assert not takes_the_long_way(lambda: narrows.bilinear(x, factors))


def test_an_own_kernel_is_recorded_and_replayed_in_16_bits_only(monkeypatch):
    recorded = []

    def record(run, operands, *, tied):
        recorded.append((operands[0].dtype, tied))
        return run(), lambda *_: torch.ones(5, 5)

    monkeypatch.setattr(_bilinear, "own_kernel", lambda *_: "own")
    monkeypatch.setattr("narrows.kernels.triton._replay.record", record)
    for dtype, is_replayed in ((torch.bfloat16, True), (torch.float16, True), (torch.float32, False)):
        x, factors = normal(5, 8, dtype=dtype), Factors(normal(3, 8, dtype=dtype), normal(3, 8, dtype=dtype))
        for _ in range(CALLS):
            result = narrows.bilinear(x, factors)
        assert bool((result == 1).all()) == is_replayed
    assert recorded == [(torch.bfloat16, (1, 2)), (torch.float16, (1, 2))]


def test_a_replay_that_cannot_run_leaves_the_call_to_the_long_way(monkeypatch):
    monkeypatch.setattr(_bilinear, "_prepare", lambda *arguments: (arguments[-1](), lambda *_: None))
    x, factors = normal(5, 8), Factors(normal(3, 8), normal(3, 8))
    for _ in range(CALLS):
        assert torch.equal(narrows.bilinear(x, factors), (x @ factors.a.mT) @ (x @ factors.b.mT).mT)
    assert num_ready() == 1


def test_calls_that_never_run_again_do_not_pile_up(monkeypatch):
    """As operands that are not aligned: each layer has addresses of its own, and none of them is of use."""
    tried = []
    monkeypatch.setattr(_bilinear, "_prepare", lambda *arguments: (arguments[-1](), lambda *_: tried.append(1)))
    x, layers = normal(5, 8), [Factors(normal(3, 8), normal(3, 8)) for _ in range(20)]
    for factors in layers * CALLS:
        narrows.bilinear(x, factors)
    assert num_ready() == _ready.MOST_ALIKE
    tried.clear()
    narrows.bilinear(x, layers[0])
    assert len(tried) == _ready.MOST_ALIKE


def test_what_does_not_fit_is_refused_by_name_when_calls_are_ready(x, factors):
    with pytest.raises(InputError, match=r"x is a ndarray: give a torch\.Tensor"):
        narrows.bilinear(x.numpy(), factors)
    with pytest.raises(InputError, match="x is a NoneType"):
        narrows.linear(None, factors)
    with pytest.raises(InputError, match="mask is a list"):
        narrows.bilinear(x, factors, mask=[1.0])
    with pytest.raises(InputError, match="residual is a float"):
        narrows.linear(x, factors, residual=1.0)
    with pytest.raises(InputError, match=r"scale is a Tensor of shape \(\)"):
        narrows.bilinear(x, factors, scale=torch.tensor(2.0))
    with pytest.raises(InputError, match=r"softcap=-1\.0 must be finite and above 0"):
        narrows.bilinear(x, factors, softcap=-1.0)
    with pytest.raises(InputError, match="activation=\\['silu'\\] is not known"):
        narrows.linear(x, factors, activation=["silu"])
    with pytest.raises(InputError, match="factors is a tuple"):
        narrows.bilinear(x, (factors.a, factors.b))
    with pytest.raises(ShapeError, match=r"x \(8, 5\) has 5 features"):
        narrows.bilinear(x.mT.contiguous(), factors)
    with pytest.raises(DtypeError, match=r"x is torch\.int32 and factors\.a is torch\.float32"):
        narrows.bilinear(x.int(), factors)


def test_no_more_calls_are_remembered_than_fit(factors, monkeypatch):
    monkeypatch.setattr(_ready, "MOST", 3)
    for tokens in range(1, 12):
        for _ in range(2):
            narrows.bilinear(normal(tokens, 8), factors)
        assert num_ready() <= 3
        assert len(_ready._seen) <= 3
    assert not takes_the_long_way(lambda: narrows.bilinear(normal(11, 8), factors))


def test_a_compiled_call_stays_one_operation(x, factors):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda t: narrows.bilinear(t, factors), fullgraph=True, backend=counter)
    assert torch.equal(compiled(x), narrows.bilinear(x, factors))
    called = [node.target for node in counter.graphs[0].graph.nodes if node.op == "call_function"]
    assert called == [torch.ops.narrows.bilinear.default]
    torch._dynamo.reset()


def test_threads_make_and_use_one_call_together(factors):
    xs = [normal(5, 8, seed=i) for i in range(4)]
    expected = [(x @ factors.a.mT) @ (x @ factors.b.mT).mT for x in xs]
    wrong = []

    def work(i):
        for _ in range(50):
            result = narrows.bilinear(xs[i], factors)
            # Chains of 8 and 3 terms, each rounded to float32, of numbers below 100.
            if (result - expected[i]).abs().max() > 100 * 24 * 2**-24 * 8:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
