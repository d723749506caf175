"""Every operation's short property test, and that each law it is held to can be broken and is then reported."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import strategies as st
from soak.right import group, pivot
from soak.right import part as right
from soak.right.activations import CURVATURE, FUNCTIONS, SLOPE, derivative
from soak.right.bounds import Chain, exact
from soak.right.draws import DTYPES, LAYOUTS, LAYOUTS_OF_BOOL, VALUES, Maker
from soak.right.trial import Trial, Undecided, Violation, judge

import narrows
from narrows import testing

EXAMPLES = 50
SCALE = EXAMPLES / right.EXAMPLES


@pytest.mark.parametrize("name", right.OPERATIONS)
def test_an_operation_is_within_its_bounds_on_whatever_fits_it(name):
    share = right.search(name, seed=0, examples=EXAMPLES)
    assert not share.failure, share.failure
    assert share.counts["judged"] >= EXAMPLES
    assert share.counts["gradients"] > EXAMPLES / 2


def spoiled(operation, change):
    """Return an operation whose results are changed."""

    def wrong(*operands, **options):
        results = operation(*operands, **options)
        return change(results) if isinstance(results, torch.Tensor) else tuple(map(change, results))

    return wrong


def one_element(result):
    """Return a copy of a result with one wrong element."""
    result = result.clone()
    if result.numel():
        result.view(-1)[-1] += 1 + result.view(-1)[-1].abs()
    return result


class GradientsTimes(torch.autograd.Function):
    """The same values, 10 % larger gradients."""

    @staticmethod
    def forward(ctx, values):
        return values.view_as(values)

    @staticmethod
    def backward(ctx, grad):
        return grad * 1.1


FAULTS = {"a wrong element": one_element, "wrong gradients": GradientsTimes.apply}


def changed_stack(change):
    """Return `stack` with every a changed."""
    stack = narrows.stack
    return lambda factors: tuple(narrows.Factors(change(one.a), one.b) for one in stack(factors))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", right.OPERATIONS)
def test_a_fault_in_an_operation_is_found_and_made_small(name, fault, monkeypatch):
    change = FAULTS[fault]
    if name == "stack":
        monkeypatch.setattr(narrows, "stack", changed_stack(change))
    else:
        home = pivot if name == "pivot_linear" else narrows
        monkeypatch.setattr(home, name, spoiled(getattr(home, name), change))
    share = right.search(name, seed=0, examples=EXAMPLES)
    assert share.failure.startswith("Violation: ")
    assert f"python -m soak.right {name} --seed 0 --examples {EXAMPLES}" in share.failure
    assert "values='normal'" in share.failure or "rank=1" in share.failure  # what shrinking ends at


class Doubling(Trial):
    """An operation to break: x times 2, by default without a fault."""

    needs = 1

    def __init__(self, run=lambda x: x * 2, dtype="float32"):
        self.maker = Maker(dtype, "normal", 0)
        self.tensors = {"x": self.maker.tensor(3, 4)}
        self._run = run

    def run(self, tensors):
        return (self._run(tensors["x"]),)

    def results(self, chain):
        return (chain.scaled(exact(self.tensors["x"]), 2.0),)

    def gradients(self, chain, grads):
        return {"x": chain.scaled(grads[0], 2.0)}

    def doubles(self):
        return "x", 1


class Unsteady:
    """Gives other last bits at every call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return x * 2 * (1 + self.calls % 2 * torch.finfo(x.dtype).eps)


def changing(x):
    """Change what was given."""
    result = x * 2
    with torch.no_grad():
        x[0, 0] = 5
    return result


def numbing(x):
    """Turn NaN into numbers."""
    return (x * 2).nan_to_num()


def spreading(x):
    """Let NaN of one row reach all."""
    return x * 2 + 0 * x.sum()


def zero_gradients(x):
    """Break the graph for a part of x."""
    return torch.cat((x[:1].detach(), x[1:])) * 2


BROKEN = {
    "the worst .error. of result 0 is .* times its bound": lambda x: x * 2.01,
    "result 0 is torch.float64, not torch.float32": lambda x: x.double() * 2,
    r"result 0 is \(4, 3\), not \(3, 4\)": lambda x: (x * 2).T,
    "a second call gave other bits": Unsteady(),
    "an operand was changed": changing,
    "NaN in row 1 of x gave numbers there": numbing,
    "NaN in row 1 of x changed other rows": spreading,
    "the worst .error. of gradient 0 is .* times its bound": zero_gradients,
}


@pytest.mark.parametrize("text", BROKEN)
def test_each_law_can_be_broken(text):
    with pytest.raises(Violation, match=text):
        judge(Doubling(BROKEN[text]))


def test_what_breaks_no_law_passes():
    judged = judge(Doubling())
    assert judged.result <= 1
    assert judged.num_gradients == 1


def test_a_doubled_operand_must_double_the_result_bit_for_bit():
    """A lost bit within the bound, seen only because large numbers lose it and small ones do not."""

    def lossy(x):
        return torch.where(x.abs() > 1.5, x * 2 * (1 - 2.0**-24), x * 2)

    with pytest.raises(Violation, match="x doubled does not give the result times 2 bit for bit"):
        judge(Doubling(lossy))


