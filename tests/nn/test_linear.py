"""LowRankLinear: children, fused path, plan, order, copies and files."""

import copy

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils import parametrizations

import narrows
from kernels import bounds
from kernels.counting import Calls
from narrows import Factors, LowRankLinear
from narrows._values import Certificate
from narrows.errors import InputError, RankError, ShapeError
from nn.plans import plan

RANKS = {(1, 4): 2, (5, 8): None, (9, 16): 3}


@pytest.fixture
def factors():
    generator = torch.Generator().manual_seed(0)
    certificate = Certificate("given", ((4.0, 3.0, 2.0, 1.0),), norm=5.5, residual=0.0)
    return Factors(torch.randn(4, 6, generator=generator), torch.randn(4, 8, generator=generator), certificate)


@pytest.fixture
def layer(factors):
    return LowRankLinear.from_factors(factors, torch.linspace(-1, 1, 8)).eval()


@pytest.fixture
def x():
    return torch.randn(7, 6, generator=torch.Generator().manual_seed(1))


def prefix(layer, x, rank):
    return narrows.linear(x, Factors(layer.down.weight[:rank], layer.up.weight[:, :rank].mT), layer.up.bias)


def within_bound(layer, x, y):
    reference = bounds.linear(x, layer.down.weight, layer.up.weight.mT, layer.up.bias, x.dtype)
    return bounds.worst(y, *reference) <= 1


def test_the_children_are_contiguous_linears_with_their_own_memory(layer, factors):
    assert type(layer.down) is nn.Linear
    assert type(layer.up) is nn.Linear
    assert {name: tuple(t.shape) for name, t in layer.state_dict().items()} == {
        "down.weight": (4, 6),
        "up.weight": (8, 4),
        "up.bias": (8,),
    }
    assert all(p.is_contiguous() and p.requires_grad for p in layer.parameters())
    assert layer.down.weight.data_ptr() != factors.a.data_ptr()
    assert (layer.down.out_features, layer.up.in_features) == (4, 4)


def test_forward_is_one_operation_and_the_children_give_the_same(layer, x):
    with Calls() as calls:
        y = layer(x)
    assert calls.names["linear"] == 1
    assert calls.matmuls == 0
    assert within_bound(layer, x, y)
    assert within_bound(layer, x, layer.up(layer.down(x)))


def test_it_takes_the_leading_dimensions_of_nn_linear(layer):
    for lead in ((), (2, 3), (0,), (2, 0, 3)):
        assert layer(torch.randn(*lead, 6)).shape == (*lead, 8)


