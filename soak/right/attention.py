"""narrows.attention: the projections of x and y by factors with heads, then `attend`.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value, D, E features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from hypothesis import strategies as st
from typing_extensions import override

import narrows
from narrows import Factors
from soak.right import draws
from soak.right.attend import MASKS, Mask, finite, masks_of
from soak.right.bounds import Chain, Known, exact
from soak.right.draws import Maker
from soak.right.softmax import Inputs, Softmax, gradients, softmax
from soak.right.trial import Trial, Undecided

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


@dataclass(frozen=True)
class AttentionCase:
    """One call; batches: 0 for an operand without one; `is_pair`: factors as two tensors."""

    dtype: str
    x_batch: int | None
    y_batch: int | None
    v_batch: int | None
    groups: int
    heads_a_group: int
    queries: int
    keys: int
    in_features: int
    other_features: int
    rank: int
    width: int
    is_self: bool
    is_pair: bool
    spread: float
    x: str
    y: str
    a: str
    b: str
    v: str
    mask: Mask | None
    is_causal: bool
    impl: str
    needs: int
    seed: int


BATCHES = st.sampled_from((None, 1, 2))
# Fewer sizes than elsewhere: scores of 16-bit projections move by 2^-8 of |q||k|, and a bound must still say something.
SIZES = st.sampled_from((1, 2, 3, 5, 7, 8, 11, 13, 16, 17))
CASES = st.builds(
    AttentionCase,
    dtype=draws.dtypes(),
    x_batch=BATCHES,
    y_batch=BATCHES,
    v_batch=BATCHES,
    groups=st.integers(1, 3),
    heads_a_group=st.integers(1, 3),
    queries=draws.lengths(),
    keys=draws.lengths(),
    in_features=SIZES,
    other_features=SIZES,
    rank=SIZES,
    width=draws.widths(),
    is_self=st.booleans(),
    is_pair=st.booleans(),
    spread=st.sampled_from((0.25, 1.0, -0.5)),
    x=draws.layouts(),
    y=draws.layouts(),
    a=draws.layouts(),
    b=draws.layouts(),
    v=draws.layouts(),
    mask=MASKS,
    is_causal=st.booleans(),
    impl=st.sampled_from(("auto", "sdpa", "math")),
    needs=st.integers(0, 63),
    seed=draws.seeds(),
)


class AttentionTrial(Trial):
    """A call of narrows.attention."""

    def __init__(self, case: AttentionCase) -> None:
        self.case = case
        self.maker = maker = Maker(case.dtype, "normal", case.seed)
        self.needs = case.needs
        self.heads = case.groups * (case.heads_a_group if case.is_pair else 1)
        D, R = case.in_features, case.rank
        E = D if case.is_self else case.other_features
        U = case.queries if case.is_self else case.keys
        T = min(case.queries, U) if case.is_causal else case.queries
        batches = [case.x_batch, case.v_batch] + ([] if case.is_self else [case.y_batch])
        self.has_batch = any(size is not None for size in batches)
        self.sizes = (max(size or 1 for size in batches), self.heads, T, U)
        self.tensors = {"x": maker.tensor(*lead(case.x_batch), T, D, layout=case.x)}
        if not case.is_self:
            self.tensors["y"] = maker.tensor(*lead(case.y_batch), U, E, layout=case.y)
        self.tensors |= {
            "a": maker.tensor(self.heads, R, D, layout=case.a),
            "b": maker.tensor(case.groups, R, E, layout=case.b),
            "v": maker.tensor(*lead(case.v_batch), case.groups, U, case.width, layout=case.v),
        }
        self.scale = case.spread * R**-0.5 / (D * E) ** 0.5
        self.bool_mask, mask = masks_of(maker, case.mask, self.sizes, case.seed)
        if mask is not None:
            self.tensors["mask"] = mask
        self.seen = self._seen()

    @override
    def run(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        pair = tensors["a"], tensors["b"]
        factors = pair if self.case.is_pair else Factors(*pair)
        mask = tensors.get("mask", self.bool_mask)
        options = {"scale": self.scale, "causal": self.case.is_causal, "impl": self.case.impl}
        return (narrows.attention(tensors["x"], factors, tensors["v"], tensors.get("y"), mask=mask, **options),)

    @override
    def results(self, chain: Chain) -> tuple[Known, ...]:
        _, forward = self._forward(chain, self._known())
        return (forward.out if self.has_batch else forward.out.moved(lambda t: t[0]),)

    @override
    def gradients(self, chain: Chain, grads: Sequence[Known]) -> dict[str, Known]:
        known = self._known()
        given, forward = self._forward(chain, known)
        grad = grads[0] if self.has_batch else grads[0].moved(lambda t: t.unsqueeze(0))
        dq, dk, dv, ds = gradients(chain, given, forward, grad)
        x, other = known["x"], known.get("y", known["x"])
        dx, da = self._through_projection(chain, dq, x, known["a"])
        d_other, db = self._through_projection(chain, self._by_group(chain, dk), other, known["b"])
        found = {"a": da, "b": db, "v": chain.total(self._by_group(chain, dv), self.tensors["v"].shape)}
        found |= {"x": dx, "y": d_other} if "y" in known else {"x": chain.add(dx, d_other)}
        return found | ({"mask": chain.total(ds, self.tensors["mask"].shape)} if "mask" in known else {})

    @override
    def doubles(self) -> tuple[str, int]:
        return "v", 1

    @override
    def numb(self) -> Tensor:
        return ~self.seen.any(-1, keepdim=True) if self.has_batch else ~self.seen.any(-1, keepdim=True)[0]

    @override
    def touched(self, result: Tensor, row: int) -> Tensor | None:
        return None if self.case.is_self else super().touched(result, row)

    def _known(self) -> dict[str, Known]:
        known = {name: exact(tensor) for name, tensor in self.tensors.items()}
        if "mask" in known:
            known["mask"] = exact(finite(self.tensors["mask"]))
        return known

    def _forward(self, chain: Chain, known: dict[str, Known]) -> tuple[Inputs, Softmax]:
        B = self.sizes[0]
        q = self._heads(chain, known["x"], known["a"])
        k = self._heads(chain, known.get("y", known["x"]), known["b"])
        each = self.heads // self.case.groups
        k, v = (t.moved(lambda t: t.repeat_interleave(each, dim=-3)) for t in (k, known["v"]))
        q, k, v = (t.moved(lambda t: t.expand(B, *t.shape[-3:])) for t in (q, k, v))
        added = torch.zeros(self.sizes, dtype=torch.float64)
        added = added + known["mask"].value if "mask" in known else added
        given = Inputs(q, k, v, self.scale, added, self.seen)
        forward = softmax(chain, given)
        if forward is None:
            raise Undecided
        return given, forward

    def _heads(self, chain: Chain, x: Known, weight: Known) -> Known:
        """Return x w^T of every head, (..., H, T, R)."""
        return chain.product(x.moved(lambda t: t.unsqueeze(-3)), weight.transposed)

    def _through_projection(self, chain: Chain, grad: Known, x: Known, weight: Known) -> tuple[Known, Known]:
        """Return the gradients of x and the weight, by one matmul over the rows of all heads each."""
        (*before, T, _), (H, R, D) = x.value.shape, weight.value.shape
        grad = chain.total(grad, (*before, H, T, R) if before else (1, H, T, R))
        rows = grad.moved(lambda t: t.transpose(-3, -2).reshape(*before, T, H * R))
        flat = rows.moved(lambda t: t.reshape(-1, H * R))
        dx = chain.product(rows, weight.moved(lambda t: t.reshape(H * R, D)))
        dw = chain.product(flat.transposed, x.moved(lambda t: t.reshape(-1, D)))
        return dx, dw.moved(lambda t: t.view(H, R, D))

    def _by_group(self, chain: Chain, known: Known) -> Known:
        """Return the sum over the heads that share a key head."""
        B, H, U, width = known.value.shape
        G = self.case.groups
        apart = known.moved(lambda t: t.reshape(B, G, H // G, U, width))
        return chain.total(apart, (B, G, 1, U, width)).moved(lambda t: t.squeeze(2))

    def _seen(self) -> Tensor:
        B, H, T, U = self.sizes
        seen = torch.ones(B, H, T, U, dtype=torch.bool)
        seen = seen.tril(U - T) if self.case.is_causal else seen
        if self.bool_mask is not None:
            seen = seen & self.bool_mask
        return seen & (self.tensors["mask"] != -torch.inf) if "mask" in self.tensors else seen


def lead(batch: int | None) -> tuple[int, ...]:
    """Return the leading dimensions of an operand with this batch; None: it has none."""
    return () if batch is None else (batch,)