def test_a_result_must_be_minus_infinity_where_the_specification_is():
    diagonal = torch.eye(3, 4) > 0

    class Masked(Doubling):
        def hidden(self):
            return diagonal

        def gradients(self, chain, grads):
            return super().gradients(chain, [grads[0].moved(lambda grad: grad.masked_fill(diagonal, 0))])

    judge(Masked(lambda x: (x * 2).masked_fill(diagonal, -torch.inf)))
    with pytest.raises(Violation, match="result 0 is -inf at other places"):
        judge(Masked())


def test_what_may_overflow_is_not_judged():
    huge = Doubling(dtype="float16")
    huge.tensors["x"].fill_(20000)
    with pytest.raises(Undecided):
        judge(huge)


@dataclass(frozen=True)
class NoCase:
    number: int


def test_too_few_judged_examples_fail_a_figure(monkeypatch):
    def nothing(case):
        raise Undecided

    monkeypatch.setitem(right.OPERATIONS, "none", right.Operation(st.builds(NoCase, st.integers(0, 9)), nothing))
    share = right.search("none", seed=0, examples=EXAMPLES)
    figure = right.figure("none", [share], EXAMPLES)
    assert figure.status == "failed"
    assert figure.count == 0


def test_other_processes_give_the_same_figures_as_this_one(monkeypatch):
    monkeypatch.setattr(right, "OPERATIONS", {"stack": right.OPERATIONS["stack"]})
    here, elsewhere = (list(right.figures(3, SCALE, jobs)) for jobs in (1, 2))
    assert here == elsewhere
    assert [(figure.status, figure.count) for figure in here] == [("ok", EXAMPLES)]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_the_running_bounds_are_those_of_narrows_for_plain_chains(dtype):
    maker = Maker(str(dtype).removeprefix("torch."), "normal", 1)
    x, a, b, y, bias = (maker.tensor(*shape) for shape in ((5, 33), (7, 33), (7, 31), (9, 31), (31,)))
    chain = Chain(dtype)
    p = chain.product(exact(x), exact(a).transposed)
    scores = chain.product(p, chain.product(exact(y), exact(b).transposed).transposed)
    linear = chain.product(p, exact(b), exact(bias))
    for mine, theirs in (
        (scores, testing.bilinear_bound(x, a, b, y)),
        (linear, testing.linear_bound(x, a, b, bias)),
    ):
        assert torch.equal(mine.value, theirs.value)
        # The running one counts the reference's own rounding of float64 at every step.
        assert (mine.error / theirs.bound - 1).abs().max() < (1.0 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_slopes_and_curvatures_are_the_largest(activation):
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    slope = derivative(grid, activation)
    assert slope.abs().max() <= SLOPE[activation]
    assert slope.abs().max() > SLOPE[activation] - 0.02
    if activation in CURVATURE:
        curvature = (slope[1:] - slope[:-1]).abs().max() / (grid[1] - grid[0])
        assert CURVATURE[activation] - 0.02 < curvature <= CURVATURE[activation]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_keeps_the_shape_and_is_what_it_says(layout):
    tensor = Maker("float32", "normal", 0).tensor(4, 5, 6, layout=layout)
    assert tensor.shape == (4, 5, 6)
    assert not tensor.isnan().any()
    stride, start = tensor.stride(), tensor.storage_offset()
    wanted = {
        "plain": ((30, 6, 1), 0),
        "columns": ((30, 1, 5), 0),
        "every other": ((60, 12, 2), 0),
        "outer first": ((1, 24, 4), 0),
        "expanded": ((0, 6, 1), 0),
        "odd start": ((30, 6, 1), 1),
    }
    if layout in wanted:
        assert (stride, start) == wanted[layout]
    assert stride[1] == (0 if layout == "one row" else stride[1])
    assert (layout == "window") == (stride == (72, 9, 1))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (3, 0), (2, 0, 3)])
def test_every_layout_takes_the_smallest_shapes(layout, shape):
    assert Maker("bfloat16", "outlier", 0).tensor(*shape, layout=layout).shape == shape


def test_every_kind_of_values_is_drawn():
    drawn = {name: Maker("float32", name, 0).tensor(40, 40) for name in VALUES}
    assert drawn["normal"].unique().numel() > 1000
    assert set(drawn["whole"].unique().tolist()) == {-2, -1, 0, 1, 2}
    assert (drawn["sparse"] == 0).float().mean() > 0.8
    assert drawn["outlier"].abs().max() > 100
    assert all(Maker("float32", "normal", 0).keep(4, 4, layout=name).dtype == torch.bool for name in LAYOUTS_OF_BOOL)


def test_members_of_a_group_are_stacked_where_the_case_says_so():
    case = group.GroupCase(
        "float32", 3, 5, ((2, 4, False), (3, 4, True), (1, 2, False)), 2, "matrix", False, "plain", "plain", "plain",
        0, "normal", None, "auto", 0, 0,
    )  # fmt: skip
    trial = group.GroupTrial(case)
    first, second, third = (one.a.untyped_storage().data_ptr() for one in trial.factors(trial.tensors))
    assert first == second != third
