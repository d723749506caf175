"""LowRankBilinear: one interleaved parameter, plan, files and torch's machinery."""

import copy

import pytest
import torch
from safetensors.torch import load, save

import narrows
from kernels.counting import Calls
from narrows import Factors, LowRankBilinear
from narrows.errors import RankError, ShapeError
from narrows.ops import _bilinear_op
from nn.plans import plan


def make(*lead, out_features=6):
    generator = torch.Generator().manual_seed(0)
    draw = lambda width: torch.randn(*lead, 4, width, generator=generator)  # noqa: E731
    return Factors(draw(6), draw(out_features))


@pytest.fixture
def x():
    return torch.randn(7, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("lead", [(), (3,)])
def test_square_factors_are_one_interleaved_parameter(lead, x):
    factors = make(*lead)
    layer = LowRankBilinear.from_factors(factors, scale=0.5)
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {"pair": (*lead, 4, 2, 6)}
    assert torch.equal(layer(x), narrows.bilinear(x, factors.interleaved(), scale=0.5))
    mine = layer.factors
    assert torch.equal(mine.a, factors.a)
    assert torch.equal(mine.b, factors.b)
    assert mine.pair.data_ptr() == layer.pair.data_ptr()
    with Calls() as calls:
        _bilinear_op.run_bilinear(x, mine.a.detach(), mine.b.detach(), None, None, None, None, False, "auto")
    assert calls.matmuls == 2


def test_rectangular_factors_are_two_parameters_and_need_y(x):
    factors, y = make(out_features=5), torch.randn(3, 5)
    layer = LowRankBilinear.from_factors(factors)
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {"a": (4, 6), "b": (4, 5)}
    assert torch.equal(layer(x, y), narrows.bilinear(x, factors, y))
    with pytest.raises(ShapeError, match="Y = X needs D = E"):
        layer(x)


def test_mask_scale_and_y_are_passed_on(x):
    layer = LowRankBilinear.from_factors(make(), scale=2.0)
    y, mask = torch.randn(3, 6), torch.tensor([True, False, True])
    assert torch.equal(layer(x, y, mask=mask), narrows.bilinear(x, layer.factors, y, scale=2.0, mask=mask))
    assert layer(x, y, mask=mask)[:, 1].isneginf().all()


def test_it_owns_its_memory():
    factors = make().interleaved()
    assert LowRankBilinear.from_factors(factors).pair.data_ptr() != factors.a.data_ptr()


@pytest.mark.parametrize(("tokens", "rank"), [(4, 2), (5, 4), (9, 3), (17, 4)])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_the_plan_chooses_the_rank_by_rows_of_x(lead, tokens, rank):
    table = {(1, 4): 2, (5, 8): None, (9, 16): 3}
    square = plan(table, kind="bilinear", out_features=6, heads=lead[0] if lead else 1)
    layer = LowRankBilinear.from_factors(make(*lead), square).eval()
    x = torch.randn(2, *([1] if lead else []), tokens, 6)
    assert torch.equal(layer(x), narrows.bilinear(x, layer.factors.truncate(rank)))


def test_training_gives_gradients_at_full_rank_and_ends_the_order(x):
    layer = LowRankBilinear.from_factors(make(), plan({(1, 16): 2}, kind="bilinear", out_features=6))
    layer(x).square().sum().backward()
    assert layer.pair.grad.abs().amin(dim=(1, 2)).min() > 0
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    layer.eval()
    assert torch.equal(layer(x), narrows.bilinear(x, layer.factors))
    with pytest.raises(RankError, match="not ordered"):
        layer.factors.truncate(2)


def test_the_plan_must_be_for_these_heads():
    with pytest.raises(ShapeError, match="H=1; this module has D=6, E=6, H=3"):
        LowRankBilinear.from_factors(make(3), plan({(1, 4): 2}, kind="bilinear", out_features=6))


def test_a_state_dict_and_a_deep_copy_give_the_same_scores(x):
    layer = LowRankBilinear.from_factors(make(3), scale=0.5)
    other = LowRankBilinear(6, 6, 4, heads=3, scale=0.5)
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(load(save(layer.state_dict())))
    assert torch.equal(other(x), layer(x))
    copied = copy.deepcopy(layer)
    assert torch.equal(copied(x), layer(x))
    assert copied.is_ordered
    assert not other.is_ordered


@pytest.mark.parametrize("lead", [(), (3,)])
def test_it_compiles_exports_and_autocasts(lead, x):
    torch._dynamo.reset()
    layer = LowRankBilinear.from_factors(make(*lead), scale=0.5)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    exported = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("tokens")},))
    targets = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert targets.count(torch.ops.narrows.bilinear.default) == 1
    assert torch.equal(exported.module()(x[:5]), layer(x[:5]))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_the_printed_form_shows_heads_and_scale():
    text = repr(LowRankBilinear.from_factors(make(3), scale=0.5))
    assert text.endswith("in_features=6, out_features=6, rank=4, is_ordered=True, heads=3, scale=0.5)")
