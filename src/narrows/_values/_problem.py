"""What is computed: y = x W^T (linear) or S = x W^T y^T (bilinear), as sizes only.

Letters: T tokens (rows of x), U tokens (rows of y), D input features, E output features,
H heads, G key/value heads. A leaf: imports only errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from narrows.errors import DtypeError, InputError, ShapeError

if TYPE_CHECKING:
    import torch

Kind = Literal["linear", "bilinear"]
KINDS: tuple[Kind, ...] = ("linear", "bilinear")
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
DTYPE_ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}


def dtype_name(dtype: object) -> str:
    """Return the plain name of a dtype: ``torch.bfloat16``, ``"bf16"`` -> ``"bfloat16"``.

    Raises:
        DtypeError: not one of float32, bfloat16, float16, float64 (or fp32, bf16, fp16, fp64).
    """
    name = str(dtype).removeprefix("torch.")
    name = DTYPE_ALIASES.get(name, name)
    if name not in DTYPE_BYTES:
        raise DtypeError(f"dtype={name} is not supported. Use one of: float32, bfloat16, float16, float64.")
    return name


@dataclass(frozen=True, slots=True)
class Problem:
    """One shape on one device. Lends everything that `_cost` and a kernel need to decide.

    Attributes:
        kind: "linear" (y_TE = x_TD W^T) or "bilinear" (s_TU = x W^T y^T).
        tokens: T, rows of x. Zero is valid.
        in_features: D.
        out_features: E (for bilinear, the features of y).
        other_tokens: U for bilinear with a y of its own; None means Y = X.
        heads: H, products that share x (leading dimension of the weight). 1: none.
        dtype: float32, bfloat16, float16 or float64.
        device: "cpu", "cuda" or "cuda:1".
        given_rank: the inner size K (a head) when the weight was given as a product of two
            (K, D) and (K, E) matrices; None for a weight that is one matrix.
        kv_heads: G heads of the right operand of such a product, shared by the H heads; 0: H.
    """

    kind: Kind
    tokens: int
    in_features: int
    out_features: int
    other_tokens: int | None = None
    heads: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    given_rank: int | None = None
    kv_heads: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind={self.kind!r} is not known. Use one of: {', '.join(KINDS)}.")
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        sizes = {"in_features": self.in_features, "out_features": self.out_features, "heads": self.heads}
        for name, size in {**sizes, "tokens": self.tokens}.items():
            if isinstance(size, (bool, float)):
                raise InputError(f"{name}={size!r} must be a whole number.")
        for name, size in sizes.items():
            if size < 1:
                raise ShapeError(f"{name}={size} must be at least 1.")
        if self.tokens < 0 or (self.other_tokens or 0) < 0:
            raise ShapeError(f"tokens={self.tokens}, other_tokens={self.other_tokens} must not be negative.")
        if self.is_self and self.kind == "bilinear" and self.in_features != self.out_features:
            raise ShapeError(
                f"Y = X needs a square weight, but it is ({self.out_features}, {self.in_features}). "
                "Give a y of its own (other_tokens) for a rectangular weight."
            )

    @classmethod
    def of(
        cls, x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor | None = None, *, kind: Kind | None = None
    ) -> Problem:
        """Return the problem that x (..., T, D) and weight (E, D) or (H, E, D) pose.

        Args:
            kind: default "linear"; "bilinear" when `y` is given.
        """
        if x.ndim < 1 or weight.ndim not in {2, 3}:
            raise ShapeError(
                f"x {tuple(x.shape)} needs at least 1 dimension, weight {tuple(weight.shape)} needs 2 or 3."
            )
        if x.shape[-1] != weight.shape[-1]:
            raise ShapeError(
                f"x {tuple(x.shape)} has D={x.shape[-1]}, but weight {tuple(weight.shape)} has D={weight.shape[-1]}."
            )
        features = max(x.shape[-1], 1)
        return cls(
            kind=kind or ("linear" if y is None else "bilinear"),
            tokens=x.numel() // features,
            in_features=weight.shape[-1],
            out_features=weight.shape[-2],
            other_tokens=None if y is None else y.numel() // max(y.shape[-1], 1),
            heads=weight.shape[0] if weight.ndim == 3 else 1,
            dtype=dtype_name(x.dtype),
            device=str(x.device),
        )

    @property
    def is_self(self) -> bool:
        """Y = X: both sides of a bilinear form are the same tensor."""
        return self.other_tokens is None

    @property
    def columns(self) -> int:
        """U for bilinear, E for linear: the columns of the result."""
        if self.kind == "linear":
            return self.out_features
        return self.tokens if self.other_tokens is None else self.other_tokens

    @property
    def max_rank(self) -> int:
        """min(D, E)."""
        return min(self.in_features, self.out_features)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]

    def at(self, tokens: int) -> Problem:
        """Return the same problem at another number of tokens."""
        return replace(self, tokens=tokens)

    def __str__(self) -> str:
        heads = f" x {self.heads} heads" if self.heads > 1 else ""
        return (
            f"{self.kind} T={self.tokens} D={self.in_features} E={self.out_features}{heads} "
            f"{self.dtype} on {self.device}"
        )
