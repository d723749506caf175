"""The public verbs: check, choose a method, decompose, cut to the limits, certify."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import torch

from narrows._machine import fitting
from narrows._values import Budget, Factors
from narrows.decompose._exact import exact
from narrows.decompose._limits import Limits, resolve_limits
from narrows.decompose._operands import Scaled, check_operand, check_product
from narrows.decompose._product import product, product_norm
from narrows.decompose._randomized import randomized
from narrows.errors import BudgetError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from narrows.decompose._spectrum import Spectrum

WeightMethod = Literal["auto", "exact", "randomized"]
# The full SVD of 8192 x 8192 in float64 is about 20 * 8192^3 = 1.1e13 FLOPs: minutes on a CPU.
LARGE = 8192
SMALL_SHARE = 8


@torch.no_grad()
def factorize(
    weight: torch.Tensor, *, rank: int | None = None, budget: Budget | None = None, method: WeightMethod = "auto"
) -> Factors:
    """Return ordered factors of a weight, weight ~ b^T a, with a certificate of every rank's error.

    The work is done in float64; the factors have the weight's dtype and device, and with D = E
    they are interleaved (`Factors.pair`). The weight is not changed, and no gradient flows
    through: differentiate with respect to the factors.

    Args:
        weight: (E, D) as nn.Linear keeps it, or (H, E, D), every head with the same rank; float16,
            bfloat16, float32 or float64.
        rank: ranks to keep, 1..min(D, E). Default: all.
        budget: instead of `rank`: `error` bounds the relative Frobenius error of the factors as
            they are returned (rounding included): the smallest rank that meets it is kept.
            `max_bytes` caps the bytes of the factors; alone, it keeps the largest rank that fits.
        method: "exact" (full SVD); "randomized" (needs `rank` or `budget.max_bytes`; its distance
            from the smallest possible error is bounded in the certificate); "auto" is
            "randomized" when min(D, E) > 8192 and at most an eighth of the ranks is asked for,
            "exact" otherwise.

    Raises:
        InputError: rank and budget together, min_speedup, an unknown method, or a weight that is
            not a plain dense floating tensor with finite values and sizes of at least 1 (see
            DtypeError, DeviceError, ShapeError, NonFiniteError).
        RankError: `rank` is not a whole number within 1..min(D, E).
        BudgetError: no rank meets the budget; names the nearest.
        ResourceError: the work takes more memory than is free.
    """
    started = time.perf_counter()
    check_operand("weight", weight)
    E, D = weight.shape[-2:]
    limits = resolve_limits(rank, budget, sizes={"D": D, "E": E}, bytes_per_rank=_bytes_per_rank(weight, D + E))
    is_exact = _resolve_method(method, min(D, E), limits) == "exact"
    with _fitting(weight, is_exact=is_exact):
        scaled = Scaled.of(weight)
        spectrum = exact(scaled) if is_exact else randomized(scaled, limits.largest)

        def residual(factors: Factors) -> float:
            difference = torch.baddbmm(_batch(scaled.tensor), _batch(factors.b.mT), _batch(factors.a), alpha=-1)
            return float(torch.linalg.vector_norm(difference))

        return _Finish(spectrum, limits, weight.dtype, residual, started).factors()


@torch.no_grad()
def factorize_product(
    left: torch.Tensor, right: torch.Tensor, *, rank: int | None = None, budget: Budget | None = None
) -> Factors:
    """Return ordered factors of right^T left, (E, D), which is never formed.

    For query and key weights: S = (x left^T)(y right^T)^T. A rank of K is exact.

    Args:
        left: (K, D) or (H, K, D).
        right: (K, E) or (H, K, E); or (G, K, E), where each of G key heads serves H / G
            neighbouring query heads.
        rank: ranks to keep, 1..min(K, D, E). Default: all.
        budget: as in `factorize`.

    Raises:
        As `factorize`; ShapeError, DtypeError or DeviceError also for two that do not fit.
    """
    started = time.perf_counter()
    check_product(left, right)
    K, D, E = left.shape[-2], left.shape[-1], right.shape[-1]
    sizes = {"K": K, "D": D, "E": E}
    limits = resolve_limits(rank, budget, sizes=sizes, bytes_per_rank=_bytes_per_rank(left, D + E))
    if right.ndim == 3:
        right = right.repeat_interleave(left.shape[0] // right.shape[0], dim=0)
    scaled_left, scaled_right = Scaled.of(left), Scaled.of(right)

    def residual(factors: Factors) -> float:
        both_left = torch.cat((scaled_left.tensor, -factors.a), dim=-2)
        both_right = torch.cat((scaled_right.tensor, factors.b), dim=-2)
        return product_norm(both_left, both_right)

    return _Finish(product(scaled_left, scaled_right), limits, left.dtype, residual, started).factors()


def _fitting(weight: torch.Tensor, *, is_exact: bool) -> AbstractContextManager[None]:
    """Return what raises ResourceError where the float64 work on a weight takes more than the free memory."""
    E, D = weight.shape[-2:]
    K = min(D, E)
    # Copies of the weight (scaled, LAPACK's own, residual), of U and V, and a workspace: 1.0 to 1.2 times the peaks
    # that were measured at 1536 x 1536, 512 x 3072, 3072 x 512 and 128 x 8192.
    each = 5 * E * D + (2 * K * (D + E) + K * K if is_exact else 0)
    return fitting(
        8 * each * (weight.shape[0] if weight.ndim == 3 else 1),
        str(weight.device),
        what=f"factorising a weight {tuple(weight.shape)} in float64",
        advice="Free some memory, or use method='randomized' with a rank." if is_exact else "Free some memory.",
    )


def _batch(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.ndim == 3 else tensor[None]


def _bytes_per_rank(weight: torch.Tensor, width: int) -> int:
    return (weight.shape[0] if weight.ndim == 3 else 1) * width * weight.element_size()


def _resolve_method(method: str, full: int, limits: Limits) -> str:
    if method not in get_args(WeightMethod):
        raise InputError(f"method={method!r} is not known. Use one of: {', '.join(get_args(WeightMethod))}.")
    if method == "randomized" and not limits.is_bounded:
        raise InputError(
            "method='randomized' must know how many ranks to look for: give rank= or budget.max_bytes, "
            "or use method='exact'."
        )
    if method == "auto":
        is_small = limits.is_bounded and limits.largest * SMALL_SHARE <= full
        return "randomized" if full > LARGE and is_small else "exact"
    return method


@dataclass(frozen=True)
class _Finish:
    """From a spectrum to certified factors within the limits.

    Attributes:
        residual: ||weight - b^T a|| of float64 factors, weight and product divided by 4**exponent.
    """

    spectrum: Spectrum
    limits: Limits
    dtype: torch.dtype
    residual: Callable[[Factors], float]
    started: float

    def factors(self) -> Factors:
        """Return the factors that the limits ask for."""
        if self.limits.error is None:
            return self._certified(self.limits.largest)
        return self._within(self.limits.error)

    def _certified(self, rank: int) -> Factors:
        """Return factors of one rank with what was measured of them as they are stored."""
        spectrum = self.spectrum
        certificate = spectrum.certificate()
        stored = spectrum.factors(rank, self.dtype)
        half = 2.0**-spectrum.exponent
        scaled = Factors(stored.a.to(torch.float64) * half, stored.b.to(torch.float64) * half)
        residual = self.residual(scaled) / (spectrum.norm or 1.0)
        seconds = time.perf_counter() - self.started
        return replace(stored, certificate=replace(certificate, residual=residual, seconds=seconds))

    def _within(self, error: float) -> Factors:
        """Return the smallest rank whose stored factors have at most this error.

        Truncation and rounding add in squares: where rounding takes the error over the limit,
        truncation must make room for it, at a larger rank.
        """
        certificate = self.spectrum.certificate()
        rounding, rank = 0.0, 0
        while True:
            truncation = math.sqrt(error**2 - rounding**2) if rounding < error else -1.0
            smallest = certificate.smallest_rank(error if rounding == 0 else truncation)
            rank = max(smallest or self.limits.largest + 1, rank + 1)
            if rank > self.limits.largest:
                raise self._infeasible(error, smallest)
            factors = self._certified(rank)
            measured = factors.certificate.residual if factors.certificate else math.nan
            if measured <= error + self._arithmetic_noise():
                return factors
            rounding = math.sqrt(max(measured**2 - certificate.error(rank) ** 2, 0.0))

    def _arithmetic_noise(self) -> float:
        """Return how far a float64 residual may lie from the spectrum's tail, relative to the norm."""
        E, D = self.spectrum.u.shape[-2], self.spectrum.vt.shape[-1]
        return 10 * max(E, D) * 2.0**-53

    def _infeasible(self, error: float, smallest: int | None) -> BudgetError:
        limits = self.limits
        nearest = self._certified(limits.largest)
        reached = nearest.certificate.residual if nearest.certificate else math.nan
        needs = "" if smallest is None else f" (it takes rank {smallest}, {smallest * limits.bytes_per_rank} bytes)"
        within = "" if limits.max_bytes is None else f" within max_bytes={limits.max_bytes}{needs}"
        dtype = str(self.dtype).removeprefix("torch.")
        return BudgetError(
            f"no rank meets error={error:g}{within}: the nearest is rank {limits.largest}, "
            f"whose {dtype} factors take {nearest.num_bytes} bytes and have an error of {reached:.3g}.",
            nearest={"rank": limits.largest, "bytes": nearest.num_bytes, "error": reached},
        )
