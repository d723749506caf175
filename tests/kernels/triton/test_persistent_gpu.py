"""The persistent scores kernel on a GPU: right to the last row, nothing written outside, the same every time."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from narrows import Factors, bilinear
from narrows._oracle import bilinear_bound, exact_operands, poisoned, worst
from narrows.kernels._config import Config, Tiles
from narrows.kernels._epilogue import Epilogue
from narrows.kernels.triton._persistent import BilinearPersistent, PersistentConfig, launch_scores
from narrows.testing import check_kernel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.is_available() and torch.cuda.get_device_capability()[0] != 9, reason="not shown: no Hopper GPU"
    ),
]

GLUON = BilinearPersistent()
TILES = Tiles(128, 128, 64, warps=8, stages=4)
CONFIG = Config(TILES, TILES, projection="cublas")
PROJECTIONS = {
    "cublas": CONFIG,
    "own": replace(CONFIG, projection="own"),
    "own, split": replace(CONFIG, project=replace(TILES, stages=2, split=4), projection="own"),
}
BASE = PersistentConfig()
CONFIGS = {
    "sweep": BASE,
    "strided": replace(BASE, order="strided"),
    "plain stores": replace(BASE, staging=0),
    "plain stores, strided": replace(BASE, staging=0, order="strided"),
    "one of each": replace(BASE, stages=1, staging=1, p_buffers=1),
    "3 staging": replace(BASE, stages=3, staging=3),
    "4 warps": replace(BASE, warps=4),
    "64x256": replace(BASE, m=64, n=256, stages=2, warps=4),
    "64x128, 8 warps": replace(BASE, m=64, stages=2),
    "256x64": replace(BASE, m=256, n=64, stages=2),
    "two programs": replace(BASE, m=64, stages=2, warps=4, programs=2),
}
# One tile and less, ragged last tiles both ways, fewer tiles than programs, many rows of one tile, many columns.
SIZES = ((8, 8), (128, 128), (136, 72), (1000, 1048), (4104, 200), (200, 4104), (2048, 2304))
EPSILON = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def wrong(
    tokens: int,
    others: int,
    rank: int,
    config: PersistentConfig,
    *,
    dtype: torch.dtype = torch.bfloat16,
    across: bool = False,
    scale: float | None = None,
    causal: bool = False,
) -> str:
    """Return what is wrong with one launch, in the middle of NaN-filled memory; empty when nothing is."""
    p = torch.randn(tokens, rank, device="cuda").to(dtype)
    q = torch.randn(others, rank, device="cuda").to(dtype)
    around = torch.full((tokens + 16, others + 16), float("nan"), dtype=dtype, device="cuda")
    out = around[8 : 8 + tokens, 8 : 8 + others]
    given = [padded(t.t()).t() if across else padded(t) for t in (p, q)]
    launch_scores(*given, out, config=config, scale=scale, causal=causal)
    right = p.double() @ q.double().t() * (1 if scale is None else scale)
    # Products are exact in float32; R of them are added, scaled and rounded.
    magnitude = p.double().abs() @ q.double().abs().t() * (1 if scale is None else abs(scale))
    allowed = EPSILON[dtype] * right.abs() + (rank + 2) * 2.0**-23 * magnitude + 2.0**-25
    if causal:
        future = torch.ones_like(right, dtype=torch.bool).triu_(1)
        if not bool((out[future] == -torch.inf).all()):
            return "a score right of the diagonal is not -inf"
        out, right, allowed = (t.masked_fill(future, fill) for t, fill in ((out, 0), (right, 0), (allowed, 1)))
    share = float(((out.double() - right).abs() / allowed).max())
    around[8 : 8 + tokens, 8 : 8 + others] = float("nan")
    outside = int((~around.isnan()).sum())
    return "" if share <= 1 and not outside else f"{share:.3g} of what is allowed; {outside} written outside"


def padded(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same values with NaN between the rows."""
    rows, columns = tensor.shape
    wide = torch.full((rows, -(-columns // 8) * 8 + 8), float("nan"), dtype=tensor.dtype, device=tensor.device)
    wide[:, :columns] = tensor
    return wide[:, :columns]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("across", [False, True], ids=["by rows", "by columns"])
def test_every_form_is_right_at_every_size_and_writes_nothing_else(name, across):
    for tokens, others in SIZES:
        assert wrong(tokens, others, 64, CONFIGS[name], across=across) == "", (tokens, others)


@pytest.mark.parametrize("rank", [8, 16, 24, 32, 40, 48, 64, 72, 96, 128, 160, 192, 200, 256])
@pytest.mark.parametrize("across", [False, True], ids=["by rows", "by columns"])
def test_every_rank_is_right(rank, across):
    for staging in (1, 0):
        config = replace(BASE, n=64, stages=2, staging=staging, p_buffers=1)
        assert wrong(520, 712, rank, config, across=across) == ""


@pytest.mark.parametrize("dtype", list(EPSILON))
@pytest.mark.parametrize(("scale", "causal"), [(0.125, False), (None, True), (-3.0, True)])
def test_scale_and_causal_mask_are_right(dtype, scale, causal):
    for (tokens, others), staging in product(((1000, 1048), (1048, 1000), (4104, 200)), (0, 2)):
        config = replace(BASE, staging=staging)
        assert wrong(tokens, others, 64, config, dtype=dtype, scale=scale, causal=causal) == "", (tokens, others)


def test_the_check_sees_a_result_that_is_half_a_percent_off():
    def scaled(p, q, out, **_):
        out.copy_((p.float() @ q.float().t()) * 1.005)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "launch_scores", scaled)
        assert "of what is allowed" in wrong(128, 128, 64, BASE)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_thousand_repeats_give_the_same_bits(name):
    p, q = torch.randn(2, 2048, 64, device="cuda").bfloat16()
    first, again = torch.empty(2, 2048, 2048, device="cuda", dtype=torch.bfloat16)
    launch_scores(p, q, first, config=CONFIGS[name])
    same = torch.ones((), dtype=torch.bool, device="cuda")
    for _ in range(1000):
        again.fill_(float("nan"))
        launch_scores(p, q, again, config=CONFIGS[name])
        same &= (first == again).all()
    assert bool(same)


def test_the_chain_passes_the_conformance_check():
    check_kernel(GLUON, device="cuda")


@pytest.mark.parametrize("dtype", list(EPSILON))
@pytest.mark.parametrize("overlap", ["none", "last", "all", "early"])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_chain_is_bit_equal_on_exact_integers(dtype, overlap, projection):
    found = exact_operands(
        "bilinear", tokens=264, in_features=512, out_features=512, rank=64, dtype=dtype, other_tokens=264, is_self=True
    )
    factors = GLUON.pack(Factors(found.a.cuda(), found.b.cuda()))
    out = poisoned(found.expected.shape, dtype, "cuda")
    GLUON.run_with(replace(PROJECTIONS[projection], overlap=overlap), found.x.cuda(), factors, out=out)
    assert torch.equal(out.cpu(), found.expected)


@pytest.mark.parametrize("lead", [(), (3,), (2, 2)])
@pytest.mark.parametrize("others", [None, 520])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_chain_is_right_with_a_batch_a_y_of_its_own_and_any_factors(lead, others, projection):
    x = torch.randn(*lead, 264, 256, device="cuda").bfloat16()
    y = None if others is None else torch.randn(*lead, others, 256, device="cuda").bfloat16()
    factors = Factors(*(torch.randn(2, 64, 256, device="cuda").bfloat16() / 16))
    for packed in (factors, GLUON.pack(factors)):
        s = GLUON.run_with(PROJECTIONS[projection], x, packed, y)
        assert worst(s, bilinear_bound(x, factors.a, factors.b, x if y is None else y)) <= 1


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_captured_chain_replays_on_new_data_while_kernels_overlap(projection):
    factors = GLUON.pack(Factors(*(torch.randn(2, 64, 256, device="cuda").bfloat16() / 16)))
    x = torch.randn(1024, 256, device="cuda").bfloat16()
    alone = PROJECTIONS[projection]
    config = replace(alone, overlap="all")
    epilogue = Epilogue(scale=0.5)
    GLUON.run_with(config, x, factors, epilogue=epilogue)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = [GLUON.run_with(config, x, factors, epilogue=epilogue) for _ in range(4)]
    for _ in range(20):
        x.copy_(torch.randn_like(x))
        for s in results:
            s.fill_(float("nan"))
        graph.replay()
        expected = GLUON.run_with(alone, x, factors, epilogue=epilogue)
        assert all(torch.equal(s, expected) for s in results)


def test_the_named_implementation_runs_it_and_masks():
    factors = GLUON.pack(Factors(*(torch.randn(2, 64, 256, device="cuda").bfloat16() / 16)))
    x = torch.randn(1024, 256, device="cuda").bfloat16()
    plain, masked = (bilinear(x, factors, impl="gluon", causal=causal) for causal in (False, True))
    assert worst(plain, bilinear_bound(x, factors.a, factors.b, x)) <= 1
    future = torch.ones_like(plain, dtype=torch.bool).triu_(1)
    assert torch.equal(masked, plain.masked_fill(future, -torch.inf))
