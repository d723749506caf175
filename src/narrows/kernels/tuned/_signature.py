"""What a choice is looked up by."""

from __future__ import annotations

from typing import NamedTuple


class Signature(NamedTuple):
    """One call as a choice sees it: a plain tuple, so that looking it up is one hash.

    Attributes:
        kind: "linear" or "bilinear".
        tokens: T, rows of x, leading dimensions included.
        other_tokens: U, rows of a y of its own; 0: Y = X, and linear.
        in_features, out_features: D and E.
        rank: R.
        heads: H; 1: none.
        dtype: "bfloat16", "float16", "float32".
        mode: "graph" while a CUDA graph is captured, else "eager".
        device: index of the CUDA device.
    """

    kind: str
    tokens: int
    other_tokens: int
    in_features: int
    out_features: int
    rank: int
    heads: int
    dtype: str
    mode: str
    device: int

    @property
    def is_self(self) -> bool:
        """Y = X (or linear): x is the only input."""
        return self.other_tokens == 0

    @property
    def rows(self) -> int:
        """Rows of the projection's weight: R, or 2R where [a; b] is one matmul."""
        return 2 * self.rank if self.kind == "bilinear" and self.is_self else self.rank

    def __str__(self) -> str:
        other = f" U={self.other_tokens}" if self.other_tokens else ""
        heads = f" H={self.heads}" if self.heads > 1 else ""
        return (
            f"{self.kind} T={self.tokens}{other} D={self.in_features} E={self.out_features} R={self.rank}{heads} "
            f"{self.dtype} {self.mode}"
        )


def cublas(signature: Signature) -> str:
    """Return the implementation that leaves every matmul to cuBLAS: what own kernels must beat."""
    return "three" if signature.kind == "bilinear" and not signature.is_self else "two"
