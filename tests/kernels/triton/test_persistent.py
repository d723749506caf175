"""The persistent scores kernel's host side: sizes, refusals and the projection that it reads."""

from dataclasses import replace

import pytest
import torch

from kernels.counting import Calls
from narrows import Factors, Problem
from narrows.errors import ImplementationError
from narrows.kernels._config import Config, Tiles
from narrows.kernels._epilogue import Epilogue
from narrows.kernels.triton import _persistent
from narrows.kernels.triton._persistent import BilinearPersistent, persistent_config, project_across
from narrows.kernels.triton._persistent_scores import PersistentConfig, inner_block, launch_scores, refuses_scores

GLUON = BilinearPersistent()
TILES = Tiles(128, 128, 64, warps=8, stages=4)
BIG = PersistentConfig(m=256, n=256, stages=4)


def operands(tokens=64, others=64, rank=32, dtype=torch.bfloat16) -> list[torch.Tensor]:
    shapes = ((tokens, rank), (others, rank), (tokens, others))
    return [torch.zeros(shape, dtype=dtype) for shape in shapes]


def test_the_loads_of_a_rank_cover_it_with_less_than_one_load_to_spare():
    for rank in range(1, 300):
        inner, loads = inner_block(rank)
        assert inner * (loads - 1) < rank <= inner * loads
        assert inner in {16, 32, 64, 128, 256}


@pytest.mark.parametrize("rank", [16, 48, 64, 96, 128, 192, 256])
@pytest.mark.parametrize("tile", [(16, 32), (64, 64), (64, 128), (128, 128)])
def test_tiles_up_to_128_by_128_fit_a_multiprocessor_at_every_rank(tile, rank):
    config = persistent_config(Tiles(*tile, 64, warps=4, stages=4), rank)
    assert config.fits(rank)
    assert (config.m, config.n) == (max(tile[0], 64), max(tile[1], 64))


def test_a_larger_rank_takes_staging_and_stages_only_as_far_as_memory_goes():
    found = [persistent_config(TILES, rank) for rank in (64, 128, 256)]
    assert [(config.stages, config.staging, config.p_buffers) for config in found] == [(4, 2, 2), (4, 2, 1), (2, 1, 1)]


def test_two_programs_share_a_multiprocessor_s_memory():
    alone = PersistentConfig(stages=3)
    assert alone.fits(64)
    assert not replace(alone, programs=2).fits(64)
    assert replace(alone, stages=2, staging=1, programs=2).fits(64)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({0: torch.float32}, "p torch.float32, q torch.bfloat16 and out torch.bfloat16 must all be"),
        ({0: (64, 16)}, r"p \(64, 16\), q \(64, 32\) and out \(64, 64\) must be"),
        ({0: (0, 32)}, r"p \(0, 32\), q \(64, 32\) and out \(64, 64\) must be .*none of them empty"),
        ({2: (64, 72)}, r"p \(64, 32\), q \(64, 32\) and out \(64, 72\) must be"),
    ],
)
def test_operands_that_do_not_fit_together_are_refused_with_their_shapes(change, reason):
    tensors = operands()
    for index, to in change.items():
        tensors[index] = tensors[index].to(to) if isinstance(to, torch.dtype) else torch.zeros(to, dtype=torch.bfloat16)
    with pytest.raises(ImplementationError, match=f"the persistent scores kernel cannot run this: {reason}"):
        launch_scores(*tensors, config=PersistentConfig())


def test_rows_that_tma_cannot_step_over_are_refused_with_their_stride():
    p, q, _ = operands(others=63)
    out = torch.zeros(64, 63, dtype=torch.bfloat16)
    q = q[:63]
    assert "out: TMA needs rows 16 bytes apart or a multiple; their stride is 63" in refuses_scores(
        p, q, out, PersistentConfig()
    )
    assert refuses_scores(p, q, out, PersistentConfig(staging=0)) == ""


def test_an_address_that_tma_cannot_read_is_refused():
    p, q, out = operands()
    shifted = torch.zeros(64 * 32 + 1, dtype=torch.bfloat16)[1:].view(64, 32)
    assert "p: TMA needs an address that 16 divides" in refuses_scores(shifted, q, out, PersistentConfig())
    assert refuses_scores(p, q, out, PersistentConfig()) == ""


def test_one_operand_by_rows_and_one_by_columns_is_refused():
    p, _, out = operands()
    across = torch.zeros(32, 64, dtype=torch.bfloat16).t()
    assert "must both be contiguous in R, or both in T" in refuses_scores(p, across, out, PersistentConfig())
    assert refuses_scores(across, across, out, PersistentConfig()) == ""


