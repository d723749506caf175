"""Chains that torch's matmuls run, for calls that were made before: nothing is looked up, checked or wrapped.

Each function returns a callable that computes what the operation does, bit for bit, from operands whose types,
dtypes, devices, sizes and strides are those it was made for (`ops._ready`). It keeps none of them.

Letters: T tokens, D features, R rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch._C._dynamo import guards

from narrows._values import Factors
from narrows.kernels import BILINEAR_THREE, BILINEAR_TWO, LINEAR_TWO, Epilogue
from narrows.ops._library import AUTO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Run = Callable[..., Tensor | None]

# What the code that torch.compile generates makes views with: no dispatcher, and no check against the memory's end.
_view: Callable[..., Tensor] = guards._reinterpret_tensor  # type: ignore[attr-defined]  # noqa: SLF001
_mm, _addmm = torch.mm, torch.addmm


class _Pair(NamedTuple):
    """What a chain reads of `Factors`, without its checks."""

    a: Tensor
    b: Tensor


def direct_linear(x: Tensor, a: Tensor, names: Sequence[str], activation: str | None) -> Run:
    """Return the chain of two matmuls on (x, a, b) and what follows.

    Args:
        x, a: as in `narrows.linear`.
        names: of what follows, in order: "bias", "middle_bias", "residual".
        activation: as in `narrows.linear`.
    """
    if x.ndim == 2 and a.ndim == 2 and activation is None and list(names) in ([], ["bias"]):
        return _plain_linear(a, has_bias=bool(names))

    def run(x: Tensor, a: Tensor, b: Tensor, *given: Tensor) -> Tensor:
        parts = dict(zip(names, given, strict=True))
        return no_view(LINEAR_TWO.run(x, cast("Factors", _Pair(a, b)), activation=activation, **parts))

    return run


def _plain_linear(a: Tensor, *, has_bias: bool) -> Run:
    """Return the chain on (x, a, b), then the bias, for x (T, D) and a (R, D)."""
    transposed = _transposed(a)

    def run(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return _mm(_mm(x, _view(a, *transposed)), b)

    def biased(x: Tensor, a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
        return _addmm(bias, _mm(x, _view(a, *transposed)), b)

    return biased if has_bias else run


def direct_bilinear(x: Tensor, a: Tensor, b: Tensor, y: Tensor | None, *, epilogue: Epilogue, impl: str) -> Run | None:
    """Return the chain on (x, a, b), then y and the mask where they are given; None where it would copy the factors.

    Args:
        x, a, b, y: as in `narrows.bilinear`.
        epilogue: of the scores.
        impl: "auto" where torch's matmuls are chosen, "two" or "three". "auto" runs "two" where the rows of a and b
            alternate in memory. What it returns returns None where they do and did not, or the other way round.
    """
    pair = Factors(a, b).pair if y is None else None
    if pair is not None and impl != BILINEAR_THREE.name:
        return _finished(_two(x, a, pair), epilogue)
    if impl == BILINEAR_TWO.name:
        return None
    scores = _three(x, a, b, y)
    if impl == AUTO and y is None and a.shape == b.shape and a.stride() == b.stride():
        scores = _unless_adjacent(scores, a.shape[-1] * a.element_size())
    return _finished(scores, epilogue)


def _finished(scores: Run, epilogue: Epilogue) -> Run:
    """Return the chain with its epilogue; a mask is the last operand."""
    scale, softcap, causal = epilogue.scale, epilogue.softcap, epilogue.is_causal

    def masked(*operands: Tensor) -> Tensor | None:
        *others, mask = operands
        result = scores(*others)
        return None if result is None else Epilogue(scale, softcap, mask, causal).apply_(result)

    def plain(*operands: Tensor) -> Tensor | None:
        result = scores(*operands)
        return None if result is None else epilogue.apply_(result)

    if epilogue.mask is not None:
        return masked
    return scores if scale is None and softcap is None and not causal else plain


def _two(x: Tensor, a: Tensor, pair: Tensor) -> Run:
    """Return the chain of two matmuls on (x, a, b), whose rows alternate."""
    width = a.shape[-1]
    num_bytes = width * a.element_size()
    run = _one_by_one(x, a) if x.ndim == 2 and a.ndim == 2 else _batched(pair)

    def checked(x: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
        # Both: they are rows of one tensor, and none that holds both is made of two that only lie side by side.
        if b.data_ptr() - a.data_ptr() == num_bytes and b.storage_offset() - a.storage_offset() == width:
            return run(x, a)
        return None

    return checked


def _one_by_one(x: Tensor, a: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `BilinearTwo` on (x, a), for x (T, D) and a (R, D)."""
    (tokens, width), rank = x.shape, a.shape[0]
    rows = ((2 * rank, width), (width, 1))
    x_transposed = _transposed(x)
    p = ((tokens, rank), (1, 2 * tokens))
    q_transposed = ((rank, tokens), (2 * tokens, 1), tokens)

    def run(x: Tensor, a: Tensor) -> Tensor:
        both = _mm(_view(a, *rows), _view(x, *x_transposed))
        return _mm(_view(both, *p), _view(both, *q_transposed))

    return run


def _batched(pair: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `BilinearTwo` on (x, a), for x with leading dimensions or factors with heads."""
    shape, stride = tuple(pair.shape), pair.stride()
    return lambda x, a: no_view(BILINEAR_TWO.run_pair(x, a.as_strided(shape, stride)))


def _three(x: Tensor, a: Tensor, b: Tensor, y: Tensor | None) -> Run:
    """Return the chain of three matmuls on (x, a, b), then y where it is given."""
    if x.ndim == 2 and a.ndim == 2 and (y is None or y.ndim == 2):
        return _three_matrices(a, b, y)

    def run(x: Tensor, a: Tensor, b: Tensor, y: Tensor | None = None) -> Tensor:
        return no_view(BILINEAR_THREE.run(x, cast("Factors", _Pair(a, b)), y))

    return run


def _three_matrices(a: Tensor, b: Tensor, y: Tensor | None) -> Run:
    """Return `BilinearThree` on (x, a, b), then y where it is given, for matrices."""
    a_transposed, b_transposed = _transposed(a), _transposed(b)

    def run(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return _mm(_mm(x, _view(a, *a_transposed)), _mm(x, _view(b, *b_transposed)).t())

    def of_two(x: Tensor, a: Tensor, b: Tensor, y: Tensor) -> Tensor:
        return _mm(_mm(x, _view(a, *a_transposed)), _mm(y, _view(b, *b_transposed)).t())

    return run if y is None else of_two


def _unless_adjacent(scores: Run, num_bytes: int) -> Run:
    """Return the chain, but None in its place where b begins a row behind a: those may be the rows of one tensor."""

    def checked(x: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
        return None if b.data_ptr() - a.data_ptr() == num_bytes else scores(x, a, b)

    return checked


def no_view(result: Tensor) -> Tensor:
    """Return the same memory as a tensor of its own: autograd refuses to change some views in place."""
    return _view(result, tuple(result.shape), result.stride()) if result._is_view() else result  # noqa: SLF001


def _transposed(matrix: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return shape and strides of the transposed matrix."""
    return tuple(matrix.shape)[::-1], matrix.stride()[::-1]
