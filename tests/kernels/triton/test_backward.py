"""Both gradients of scores in one pass over dS, interpreted where there is no GPU."""

from __future__ import annotations

import pytest
import torch

from kernels.triton.scores import UNIT, make
from narrows._oracle import gamma
from narrows.errors import ImplementationError
from narrows.kernels import score_gradients
from narrows.kernels._config import Tiles
from narrows.kernels.triton._backward import default_tiles

# The interpreter's loops of a length known at run time only: numpy 2.3 warns (2.4 raises).
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")
TILES = {"whole": Tiles(32, 16, 32), "split": Tiles(16, 16, 16, split=3), "default": None}


def within(result, left, right):
    """Pass a matmul whose float32 sums were rounded once."""
    exact = left.double() @ right.double()
    most = gamma(left.shape[-1], 2.0**-23) * (left.double().abs() @ right.double().abs())
    assert ((result.double() - exact).abs() <= most + UNIT[result.dtype] * (exact.abs() + most) + 2.0**-25).all()


def test_the_bound_catches_a_dropped_row_and_a_stale_element():
    grad, q = make(9, 11), make(11, 4)
    within(grad @ q, grad, q)
    with pytest.raises(AssertionError):
        within(grad[:, :-1] @ q[:-1], grad, q)
    stale = grad @ q
    stale[0, 0] = 7
    with pytest.raises(AssertionError):
        within(stale, grad, q)


@pytest.mark.parametrize("tiles", TILES.values(), ids=TILES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("sizes", [(33, 47, 5), (1, 1, 1), (64, 16, 33), (7, 100, 16)])
def test_both_gradients_are_those_of_two_matmuls(sizes, dtype, tiles):
    T, U, R = sizes
    grad, p, q = make(T, U, dtype=dtype), make(T, R, dtype=dtype), make(U, R, dtype=dtype, seed=1)
    dp, dq = score_gradients(grad, p, q, tiles=tiles)
    within(dp, grad, q)
    within(dq, grad.mT, p)


@pytest.mark.parametrize("tiles", TILES.values(), ids=TILES)
def test_leading_dimensions_broadcast_to_those_of_the_scores(tiles):
    grad, p, q = make(2, 3, 9, 11), make(2, 1, 9, 4), make(3, 11, 4)
    dp, dq = score_gradients(grad, p, q, tiles=tiles)
    assert (dp.shape, dq.shape) == ((2, 3, 9, 4), (2, 3, 11, 4))
    within(dp, grad, q)
    within(dq, grad.mT, p)


@pytest.mark.parametrize(
    "arrange",
    [lambda t: t.mT.contiguous().mT, lambda t: torch.nn.functional.pad(t, (1, 2), value=torch.nan)[..., 1:-2],
     lambda t: t[:1].expand(9, 11)],
    ids=["transposed", "a window", "expanded"],
)  # fmt: skip
def test_a_gradient_of_any_strides_is_read_right(arrange):
    grad, p, q = arrange(make(9, 11)), make(9, 4), make(11, 4)
    for got, expected in zip(score_gradients(grad, p, q), score_gradients(grad.clone(), p, q), strict=True):
        assert torch.equal(got, expected)


def test_small_integers_give_the_exact_gradients():
    grad, p, q = (make(*size).round().half() for size in ((31, 37), (31, 6), (37, 6)))
    dp, dq = score_gradients(grad, p, q, tiles=TILES["split"])
    assert torch.equal(dp, (grad.double() @ q.double()).half())
    assert torch.equal(dq, (grad.mT.double() @ p.double()).half())


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0)])
def test_no_rows_or_columns_give_zeros(sizes):
    dp, dq = score_gradients(make(*sizes), make(sizes[0], 3), make(sizes[1], 3))
    assert (dp.shape, dq.shape) == ((sizes[0], 3), (sizes[1], 3))
    assert not dp.any()
    assert not dq.any()


def test_what_cannot_run_says_what_to_do_instead():
    with pytest.raises(ImplementationError, match=r"dtype=float64\. Use grad @ q and grad\.mT @ p\."):
        score_gradients(*(make(3, 3).double() for _ in range(3)))


def test_few_blocks_are_split_and_many_are_not():
    assert default_tiles(512, 512, 64, 1, torch.bfloat16).split == 2
    assert default_tiles(4096, 4096, 64, 1, torch.bfloat16).split == 1
    assert default_tiles(16, 16, 16, 1, torch.float32).split == 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", [(1, 63, 16), (63, 1000, 64), (1009, 1009, 33), (2048, 512, 256), (4096, 4096, 64)])
def test_on_a_gpu_both_gradients_are_those_of_two_matmuls(sizes, dtype):
    test_both_gradients_are_those_of_two_matmuls(sizes, dtype, None)


@pytest.mark.gpu
def test_on_a_gpu_every_repeat_has_the_same_bits():
    grad, p, q = (make(*size, dtype=torch.bfloat16) for size in ((1000, 1009), (1000, 64), (1009, 64)))
    first = score_gradients(grad, p, q)
    for _ in range(1000):
        assert all(torch.equal(a, b) for a, b in zip(first, score_gradients(grad, p, q), strict=True))