def test_sizes_beyond_shared_memory_are_refused_with_the_bytes():
    assert "takes 1 x 459824 of 233472 bytes of shared memory at rank 64" in refuses_scores(*operands(rank=64), BIG)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Problem("linear", 64, 64, 64, dtype="bfloat16"), "gluon runs bilinear chains; this problem is linear"),
        (Problem("bilinear", 64, 64, 64, dtype="float32"), "gluon runs bfloat16 and float16; here dtype=float32"),
        (Problem("bilinear", 1001, 64, 64, dtype="float16"), "a multiple of 8 tokens; here T=1001"),
        (Problem("bilinear", 64, 64, 64, other_tokens=7, dtype="float16"), "a multiple of 8 tokens; here U=7"),
        (Problem("bilinear", 64, 64, 64, heads=3, dtype="float16"), "one matrix of scores; here there are H=3 heads"),
        (Problem("bilinear", 64, 64, 64, dtype="float16"), ""),
    ],
)
def test_a_problem_that_it_cannot_run_is_refused_with_its_figures(monkeypatch, problem, reason):
    monkeypatch.setattr(_persistent, "unsupported", lambda dtype, device: "")
    monkeypatch.setattr(_persistent, "refuses_device", lambda device: "")
    found = GLUON.refuses(problem)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.skipif(torch.cuda.is_available(), reason="without a CUDA device only")
def test_the_interpreter_is_refused_because_gluon_has_none():
    assert "gluon has no interpreter" in GLUON.refuses(Problem("bilinear", 64, 64, 64, dtype="float16"))


@pytest.mark.parametrize(
    ("epilogue", "rank", "tokens", "reason"),
    [
        (Epilogue(softcap=5.0), 4, 8, "gluon scales and masks causally only"),
        (Epilogue(mask=torch.ones(8, 8, dtype=torch.bool)), 4, 8, "gluon scales and masks causally only"),
        (Epilogue(scale=0.5, is_causal=True), 300, 8, "gluon runs ranks up to 256; here R=300"),
        (Epilogue(), 4, 12, "a multiple of 8 tokens; here T=12"),
    ],
)
def test_a_call_that_it_cannot_run_raises_the_reason(epilogue, rank, tokens, reason):
    factors = Factors(torch.zeros(rank, 320), torch.zeros(rank, 320))
    with pytest.raises(ImplementationError, match=f"impl='gluon' cannot run this: .*{reason}"):
        GLUON.run_with(Config(TILES, TILES), torch.zeros(2, tokens, 320), factors, epilogue=epilogue)


@pytest.mark.parametrize(("is_packed", "others", "matmuls"), [(True, None, 1), (False, None, 2), (False, 16, 2)])
def test_the_projection_gives_p_and_q_by_columns_with_as_few_matmuls_as_there_are_inputs(is_packed, others, matmuls):
    a, b = torch.randn(5, 24), torch.randn(5, 24)
    x = torch.randn(2, 8, 24)
    y = None if others is None else torch.randn(2, others, 24)
    factors = Factors(a, b).interleaved() if is_packed else Factors(a, b)
    with Calls() as calls:
        p, q = project_across(x, factors, y)
    assert (calls.matmuls, calls.copies) == (matmuls, 0)
    assert p.stride(0) == q.stride(0) == 1
    torch.testing.assert_close(p, x.reshape(16, 24) @ a.t())
    torch.testing.assert_close(q, (x if y is None else y).reshape(-1, 24) @ b.t())


@pytest.mark.parametrize(
    ("rank", "projection", "is_packed", "is_own"),
    [(16, "own", True, True), (16, "cublas", True, False), (16, "own", False, False), (12, "own", True, False)],
)
def test_own_kernels_project_where_tma_can_read_what_they_write(monkeypatch, rank, projection, is_packed, is_own):
    asked = []
    monkeypatch.setattr(
        type(GLUON.own), "project_with", lambda own, config, x, factors: asked.append(x.shape) or (x, x)
    )
    factors = Factors(torch.zeros(rank, 24), torch.zeros(rank, 24))
    config = Config(TILES, TILES, projection=projection)
    GLUON._project(config, torch.zeros(2, 8, 24), GLUON.pack(factors) if is_packed else factors, None)
    assert asked == ([(16, 24)] if is_own else [])
