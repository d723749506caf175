"""What was asked to be measured: weights, sizes, ranks, modes; everything but the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from narrows._values._machine import CACHES, MODES, Cache, Mode
from narrows._values._problem import KINDS, Kind, Problem, dtype_name
from narrows.errors import InputError, RankError

Source = Literal["gaussian", "power", "product", "file"]


@dataclass(frozen=True, slots=True)
class WeightSource:
    """Where a weight comes from: made from a seed, or read from a file.

    Attributes:
        name: how tables call it.
        source: "gaussian" (entries N(0, 1/D)); "power" (sigma_i = i^-exponent, random
            singular vectors); "product" (Wq^T Wk of inner size `inner`); "file".
        exponent: of "power".
        inner: inner size of "product" (its true rank).
        path, tensor: file and tensor name of "file"; of the left operand (query) when
            `right_path` is given.
        right_path, right_tensor: the right operand (key): the weight is right^T left,
            never formed unless the dense chain needs it.
        layout: "out-in" (nn.Linear's (E, D)) or "in-out" (GPT-2's Conv1D) for files.
    """

    name: str
    source: Source
    exponent: float = 0.7
    inner: int = 128
    path: str = ""
    tensor: str = ""
    right_path: str = ""
    right_tensor: str = ""
    layout: Literal["out-in", "in-out"] = "out-in"

    __pydantic_config__ = {"extra": "forbid"}

    @property
    def is_product(self) -> bool:
        """The weight is given as two operands."""
        return self.source == "product" or bool(self.right_path)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A sweep, complete: two equal experiments on one machine are the same measurement.

    Attributes:
        weights: the first one is timed; the others share its times (same shapes) and add
            their own errors.
        tokens, ranks: ascending, each value once.
        other_tokens: U when y is not x (bilinear); None: Y = X.
        kv_heads: G key/value heads that the H heads share (product weights); 0: none.
        input_path, input_tensor: real activations (N, D); empty: standard normal.
    """

    kind: Kind
    in_features: int
    out_features: int
    tokens: tuple[int, ...]
    ranks: tuple[int, ...]
    weights: tuple[WeightSource, ...]
    dtype: str = "float32"
    device: str = "cpu"
    modes: tuple[Mode, ...] = ("eager",)
    caches: tuple[Cache, ...] = ("hot",)
    heads: int = 1
    kv_heads: int = 0
    other_tokens: int | None = None
    input_path: str = ""
    input_tensor: str = ""
    seed: int = 0

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind={self.kind!r} is not known. Use one of: {', '.join(KINDS)}.")
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        if not self.tokens or min(self.tokens) < 1:
            raise InputError(f"tokens={list(self.tokens)} must name at least one length, each >= 1.")
        for name, words, known in (("modes", self.modes, MODES), ("caches", self.caches, CACHES)):
            if not words or any(word not in known for word in words):
                raise InputError(f"{name}={words!r} must name at least one of {', '.join(known)}, and nothing else.")
        if type(self.seed) is not int or not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed={self.seed!r} must be a whole number within 0..{(1 << 63) - 1}.")
        if not self.weights:
            raise InputError("weights=() must name at least one weight.")
        max_rank = min(self.in_features, self.out_features)
        for rank in self.ranks or (0,):
            if not 1 <= rank <= max_rank:
                raise RankError(
                    f"rank={rank} is outside 1..{max_rank} = min(D={self.in_features}, E={self.out_features})."
                )
        object.__setattr__(self, "tokens", tuple(sorted(set(self.tokens))))
        object.__setattr__(self, "ranks", tuple(sorted(set(self.ranks))))
        self.problem(self.tokens[0])  # the same checks of sizes

    def problem(self, tokens: int) -> Problem:
        """Return the problem at one length."""
        first = self.weights[0]
        return Problem(
            kind=self.kind,
            tokens=tokens,
            in_features=self.in_features,
            out_features=self.out_features,
            other_tokens=self.other_tokens,
            heads=self.heads,
            dtype=self.dtype,
            device=self.device,
            given_rank=first.inner if first.is_product else None,
            kv_heads=self.kv_heads,
        )
