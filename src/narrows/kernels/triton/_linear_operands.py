"""The operands of one linear call as they came, and as the kernels read them.

Letters: T tokens, D input, E output features, R rank.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from narrows.errors import ImplementationError
from narrows.kernels.triton._operands import rows_of

if TYPE_CHECKING:
    from torch import Tensor


class LinearOperands(NamedTuple):
    """Attributes:
    x: (..., T, D).
    a, b: (R, D) and (R, E) of every member; one pair of factors is one member.
    biases: (E,) or None of every member.
    middle_bias: (R,) or None; of one member only.
    residual: (..., T, E) or None; of one member only.
    """

    x: Tensor
    a: tuple[Tensor, ...]
    b: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    middle_bias: Tensor | None = None
    residual: Tensor | None = None

    def layouts(self) -> tuple[Any, ...]:
        """Return shapes and strides: what a plan depends on besides sizes and dtype."""
        x, a, b, biases, middle_bias, residual = self
        return (
            x.shape,
            x.stride(),
            *[(w.shape, w.stride()) for w in a],
            *[(w.shape, w.stride()) for w in b],
            *[None if bias is None else bias.stride() for bias in biases],
            None if middle_bias is None else middle_bias.stride(),
            None if residual is None else residual.stride(),
            *[_follows(before, after) for before, after in pairwise(a)],
        )

    def flat(self) -> LinearOperands:
        """Return x and residual as rows (T, D) and (T, E), members without a head, and unit inner strides."""
        return LinearOperands(
            _rows(self.x),
            tuple(_unit(_headless(w)) for w in self.a),
            tuple(_headless(w) for w in self.b),
            tuple(_dense(bias) for bias in self.biases),
            _dense(self.middle_bias),
            None if self.residual is None else _rows(self.residual),
        )

    def starts(self) -> tuple[int, ...]:
        """Return the members whose projection begins a matmul: those that do not follow another in memory."""
        if len(self.a) > 1 and any(_unit(w) is not w for w in self.a):
            return tuple(range(len(self.a)))  # copies lie anywhere
        return (0, *(i for i in range(1, len(self.a)) if not _follows(self.a[i - 1], self.a[i])))

    def shapes(self) -> list[tuple[int, ...]]:
        """Return every member's result's shape; a single head keeps its dimension, as in torch.matmul."""
        lead = (1,) if self.a[0].ndim == 3 and self.x.ndim == 2 else ()
        return [(*lead, *self.x.shape[:-1], b.shape[-1]) for b in self.b]


def is_same_memory(left: LinearOperands, right: LinearOperands) -> bool:
    """Return whether both hold the same addresses: nothing was copied from one to the other."""
    return all(
        (one is None and other is None)
        or (one is not None and other is not None and one.data_ptr() == other.data_ptr())
        for one, other in zip(_tensors(left), _tensors(right), strict=True)
    )


def _tensors(operands: LinearOperands) -> tuple[Tensor | None, ...]:
    return operands.x, *operands.a, *operands.b, *operands.biases, operands.middle_bias, operands.residual


def _follows(before: Tensor, after: Tensor) -> bool:
    """Return whether the rows of `after` begin where those of `before` end."""
    end = before.data_ptr() + before.shape[-2] * before.stride(-2) * before.element_size()
    return after.data_ptr() == end and after.stride() == before.stride()


def _headless(weight: Tensor) -> Tensor:
    if weight.ndim == 2:
        return weight
    if weight.shape[0] > 1:
        raise ImplementationError(
            f"impl='triton' cannot run this: triton runs linear chains without heads; here H={weight.shape[0]}."
        )
    return weight[0]


def _rows(tensor: Tensor) -> Tensor:
    """Return (..., T, D) as rows (T, D) with unit inner stride, copied only where it does not lie so."""
    rows, width = rows_of(tensor), tensor.shape[-1]
    if rows.is_copied:
        return tensor.reshape(-1, width).contiguous()
    if tensor.ndim == 2:
        return tensor
    return tensor.as_strided((prod(tensor.shape[:-1]), width), (rows.stride, 1))


def _unit(a_RD: Tensor) -> Tensor:
    return a_RD if a_RD.stride(-1) == 1 or a_RD.shape[-1] == 1 else a_RD.contiguous()


def _dense(bias: Tensor | None) -> Tensor | None:
    return bias if bias is None or bias.stride(0) == 1 or len(bias) == 1 else bias.contiguous()
