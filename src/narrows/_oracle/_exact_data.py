"""T3: integer operands on which every correct chain gives the same bits; and poisoned memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from narrows.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Every whole number up to this is exact in the dtype.
EXACT = {torch.float64: 2**53, torch.float32: 2**24, torch.float16: 2**11, torch.bfloat16: 2**8}
ATTEMPTS = 24


@dataclass(frozen=True, eq=False)
class Operands:
    """Operands of one thin chain.

    Attributes:
        x: (T, D). a: (R, D) or (H, R, D). b: (R, E) or (H, R, E).
        y: (U, E) for bilinear; None for linear.
        expected: the exact result where it is representable (T3); None for random data.
    """

    x: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    y: torch.Tensor | None
    expected: torch.Tensor | None = None


def poisoned(shape: Sequence[int], dtype: torch.dtype, device: str | torch.device = "cpu") -> torch.Tensor:
    """Return a tensor full of NaN: what a kernel forgets to write stays NaN."""
    return torch.full(tuple(shape), math.nan, dtype=dtype, device=device)


def normal_operands(
    kind: Literal["linear", "bilinear"],
    *,
    tokens: int,
    in_features: int,
    out_features: int,
    rank: int,
    dtype: torch.dtype,
    other_tokens: int | None = None,
    heads: int = 1,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Operands:
    """Return standard normal operands, rounded to `dtype` (T1 and T2). `other_tokens`: default T."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

    lead = (heads,) if heads > 1 else ()
    x, a, b = normal(tokens, in_features), normal(*lead, rank, in_features), normal(*lead, rank, out_features)
    others = tokens if other_tokens is None else other_tokens
    return Operands(x, a, b, normal(others, out_features) if kind == "bilinear" else None)


def exact_operands(
    kind: Literal["linear", "bilinear"],
    *,
    tokens: int,
    in_features: int,
    out_features: int,
    rank: int,
    dtype: torch.dtype,
    other_tokens: int | None = None,
    is_self: bool = False,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Operands:
    """Return operands in {-1, 0, 1} and the result that every correct chain gives bit for bit.

    Every row and every column of x, a, b and y holds a non-zero, so each index of every sum
    counts. Projections and result are whole numbers that `dtype` holds exactly, and no partial
    sum, in any order, leaves what float32 (float64 for float64) holds exactly.

    Args:
        other_tokens: U, default T.
        is_self: for bilinear with D = E: y is x.

    Raises:
        InputError: no such operands were found: the sizes are too large for `dtype`.
    """
    generator = torch.Generator().manual_seed(seed)
    others = tokens if other_tokens is None else other_tokens
    for attempt in range(ATTEMPTS):
        density = 0.75 * 0.75**attempt
        x = _ternary(tokens, in_features, density, generator)
        a = _ternary(rank, in_features, density, generator)
        b = _ternary(rank, out_features, density, generator)
        y = _ternary(others, out_features, density, generator) if kind == "bilinear" else None
        y = x if is_self else y
        expected = _exact_result(x, a, b, y, EXACT[dtype])
        if expected is not None:
            cast = [t if t is None else t.to(dtype).to(device) for t in (x, a, b, y, expected)]
            return Operands(*cast)  # type: ignore[arg-type]
    raise InputError(
        f"no exact operands found for T={tokens}, U={others}, D={in_features}, E={out_features}, R={rank} in {dtype}: "
        f"whole numbers are exact up to {EXACT[dtype]}. Choose smaller sizes or a wider dtype."
    )


def _ternary(rows: int, columns: int, density: float, generator: torch.Generator) -> torch.Tensor:
    """Return a {-1, 0, 1} matrix with a non-zero in every row and column."""
    values = torch.randint(0, 2, (rows, columns), generator=generator).double() * 2 - 1
    keep = torch.rand(rows, columns, generator=generator) < density
    if rows and columns:
        steps = torch.arange(max(rows, columns))
        keep[steps % rows, steps % columns] = True
    return values * keep


def _exact_result(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, y: torch.Tensor | None, limit: int
) -> torch.Tensor | None:
    """Return the result, or None where a value does not stay exact."""
    first = x @ a.mT
    second = b if y is None else (y @ b.mT).mT
    result = first @ second
    largest_value = max(float(t.abs().max()) if t.numel() else 0.0 for t in (first, second, result))
    sums = first.abs() @ second.abs()
    largest_sum = max(float(sums.max()) if sums.numel() else 0.0, float(x.shape[-1]))
    return result if largest_value <= limit and largest_sum <= EXACT[torch.float32] else None
