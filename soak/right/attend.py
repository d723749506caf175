"""narrows.attend: softmax(q k^T scale + mask) v with causality, masks and lengths.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from hypothesis import strategies as st
from typing_extensions import override

import narrows
from narrows._oracle._attention import attention_bound
from soak.right import draws
from soak.right.bounds import Chain, Known, exact
from soak.right.draws import Maker
from soak.right.softmax import Inputs, Softmax, gradients, softmax
from soak.right.trial import Trial, Undecided, is_shared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

Mask = tuple[str, bool, bool, bool, bool]  # kind, and whether it has B, H, T and U
MASKS = st.none() | st.tuples(st.sampled_from(("bool", "float")), *(st.booleans() for _ in range(4)))
HIDDEN = 0.25  # share of a float mask that is -inf


@dataclass(frozen=True)
class AttendCase:
    """One call; H = G times heads a group; `lengths`: whether there are some, with NaN beyond them."""

    dtype: str
    batch: int
    groups: int
    heads_a_group: int
    queries: int
    keys: int
    rank: int
    width: int
    spread: float
    q: str
    k: str
    v: str
    values: str
    mask: Mask | None
    is_causal: bool
    has_lengths: bool
    impl: str
    needs: int
    seed: int


CASES = st.builds(
    AttendCase,
    dtype=draws.dtypes(),
    batch=st.sampled_from((1, 0, 2, 3)),
    groups=st.integers(1, 3),
    heads_a_group=st.integers(1, 3),
    queries=draws.lengths(),
    keys=draws.lengths(),
    rank=draws.widths(),
    width=draws.widths(),
    spread=st.sampled_from((0.25, 1.0, 3.0, -1.0, 0.0)),
    q=draws.layouts(),
    k=draws.layouts(),
    v=draws.layouts(),
    values=st.sampled_from(("normal", "whole", "sparse")),
    mask=MASKS,
    is_causal=st.booleans(),
    has_lengths=st.booleans(),
    impl=st.sampled_from(("auto", "sdpa", "math")),
    needs=st.integers(0, 15),
    seed=draws.seeds(),
)


class AttendTrial(Trial):
    """A call of narrows.attend."""

    def __init__(self, case: AttendCase) -> None:
        self.case = case
        self.maker = maker = Maker(case.dtype, case.values, case.seed)
        self.needs = case.needs
        B, G, U, R, F = case.batch, case.groups, case.keys, case.rank, case.width
        H, T = G * case.heads_a_group, min(case.queries, case.keys) if case.is_causal else case.queries
        self.sizes = (B, H, T, U)
        self.tensors = {
            "q": maker.tensor(B, H, T, R, layout=case.q),
            "k": maker.tensor(B, G, U, R, layout=case.k),
            "v": maker.tensor(B, G, U, F, layout=case.v),
        }
        self.scale = case.spread * R**-0.5
        self.lengths = self._cut() if case.has_lengths else None
        self.bool_mask, mask = masks_of(maker, case.mask, self.sizes, case.seed)
        if mask is not None:
            self.tensors["mask"] = mask
        self.seen = self._seen()

    @override
    def run(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        mask = tensors.get("mask", self.bool_mask)
        options = {"scale": self.scale, "causal": self.case.is_causal, "lengths": self.lengths, "impl": self.case.impl}
        out = narrows.attend(tensors["q"], tensors["k"], tensors["v"], mask=mask, **options)
        assert out.is_contiguous(), "the result is not contiguous"
        return (out,)

    @override
    def results(self, chain: Chain) -> tuple[Known, ...]:
        _, forward = self._forward(chain)
        if not self.sizes[-1]:  # the oracle takes the largest of at least one key
            return (forward.out,)
        q, k, v = (self.tensors[name].nan_to_num() for name in ("q", "k", "v"))
        added = self._added().masked_fill(~self.seen, -math.inf)
        reference = attention_bound(q, k, v, scale=self.scale, mask=added)
        return (Known(reference.value, torch.minimum(reference.bound, forward.out.error)),)

    @override
    def gradients(self, chain: Chain, grads: Sequence[Known]) -> dict[str, Known]:
        given, forward = self._forward(chain)
        dq, dk, dv, ds = gradients(chain, given, forward, grads[0])
        found = {"q": dq, "k": self._by_group(chain, dk), "v": self._by_group(chain, dv)}
        if "mask" in self.tensors:
            found["mask"] = chain.total(ds, self.tensors["mask"].shape)
        return found

    @override
    def doubles(self) -> tuple[str, int]:
        return "v", 1

    @override
    def numb(self) -> Tensor:
        return ~self.seen.any(-1, keepdim=True)

    def _forward(self, chain: Chain) -> tuple[Inputs, Softmax]:
        q, k, v = (exact(self.tensors[name].nan_to_num()) for name in ("q", "k", "v"))
        k, v = (t.moved(lambda t: t.repeat_interleave(self.case.heads_a_group, dim=1)) for t in (k, v))
        given = Inputs(q, k, v, self.scale, self._added(), self.seen)
        forward = softmax(chain, given)
        if forward is None:
            raise Undecided
        return given, forward

    def _added(self) -> Tensor:
        added = torch.zeros(self.sizes, dtype=torch.float64)
        return added + finite(self.tensors["mask"]).double() if "mask" in self.tensors else added

    def _by_group(self, chain: Chain, known: Known) -> Known:
        """Return the sum over the heads that share a key head."""
        B, _, U, width = known.value.shape
        apart = known.moved(lambda t: t.view(B, self.case.groups, self.case.heads_a_group, U, width))
        return chain.total(apart, (B, self.case.groups, 1, U, width)).moved(lambda t: t.squeeze(2))

    def _cut(self) -> Tensor:
        """Return lengths, some of them 0 or too large, and put NaN behind them where the memory can be written."""
        B, *_, U = self.sizes
        lengths = self.maker.whole(-1, U + 3, B)
        for name in ("k", "v"):
            cache = self.tensors[name]
            cache = cache.contiguous() if is_shared(cache) else cache
            beyond = torch.arange(U) >= lengths[:, None]
            self.tensors[name] = cache.masked_fill_(beyond[:, None, :, None], math.nan)
        return lengths

    def _seen(self) -> Tensor:
        """Return which keys a query sees, said plainly."""
        B, H, T, U = self.sizes
        lengths = torch.full((B,), U) if self.lengths is None else self.lengths.clamp(0, U)
        last = lengths[:, None] - T + torch.arange(T) if self.case.is_causal else (lengths - 1)[:, None].expand(B, T)
        seen = (torch.arange(U) <= last[:, :, None])[:, None].expand(B, H, T, U)
        if self.bool_mask is not None:
            seen = seen & self.bool_mask
        return seen & (self.tensors["mask"] != -math.inf) if "mask" in self.tensors else seen


def masks_of(
    maker: Maker, mask: Mask | None, sizes: tuple[int, int, int, int], seed: int
) -> tuple[Tensor | None, Tensor | None]:
    """Return a bool mask and one that is added, of which at most one is there."""
    if mask is None:
        return None, None
    kind, *has = mask
    shape = tuple(size if one else 1 for size, one in zip(sizes, has, strict=True))
    if kind == "bool":
        return maker.keep(*shape), None
    hidden = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < HIDDEN
    return None, maker.tensor(*shape).masked_fill(hidden, -math.inf)


def finite(mask: Tensor) -> Tensor:
    """Return the mask with 0 for -inf."""
    return mask.masked_fill(mask == -math.inf, 0)
