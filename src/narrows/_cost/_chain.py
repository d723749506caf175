"""What one call of a chain must do: FLOPs (2 per multiply-add), bytes read and written, bytes held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows.errors import InputError

if TYPE_CHECKING:
    from narrows._values import Problem


@dataclass(frozen=True, slots=True)
class Cost:
    """Attributes:
    flops: multiply-adds times 2.
    bytes_read: each operand once (x once even where both sides use it).
    bytes_written: the result once; intermediates are not counted, a fused kernel keeps them.
    intermediate_bytes: what an unfused chain holds between its matmuls.
    """

    flops: int
    bytes_read: int
    bytes_written: int
    intermediate_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Operands, intermediates and result, held at once."""
        return self.bytes_read + self.bytes_written + self.intermediate_bytes


def _inputs(problem: Problem) -> int:
    """Elements of x, and of y where it is another tensor."""
    other = 0 if problem.kind == "linear" or problem.is_self else problem.columns * problem.out_features
    return problem.tokens * problem.in_features + other


def _result(problem: Problem) -> int:
    return problem.heads * problem.tokens * problem.columns


def dense_cost(problem: Problem, association: str) -> Cost:
    """Return the cost of the dense chain.

    Args:
        association: "linear" (x W^T); for bilinear "left" ((x W^T) y^T), "right" (x (y W)^T), or
            "given" (a product of inner size K: (x Wq^T)(y Wk^T)^T).
    """
    T, U, D, E, H = (problem.tokens, problem.columns, problem.in_features, problem.out_features, problem.heads)
    size = problem.itemsize
    if association == "given":
        return _given_cost(problem)
    middle = {"linear": 0, "left": T * E, "right": U * D}.get(association)
    if middle is None or (association == "linear") != (problem.kind == "linear"):
        raise InputError(f"association={association!r} does not belong to kind={problem.kind!r}.")
    first = {"linear": T * D * E, "left": T * D * E, "right": U * D * E}[association]
    second = {"linear": 0, "left": T * E * U, "right": T * D * U}[association]
    return Cost(
        flops=2 * H * (first + second),
        bytes_read=size * (_inputs(problem) + H * D * E),
        bytes_written=size * _result(problem),
        intermediate_bytes=size * H * middle,
    )


def _given_cost(problem: Problem) -> Cost:
    """Cost of (x Wq^T)(y Wk^T)^T with H query heads and G key heads of inner size K each."""
    if problem.given_rank is None:
        raise InputError("association='given' needs a weight that was given as a product (given_rank).")
    T, U, D, E, K = problem.tokens, problem.columns, problem.in_features, problem.out_features, problem.given_rank
    H, G = problem.heads, problem.kv_heads or problem.heads
    size = problem.itemsize
    return Cost(
        flops=2 * K * (H * T * D + G * U * E + H * T * U),
        bytes_read=size * (_inputs(problem) + K * (H * D + G * E)),
        bytes_written=size * _result(problem),
        intermediate_bytes=size * K * (H * T + G * U),
    )


def thin_cost(problem: Problem, rank: int) -> Cost:
    """Return the cost of the thin chain: (x a^T) b, or (x a^T)(y b^T)^T."""
    T, U, D, E, H = (problem.tokens, problem.columns, problem.in_features, problem.out_features, problem.heads)
    size = problem.itemsize
    if problem.kind == "linear":
        multiply_adds, middle = T * D * rank + T * rank * E, T * rank
    else:
        multiply_adds, middle = T * D * rank + U * E * rank + T * U * rank, (T + U) * rank
    return Cost(
        flops=2 * H * multiply_adds,
        bytes_read=size * (_inputs(problem) + H * rank * (D + E)),
        bytes_written=size * _result(problem),
        intermediate_bytes=size * H * middle,
    )