class Adapter(nn.Module):
    """LoRA by hand: the base layer plus a thin update."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.update = nn.Linear(base.in_features, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.update(x)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def doubled(child):
    changed = Doubled(child.in_features, child.out_features, bias=False)
    changed.weight = child.weight
    return changed


@pytest.mark.parametrize("change", [Adapter, doubled], ids=["adapter", "subclass"])
def test_a_replaced_child_is_called_at_full_rank(layer, x, change):
    layer.plan = plan({(1, 16): 2})
    layer.down = change(layer.down)
    assert torch.equal(layer(x), layer.up(layer.down(x)))
    assert not within_bound(layer if change is doubled else _base(layer), x, layer(x))
    with pytest.raises(InputError, match="down is (Adapter|Doubled), not nn.Linear"):
        layer.merge()


def _base(layer):
    plain = LowRankLinear(6, 8, 4)
    plain.down, plain.up = layer.down.base, layer.up
    return plain


@pytest.mark.parametrize("name", ["down", "up"])
def test_hooks_on_a_child_fire(layer, x, name):
    seen = []
    handle = getattr(layer, name).register_forward_hook(lambda module, inputs, output: seen.append(name))
    layer(x)
    assert seen == [name]
    handle.remove()
    layer(x)
    assert seen == [name]


def test_global_hooks_a_pre_hook_and_a_replaced_forward_are_honoured(layer, x):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    layer(x)
    handle.remove()
    assert seen == [layer.down, layer.up, layer]
    handle = layer.down.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0,))
    assert torch.equal(layer(x), layer.up.bias.expand(7, 8))
    handle.remove()
    layer.up.forward = lambda h: h
    assert torch.equal(layer(x), layer.down(x))


def test_a_parametrization_and_a_bias_on_down_are_honoured(layer, x):
    biased = copy.deepcopy(layer)
    biased.down.bias = nn.Parameter(torch.ones(4))
    assert torch.equal(biased(x), biased.up(biased.down(x)))
    parametrizations.orthogonal(layer.down)
    assert torch.equal(layer(x), layer.up(layer.down(x)))


class Wrapped(torch.Tensor):
    """A tensor subclass, as quantizers and sharding make."""


def test_a_weight_of_a_subclass_is_not_read_by_the_fused_path(layer, x):
    layer.down.weight = nn.Parameter(layer.down.weight.detach().as_subclass(Wrapped))
    with Calls() as calls:
        layer(x)
    assert calls.names["linear"] == 0


@pytest.mark.parametrize(("tokens", "rank"), [(1, 2), (4, 2), (5, 4), (8, 4), (9, 3), (16, 3), (17, 4), (0, 4)])
def test_the_plan_chooses_the_rank_by_tokens(layer, tokens, rank):
    layer.plan = plan(RANKS)
    x = torch.randn(tokens, 6)
    assert torch.equal(layer(x), prefix(layer, x, rank))
    if tokens:
        assert not torch.equal(layer(x), prefix(layer, x, rank % 4 + 1))


def test_tokens_are_all_leading_dimensions(layer):
    layer.plan = plan(RANKS)
    x = torch.randn(3, 3, 6)
    assert torch.equal(layer(x), prefix(layer, x, 3))


def test_training_runs_at_full_rank_and_ends_the_order(layer, x):
    layer.plan = plan({(1, 16): 2})
    layer.train()
    assert torch.equal(layer(x), prefix(layer, x, 4))
    with torch.no_grad():
        assert torch.equal(layer(x), prefix(layer, x, 2))
    layer(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    layer.eval()
    assert not layer.is_ordered
    assert layer.factors.certificate is None
    assert torch.equal(layer(x), prefix(layer, x, 4))
    with pytest.raises(RankError, match="not ordered"):
        layer.truncate_(2)
    with pytest.raises(RankError, match="plan uses rank 2 of 4, but these weights are not ordered"):
        layer.plan = plan({(1, 16): 2})


def test_order_survives_moving_casting_and_copying_but_not_loading(layer):
    assert layer.is_ordered
    assert layer.to(torch.bfloat16).to(torch.float32).is_ordered
    assert copy.deepcopy(layer).is_ordered
    with torch.no_grad():
        layer.up.bias.mul_(2)
    assert layer.is_ordered
    layer.load_state_dict(layer.state_dict())
    assert not layer.is_ordered
    assert not copy.deepcopy(layer).is_ordered
    layer.is_ordered = True
    assert layer.is_ordered
    layer.down.weight = nn.Parameter(torch.randn(4, 6).add_(1))
    assert not layer.is_ordered


def test_a_fresh_module_is_not_ordered():
    assert not LowRankLinear(6, 8, 4).is_ordered


def test_factors_share_memory_and_keep_the_certificate(layer, factors):
    mine = layer.factors
    assert torch.equal(mine.a, factors.a)
    assert torch.equal(mine.b, factors.b)
    assert mine.a.data_ptr() == layer.down.weight.data_ptr()
    assert mine.error(2) == factors.error(2)


def test_truncate_keeps_the_prefix_in_place(layer, x):
    layer.plan = plan({(1, 16): 2})
    with torch.no_grad():
        expected = prefix(layer, x, 2)
    assert layer.truncate_(2) is layer
    assert (layer.rank, layer.down.out_features, layer.up.in_features) == (2, 2, 2)
    assert all(p.is_contiguous() and p.requires_grad for p in layer.parameters())
    assert torch.equal(layer(x), expected)
    assert layer.is_ordered
    with pytest.raises(RankError, match="rank=1: the plan uses rank 2"):
        layer.truncate_(1)
    with pytest.raises(RankError, match=r"rank=3 is outside 1\.\.2"):
        layer.truncate_(3)


def test_merge_gives_the_dense_layer(layer, x):
    dense = layer.merge()
    assert type(dense) is nn.Linear
    exact, bound = bounds.linear(x, layer.down.weight, layer.up.weight.mT, layer.up.bias, torch.float32)
    # (x a^T) b and x (b^T a)^T: the other order's bound on top, |x||a|^T|b| gamma_(D + R).
    other = bounds.gamma(12, torch.float32) * (x.abs() @ layer.down.weight.abs().mT @ layer.up.weight.abs().mT).double()
    assert bounds.worst(dense(x), exact, bound + other) <= 1
    assert not dense.training
    assert layer.to(torch.bfloat16).merge().weight.dtype == torch.bfloat16


def test_from_linear_takes_bias_dtype_and_mode(factors, x):
    dense = nn.Linear(6, 8, dtype=torch.bfloat16).eval()
    layer = LowRankLinear.from_linear(dense, factors)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(layer.up.bias, dense.bias)
    assert layer.up.bias.data_ptr() != dense.bias.data_ptr()
    assert not layer.training
    assert LowRankLinear.from_linear(nn.Linear(6, 8, bias=False), factors).up.bias is None


def test_what_does_not_fit_is_refused(factors):
    headed = Factors(factors.a.unsqueeze(0), factors.b.unsqueeze(0))
    cases = [
        (ShapeError, r"a \(1, 4, 6\) have heads", lambda: LowRankLinear.from_factors(headed)),
        (ShapeError, r"bias \(6,\) must be \(E,\)", lambda: LowRankLinear.from_factors(factors, torch.ones(6))),
        (ShapeError, "linear has D=8, E=6", lambda: LowRankLinear.from_linear(nn.Linear(8, 6), factors)),
        (RankError, r"rank=7 is outside 1\.\.6", lambda: LowRankLinear(6, 8, 7)),
        (InputError, "plan is for kind='bilinear'", lambda: with_plan(factors, kind="bilinear")),
        (ShapeError, "plan is for D=6, E=9, H=1; this module has D=6, E=8", lambda: with_plan(factors, out_features=9)),
        (ShapeError, "H=2", lambda: with_plan(factors, heads=2)),
        (RankError, "plan uses rank 5, this module holds rank 4", lambda: with_plan(factors, rank=5)),
    ]
    for error, text, call in cases:
        with pytest.raises(error, match=text):
            call()
    unordered = Factors(factors.a, factors.b, is_ordered=False)
    with pytest.raises(RankError, match="not ordered"):
        with_plan(unordered)
    assert with_plan(unordered, rank=4).plan is not None


def with_plan(factors, rank=2, **sizes):
    return LowRankLinear.from_factors(factors, plan=plan({(1, 16): rank}, **sizes))


def test_a_state_dict_passes_through_safetensors(layer, x):
    other = LowRankLinear(6, 8, 4)
    other.load_state_dict(load(save(layer.state_dict())))
    assert torch.equal(other(x), layer(x))


def test_the_printed_form_shows_sizes_order_and_ranks(layer):
    layer.plan = plan(RANKS)
    expected = "in_features=6, out_features=8, rank=4, is_ordered=True, plan_ranks=[2, 3]"
    assert layer.extra_repr() == expected


@pytest.fixture
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
def test_it_compiles_into_one_graph_with_its_plan(layer):
    layer.plan = plan(RANKS)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for tokens in (2, 6, 12, 20):
        x = torch.randn(tokens, 6)
        assert torch.equal(compiled(x), layer(x))


@pytest.mark.usefixtures("_fresh_compiler")
def test_compiled_code_sees_that_the_order_ended(layer, x):
    layer.plan = plan({(1, 16): 2})
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), prefix(layer, x, 2))
    with torch.no_grad():
        layer.down.weight.mul_(2)
    layer.train().eval()
    assert torch.equal(compiled(x), prefix(layer, x, 4))


@pytest.mark.parametrize("strict", [False, True])
def test_export_keeps_one_operation(layer, x, strict):
    tokens = {"x": {0: torch.export.Dim("tokens")}}
    exported = torch.export.export(layer, (x,), dynamic_shapes=tokens, strict=strict)
    targets = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert targets.count(torch.ops.narrows.linear.default) == 1
    assert all("linear" in str(t) or "mT" in str(t) for t in targets)
    assert torch.equal(exported.module()(torch.ones(3, 6)), layer(torch.ones(3, 6)))


def test_autocast_gives_its_dtype(layer, x):
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
