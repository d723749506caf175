"""PivotLinear: rows, what makes the others of them, and their places."""

import copy

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from kernels import bounds
from narrows._values import PivotFactors
from narrows.errors import InputError, RankError, ShapeError
from narrows.nn import PivotLinear

D, E, R = 6, 9, 4
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def drawn(*sizes, seed=0, dtype=torch.float32):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed)).to(dtype)


def pivot_form(dtype=torch.float32, out_features=E):
    order = torch.randperm(out_features, generator=torch.Generator().manual_seed(5))
    return PivotFactors(drawn(R, D, dtype=dtype), drawn(out_features - R, R, seed=1, dtype=dtype), order)


@pytest.fixture
def pivot():
    return pivot_form()


@pytest.fixture
def layer(pivot):
    return PivotLinear.from_pivot(pivot, torch.linspace(-1, 1, E)).eval()


@pytest.fixture
def x():
    return drawn(7, D, seed=2)


def expected(x, pivot, bias, dtype):
    """The exact result and the bound of a low-rank pair [I; rest] rows, with one more rounding before the bias."""
    b_RE = torch.zeros(pivot.rank, pivot.out_features, dtype=torch.float64)
    b_RE[:, pivot.order] = torch.cat((torch.eye(pivot.rank), pivot.rest.double())).mT.double()
    exact, bound = bounds.linear(x, pivot.rows, b_RE, bias, dtype)
    before = exact if bias is None else exact - bias.double()
    return exact, bound + bounds.UNIT[dtype] * (before.abs() + bound)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("has_bias", [True, False])
def test_it_computes_the_weight_it_stands_for(dtype, has_bias):
    pivot, x = pivot_form(dtype), drawn(33, D, seed=2, dtype=dtype)
    bias = drawn(E, seed=4, dtype=dtype) if has_bias else None
    layer = PivotLinear.from_pivot(pivot, bias)
    y = layer(x)
    assert y.dtype == dtype
    assert bounds.worst(y, *expected(x, pivot, bias, dtype)) <= 1


def test_features_in_the_order_of_the_pivots_are_found_wrong(pivot, layer, x):
    layer.place = pivot.order
    assert not torch.equal(pivot.order.argsort(), pivot.order)
    assert bounds.worst(layer(x), *expected(x, pivot, layer.bias, torch.float32)) > 1


def test_pivot_features_are_those_of_the_dense_rows(pivot, x):
    y = PivotLinear.from_pivot(pivot)(x)
    assert torch.equal(y[:, pivot.order[:R]], x @ pivot.rows.t())


def test_the_children_are_linears_with_their_own_memory(layer, pivot):
    assert type(layer.down) is nn.Linear
    assert type(layer.up) is nn.Linear
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == {
        "down.weight": (R, D),
        "up.weight": (E - R, R),
        "bias": (E,),
        "place": (E,),
    }
    assert layer.place.dtype == torch.int64
    assert sum(p.numel() for p in (layer.down.weight, layer.up.weight)) == R * (D + E - R)
    assert layer.down.weight.data_ptr() != pivot.rows.data_ptr()
    assert "bias" not in PivotLinear(D, E, R, bias=False).state_dict()


def test_it_takes_the_leading_dimensions_of_nn_linear(layer):
    for lead in ((), (2, 3), (0,), (2, 0, 3)):
        assert layer(torch.randn(*lead, D)).shape == (*lead, E)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_with_as_many_pivots_as_rows_nothing_is_left_to_make(dtype):
    order = torch.tensor([2, 0, 1, 3])
    rows = drawn(4, D, dtype=dtype)
    layer = PivotLinear.from_pivot(PivotFactors(rows, drawn(0, 4, dtype=dtype), order))
    x = drawn(3, D, seed=2, dtype=dtype)
    assert torch.equal(layer(x)[:, order], nn.functional.linear(x, rows))
    assert torch.equal(layer.merge().weight[order], rows)
    assert PivotLinear(D, 4, 4)(torch.randn(3, D)).shape == (3, 4)


def test_gradients_reach_every_parameter_and_are_right():
    layer = PivotLinear.from_pivot(pivot_form(torch.float64), drawn(E, dtype=torch.float64)).train()
    x = drawn(3, D, dtype=torch.float64).requires_grad_()
    values = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *values))
    half = PivotLinear.from_pivot(pivot_form(torch.bfloat16))
    half(drawn(3, D, dtype=torch.bfloat16)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in half.parameters())


