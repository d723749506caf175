"""A model with plans compiles into two graphs for all lengths: one for the first, one for the others."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from narrows import Factors, LowRankBilinear, LowRankLinear
from nn.plans import plan

RANKS = {(1, 4): 2, (5, 8): None, (9, 16): 3, (17, 32): 1}
LENGTHS = (3, 6, 12, 20, 40, 7)  # every row of the plan, and beyond it
D = 8


def factors(seed):
    generator = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(4, D, generator=generator), torch.randn(4, D, generator=generator))


class Model(nn.Module):
    """Layers of the same shape, and scores at the end."""

    def __init__(self, layers, table=RANKS):
        super().__init__()
        ranks = plan(table, in_features=D)
        self.layers = nn.ModuleList(LowRankLinear.from_factors(factors(i), torch.ones(D), ranks) for i in range(layers))
        scores = plan(table, kind="bilinear", in_features=D, out_features=D)
        self.scores = LowRankBilinear.from_factors(factors(9), scores)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.scores(x)


@pytest.fixture
def counter():
    torch._dynamo.reset()
    yield CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()


@pytest.mark.parametrize("layers", [2, 4])
def test_all_lengths_take_two_graphs(counter, layers):
    model = Model(layers).eval()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.no_grad():
        for tokens in LENGTHS:
            x = torch.randn(tokens, D)
            assert torch.equal(compiled(x), model(x))
    assert counter.frame_count <= 2


def test_the_plan_is_followed_inside_the_graph():
    model, full = Model(2).eval(), Model(2, {(1, 64): None}).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for tokens, is_full in ((3, False), (6, True), (12, False), (40, True)):
            x = torch.randn(tokens, D)
            assert torch.equal(compiled(x), full(x)) == is_full


def test_gradients_flow_through_both_graphs(counter):
    model = Model(2).eval()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    parameters = list(model.parameters())
    for tokens in LENGTHS:
        x = torch.randn(tokens, D)
        mine = torch.autograd.grad(compiled(x).tanh().sum(), parameters)
        wanted = torch.autograd.grad(model(x).tanh().sum(), parameters)
        for got, expected in zip(mine, wanted, strict=True):
            # Chains of at most 40 * 8 terms in float32, in another order where ranks are masked and not cut.
            assert (got - expected).abs().max() <= 320 * 2**-23 * expected.abs().max() + 1e-6
    assert counter.frame_count <= 2


def test_training_takes_the_full_rank_in_the_same_graphs(counter):
    model = Model(2).train()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for tokens in LENGTHS:
        x = torch.randn(tokens, D)
        assert torch.equal(compiled(x), model(x))
    assert counter.frame_count <= 2


def test_a_lookup_in_python_would_take_a_graph_for_every_row(counter):
    """The count sees what it must: a branch on the length is a guard."""

    def branching(x):
        for (first, last), rank in RANKS.items():
            if first <= x.shape[0] <= last:
                return x[:, :rank].sum()
        return x.sum()

    compiled = torch.compile(branching, fullgraph=True, backend=counter)
    for tokens in LENGTHS:
        compiled(torch.randn(tokens, D))
    assert counter.frame_count > 2
