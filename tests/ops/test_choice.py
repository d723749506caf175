"""What a call asks about before an implementation is chosen for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import narrows
from narrows import Factors, Problem
from narrows.kernels import Epilogue
from narrows.ops import _attention_gradients, _bilinear_choice, _linear_choice, _ready
from narrows.ops._bilinear_choice import _is_batched


@pytest.mark.parametrize(
    ("x", "y", "is_batched"),
    [
        ((7, 12), None, False),
        ((1, 7, 12), None, False),
        ((1, 1, 7, 12), (7, 12), False),
        ((2, 7, 12), None, True),
        ((7, 12), (2, 7, 12), True),
        ((0, 7, 12), None, False),
    ],
)
def test_more_than_one_x_or_y_is_a_batch(x, y, is_batched):
    assert _is_batched(torch.zeros(x), None if y is None else torch.zeros(y)) is is_batched


def test_a_named_implementation_is_asked_about_the_sizes_of_every_member(monkeypatch):
    asked, kernel = [], _linear_choice.kernel

    def recorded(kind, impl, problem):
        asked.append((problem.tokens, problem.in_features, problem.out_features, problem.heads))
        return kernel(kind, impl, problem)

    monkeypatch.setattr(_linear_choice, "kernel", recorded)
    _linear_choice._named.cache_clear()
    members = [Factors(torch.zeros(3, 12), torch.zeros(3, 5)), Factors(torch.zeros(4, 3, 12), torch.zeros(4, 3, 17))]
    _linear_choice.linear_kernel("two", torch.zeros(2, 7, 12), [f.a for f in members], [f.b for f in members])
    assert asked == [(14, 12, 5, 1), (14, 12, 17, 4)]


@pytest.mark.parametrize(("y", "others"), [(None, None), ((5, 8, 10), 40)])
@pytest.mark.parametrize(("heads", "number"), [((), 1), ((4,), 4)])
def test_a_named_bilinear_implementation_is_asked_about_the_sizes_of_its_call(monkeypatch, heads, number, y, others):
    asked, kernel = [], _bilinear_choice.kernel

    def recorded(kind, impl, problem):
        asked.append(problem)
        return kernel(kind, impl, problem)

    monkeypatch.setattr(_bilinear_choice, "kernel", recorded)
    _bilinear_choice._named.cache_clear()
    x, a, b = torch.zeros(2, 1, 7, 12), torch.zeros(*heads, 3, 12), torch.zeros(*heads, 3, 10 if y else 12)
    _bilinear_choice.named_kernel("three", x, a, b, None if y is None else torch.zeros(y))
    assert asked == [
        Problem("bilinear", 14, 12, b.shape[-1], other_tokens=others, heads=number, dtype="float32", device="cpu")
    ]


class OnDevice(torch.Tensor):
    is_cuda = True


@pytest.mark.parametrize(("of_graphs", "expected"), [("others", ["others", "others"]), ("the same", [])])
def test_what_a_captured_call_runs_is_run_once_before_where_a_plain_one_runs_another(monkeypatch, of_graphs, expected):
    ran = []
    own = SimpleNamespace(run_with=lambda sizes, *_, **__: ran.append(sizes))

    def own_kernel(*operands):
        return own, of_graphs if operands[5:] == ("graph",) else "the same"

    monkeypatch.setattr(_bilinear_choice, "own_kernel", own_kernel)
    monkeypatch.setattr(_bilinear_choice, "_prepared", set())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    x, factors = torch.zeros(7, 12).as_subclass(OnDevice), Factors(torch.zeros(3, 12), torch.zeros(3, 12))
    for softcap in (None, 2.0, None):
        _bilinear_choice.prepare_capture("auto", x, factors, None, Epilogue(softcap=softcap))
    assert ran == expected


class FunctionMode(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class DispatchMode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


WATCHERS = {
    "a mode of functions": FunctionMode,
    "a mode of operations": DispatchMode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "forward gradients": torch.autograd.forward_ad.dual_level,
}


@pytest.fixture
def on_a_device(monkeypatch):
    monkeypatch.setattr(_ready, "_is_on_device", lambda _: True)
    monkeypatch.setattr(_ready, "_is_capturing", lambda: False)


@pytest.mark.usefixtures("on_a_device")
@pytest.mark.parametrize("watcher", WATCHERS.values(), ids=WATCHERS)
def test_a_call_that_anything_watches_is_not_plain(watcher):
    operands = [torch.zeros(3, 3) for _ in range(3)]
    assert _ready.is_plain(*operands)
    with watcher():
        assert not _ready.is_plain(*operands)
    assert _ready.is_plain(*operands)


@pytest.mark.usefixtures("on_a_device")
def test_a_call_inside_a_transform_is_not_plain():
    found = []
    torch.vmap(lambda x: found.append(_ready.is_plain(x, torch.zeros(3, 3))) or x)(torch.zeros(2, 3, 3))
    assert found == [False]


class Untouched:
    def run(self, *_, **__):
        raise AssertionError("the scores were held")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_gradient_of_one_operand_does_not_hold_the_scores(monkeypatch, place):
    operands = [torch.randn(1, 2, 5, 4) for _ in range(3)]
    operands[place].requires_grad_()
    result = narrows.attend(*operands, scale=0.5)
    monkeypatch.setattr(_attention_gradients, "ATTENTION_MATH", Untouched())
    result.sum().backward()
    assert operands[place].grad is not None


def test_the_gradient_of_a_mask_alone_is_that_of_the_specification():
    q, k, v = (torch.randn(1, 2, 5, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    (mine,) = torch.autograd.grad(narrows.attend(q, k, v, scale=0.5, mask=mask).sin().sum(), mask)
    plain = (q @ k.mT * 0.5 + mask).softmax(-1) @ v
    (reference,) = torch.autograd.grad(plain.sin().sum(), mask)
    assert torch.allclose(mine, reference, rtol=1e-12, atol=1e-14)  # some 25 sums of 5 products in float64