def test_merge_gives_the_dense_layer(layer, pivot, x):
    dense = layer.merge()
    assert type(dense) is nn.Linear
    assert not dense.training
    assert torch.equal(dense.bias, layer.bias)
    error = (dense.weight.double() - _double(pivot).dense()).abs()
    inner = torch.zeros(E, D, dtype=torch.float64)
    inner[pivot.order[R:]] = pivot.rest.abs().double() @ pivot.rows.abs().double()
    assert bool((error <= bounds.gamma(R, torch.float32) * inner + 2.0**-24 * _double(pivot).dense().abs()).all())
    assert layer.to(torch.bfloat16).merge().weight.dtype == torch.bfloat16


def _double(pivot):
    return PivotFactors(pivot.rows.double(), pivot.rest.double(), pivot.order)


def test_the_pivot_form_comes_back(layer, pivot):
    mine = layer.pivot
    assert torch.equal(mine.rows, pivot.rows)
    assert torch.equal(mine.rest, pivot.rest)
    assert torch.equal(mine.order, pivot.order)
    assert mine.rows.data_ptr() == layer.down.weight.data_ptr()


def test_a_state_dict_passes_through_safetensors_and_a_copy_is_the_same(layer, x):
    other = PivotLinear(D, E, R)
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(load(save(layer.state_dict())))
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_autocast_gives_its_dtype(layer, x):
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("name", ["down", "up"])
def test_a_replaced_child_is_called_and_cannot_be_merged(layer, x, name):
    before, child = layer(x), getattr(layer, name)
    changed = Doubled(child.in_features, child.out_features, bias=False)
    changed.weight = child.weight
    setattr(layer, name, changed)
    assert not torch.equal(layer(x), before)
    with pytest.raises(InputError, match=f"{name} is Doubled, not nn.Linear"):
        layer.merge()


def test_hooks_on_a_child_fire_and_called_children_give_the_same(layer, x):
    before, seen = layer(x), []
    layer.up.register_forward_hook(lambda *_: seen.append("up"))
    assert torch.equal(layer(x), before)
    assert seen == ["up"]
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_a_bias_that_a_child_was_given_is_added(layer, x):
    before = layer(x)
    layer.up.bias = nn.Parameter(torch.ones(E - R))
    assert torch.allclose((layer(x) - before)[:, layer.pivot.order[R:]], torch.ones(7, E - R), atol=1e-5)


def test_what_does_not_fit_is_refused(pivot):
    twice = PivotFactors(pivot.rows, pivot.rest, torch.zeros(E, dtype=torch.int64))
    cases = [
        (ShapeError, r"bias \(6,\) must be \(E,\) = \(9,\)", lambda: PivotLinear.from_pivot(pivot, torch.ones(6))),
        (InputError, r"order \(9,\) is not a permutation of 0\.\.8", lambda: PivotLinear.from_pivot(twice)),
        (RankError, r"rank=7 is outside 1\.\.6 = min\(D=6, E=9\)", lambda: PivotLinear(D, E, 7)),
        (RankError, r"rank=0 is outside 1\.\.6", lambda: PivotLinear(D, E, 0)),
        (ShapeError, "in_features=0", lambda: PivotLinear(0, E, 1)),
    ]
    for error, text, call in cases:
        with pytest.raises(error, match=text):
            call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_compiles_into_one_graph(dtype):
    torch._dynamo.reset()
    layer = PivotLinear.from_pivot(pivot_form(dtype), drawn(E, dtype=dtype)).eval()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for tokens in (2, 6):
        x = drawn(tokens, D, dtype=dtype)
        assert torch.equal(compiled(x), layer(x))
    torch._dynamo.reset()


def test_it_exports_with_any_number_of_tokens(layer, x):
    exported = torch.export.export(layer, (x,), dynamic_shapes={"x": {0: torch.export.Dim("tokens")}})
    assert torch.equal(exported.module()(x[:3]), layer(x[:3]))


def test_the_printed_form_shows_the_sizes(layer):
    assert layer.extra_repr() == "in_features=6, out_features=9, rank=4"
