"""W ~ B^T A: one ordered pair of factors that holds every smaller rank as a prefix.

Letters: D input features, E output features, R rank, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from narrows._values._problem import dtype_name
from narrows.errors import DeviceError, DtypeError, RankError, ShapeError

if TYPE_CHECKING:
    import torch

    from narrows._values._certificate import Certificate


@dataclass(frozen=True, eq=False)
class Factors:
    """weight_ED ~ b_RE.T @ a_RD, rank-major; with heads, a_HRD and b_HRE.

    Rows are ordered by singular value, so the first r rows are the best rank-r pair in the
    Frobenius norm (Eckart-Young) and `truncate(r)` is a view, not a copy.

    Attributes:
        a: (R, D) or (H, R, D).
        b: (R, E) or (H, R, E), same dtype and device as `a`.
        certificate: the error of every rank; None when nobody measured it.
        is_ordered: rows are in order of importance. Fine-tuning loses this.
    """

    a: torch.Tensor
    b: torch.Tensor
    certificate: Certificate | None = None
    is_ordered: bool = True

    def __post_init__(self) -> None:
        a, b = self.a, self.b
        if a.ndim not in {2, 3} or a.ndim != b.ndim or a.shape[:-1] != b.shape[:-1]:
            raise ShapeError(
                f"a {tuple(a.shape)} and b {tuple(b.shape)} must be (R, D) and (R, E), or (H, R, D) and (H, R, E)."
            )
        if a.shape[-2] < 1 or a.shape[-1] < 1 or b.shape[-1] < 1:
            raise ShapeError(f"a {tuple(a.shape)} and b {tuple(b.shape)} must have R, D and E of at least 1.")
        if a.dtype != b.dtype:
            raise DtypeError(f"a is {a.dtype} and b is {b.dtype}: give both the same dtype.")
        dtype_name(a.dtype)
        if a.device != b.device:
            raise DeviceError(f"a is on {a.device} and b is on {b.device}: move both to one device.")

    @property
    def rank(self) -> int:
        """R."""
        return int(self.a.shape[-2])

    @property
    def in_features(self) -> int:
        """D."""
        return int(self.a.shape[-1])

    @property
    def out_features(self) -> int:
        """E."""
        return int(self.b.shape[-1])

    @property
    def heads(self) -> int:
        """H; 1 when there is no leading dimension."""
        return int(self.a.shape[0]) if self.a.ndim == 3 else 1

    @property
    def num_bytes(self) -> int:
        """Bytes that both factors take."""
        return int((self.a.numel() + self.b.numel()) * self.a.element_size())

    def truncate(self, rank: int) -> Factors:
        """Return the best factors of a smaller rank as views of these (no copy).

        Args:
            rank: 1..R.

        Raises:
            RankError: `rank` is outside 1..R, or these factors are not ordered.
        """
        if isinstance(rank, (bool, float, str)):
            raise RankError(f"rank={rank!r} is a {type(rank).__name__}: give a whole number within 1..{self.rank}.")
        if not 1 <= rank <= self.rank:
            raise RankError(
                f"rank={rank} is outside 1..{self.rank} for factors a {tuple(self.a.shape)}, b {tuple(self.b.shape)}. "
                f"Factorise again with a larger rank, or choose rank <= {self.rank}."
            )
        if rank != self.rank and not self.is_ordered:
            raise RankError(
                f"rank={rank}: these factors (R={self.rank}) are not ordered, so a prefix is not the best "
                f"rank-{rank} pair. Factorise their product again first: factorize(factors.dense(), rank={rank})."
            )
        return Factors(self.a[..., :rank, :], self.b[..., :rank, :], self.certificate, self.is_ordered)

    def error(self, rank: int | None = None) -> float:
        """Return the weight's own relative Frobenius error at `rank` (default: R), from the certificate.

        Raises:
            RankError: there is no certificate, or it does not know this rank.
        """
        if self.certificate is None:
            raise RankError("these factors carry no certificate: make them with factorize() to know their error.")
        return self.certificate.error(self.rank if rank is None else rank)

    @cached_property
    def pair(self) -> torch.Tensor | None:
        """Return the (R, 2, D) or (H, R, 2, D) tensor whose rows alternate a and b; None if they do not.

        With D = E and this layout (see `interleaved`), every prefix of ranks is one contiguous
        block, so that both projections of the same x are one matmul that reads x once, at any
        rank and without a copy.
        """
        a, b = self.a, self.b
        width = self.in_features
        step = a.stride(-2)
        adjacent = (
            a.shape == b.shape
            and a.stride() == b.stride()
            and a.stride(-1) == 1
            and (step == 2 * width or self.rank == 1)
            and b.data_ptr() - a.data_ptr() == width * a.element_size()
            and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
        )
        if not adjacent:
            return None
        heads = a.stride()[:-2]
        return a.as_strided((*a.shape[:-1], 2, width), (*heads, 2 * width, width, 1))

    def interleaved(self) -> Factors:
        """Return the same factors laid out as `pair` (these, if they already are). Needs D = E."""
        if self.in_features != self.out_features:
            raise ShapeError(f"interleaved factors need D = E, but D={self.in_features}, E={self.out_features}.")
        if self.pair is not None:
            return self
        pair = self.a.new_empty((*self.a.shape[:-1], 2, self.in_features))
        pair[..., 0, :], pair[..., 1, :] = self.a, self.b
        return Factors(pair[..., 0, :], pair[..., 1, :], self.certificate, self.is_ordered)

    def dense(self) -> torch.Tensor:
        """Return b.T @ a, (E, D) or (H, E, D): the weight these factors stand for."""
        return self.b.mT @ self.a

    def to(self, *args: object, **kwargs: object) -> Factors:
        """Return these factors with both tensors moved or cast, as `torch.Tensor.to`."""
        a, b = self.a.to(*args, **kwargs), self.b.to(*args, **kwargs)  # type: ignore[call-overload]
        return Factors(a, b, self.certificate, self.is_ordered)

    def __repr__(self) -> str:
        error = "" if self.certificate is None else f", error={self.error():.3g}"
        return f"Factors(a={tuple(self.a.shape)}, b={tuple(self.b.shape)}, {self.a.dtype}{error})"
