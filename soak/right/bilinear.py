"""narrows.bilinear: scale (x a^T)(y b^T)^T, capped and masked, with and without heads, y or x itself.

Letters: T tokens, U other tokens, D, E features, R rank, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import strategies as st
from typing_extensions import override

import narrows
from narrows import Factors
from soak.right import draws
from soak.right.bounds import Chain, Known, exact
from soak.right.draws import Maker
from soak.right.linear import LEADS, token_sum, with_rows
from soak.right.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

HIDDEN = 0.25  # share of a float mask that is -inf


@dataclass(frozen=True)
class BilinearCase:
    """One call; `mask` is (kind, has T rows, has U columns, has all leading dimensions)."""

    dtype: str
    tokens: int
    other_tokens: int
    in_features: int
    out_features: int
    rank: int
    spare: int
    heads: int
    lead: str
    is_self: bool
    is_own_x: bool
    is_y_shared: bool
    is_interleaved: bool
    x: str
    y: str
    a: str
    b: str
    exponent: int
    values: str
    scale: float | None
    softcap: float | None
    mask: tuple[str, bool, bool, bool] | None
    is_causal: bool
    impl: str
    needs: int
    seed: int


CASES = st.builds(
    BilinearCase,
    dtype=draws.dtypes(),
    tokens=draws.lengths(),
    other_tokens=draws.lengths(),
    in_features=draws.widths(),
    out_features=draws.widths(),
    rank=draws.ranks(),
    spare=st.sampled_from((0, 1, 3)),
    heads=st.integers(0, 3),
    lead=st.sampled_from(list(LEADS)),
    is_self=st.booleans(),
    is_own_x=st.booleans(),
    is_y_shared=st.booleans(),
    is_interleaved=st.booleans(),
    x=draws.layouts(),
    y=draws.layouts(),
    a=draws.layouts(),
    b=draws.layouts(),
    exponent=draws.exponents(),
    values=draws.values(),
    scale=st.sampled_from((None, 1.0, 0.3, -2.5, 0.0, 2.0**-7)),
    softcap=st.sampled_from((None, 1.5, 50.0)),
    mask=st.none() | st.tuples(st.sampled_from(("bool", "float")), st.booleans(), st.booleans(), st.booleans()),
    is_causal=st.booleans(),
    impl=st.sampled_from(("auto", "three", "two")),
    needs=st.integers(0, 31),
    seed=draws.seeds(),
)


class BilinearTrial(Trial):
    """A call of narrows.bilinear."""

    def __init__(self, case: BilinearCase) -> None:
        self.case = case
        self.maker = maker = Maker(case.dtype, case.values, case.seed)
        self.needs = case.needs
        heads = (case.heads,) if case.heads else ()
        full, D = case.rank + case.spare, case.in_features
        E = D if case.is_self else case.out_features
        lead = self._lead()
        self.tensors = {
            "x": maker.tensor(*lead, case.tokens, D, layout=case.x, exponent=case.exponent),
            "a": maker.tensor(*heads, full, D, layout=case.a, exponent=-case.exponent),
            "b": maker.tensor(*heads, full, E, layout=case.b, exponent=-case.exponent),
        }
        if not case.is_self:
            y_lead = () if case.is_y_shared else lead
            self.tensors["y"] = maker.tensor(*y_lead, case.other_tokens, E, layout=case.y, exponent=case.exponent)
        self.bool_mask: Tensor | None = None
        if case.mask is not None:
            self._make_mask(case.mask)

    @override
    def run(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        case = self.case
        factors = Factors(tensors["a"], tensors["b"])
        if case.is_interleaved and factors.in_features == factors.out_features:
            factors = factors.interleaved()
        mask = tensors.get("mask", self.bool_mask)
        impl = "auto" if case.impl == "two" and not case.is_self else case.impl
        options: dict[str, Any] = {"scale": case.scale, "softcap": case.softcap, "causal": case.is_causal, "impl": impl}
        return (narrows.bilinear(tensors["x"], factors.truncate(case.rank), tensors.get("y"), mask=mask, **options),)

    @override
    def results(self, chain: Chain) -> tuple[Known, ...]:
        known = self._known()
        p, q = self._projections(chain, known)
        scores = chain.product(p, q.transposed)
        if self.case.scale is not None:
            scores = chain.scaled(scores, self.case.scale)
        if self.case.softcap is not None:
            capped = chain.through(chain.scaled(scores, 1 / self.case.softcap), torch.tanh, 1.0, top=1.0)
            scores = chain.scaled(capped, self.case.softcap)
        if "mask" in known:
            scores = chain.add(scores, known["mask"])
        return (scores,)

    @override
    def gradients(self, chain: Chain, grads: Sequence[Known]) -> dict[str, Known]:
        known = self._known()
        p, q = self._projections(chain, known)
        grad = self._through_masks(grads[0])
        found = {"mask": chain.total(grad, known["mask"].value.shape)} if "mask" in known else {}
        grad = self._through_scale(chain, grad, p, q)
        dp, dq = chain.product(grad, q), chain.product(grad.transposed, p)
        x, a, b = known["x"], known["a"], known["b"]
        other = known.get("y", x)
        dp, dq = chain.total(dp, projected_shape(x, a)), chain.total(dq, projected_shape(other, b))
        dx = chain.total(chain.product(dp, a), x.value.shape)
        d_other = chain.total(chain.product(dq, b), other.value.shape)
        found |= {"a": self._padded(token_sum(chain, dp, x, a)), "b": self._padded(token_sum(chain, dq, other, b))}
        return found | ({"x": dx, "y": d_other} if "y" in known else {"x": chain.add(dx, d_other)})

    @override
    def hidden(self) -> Tensor | None:
        shape = self._result_shape()
        hidden = torch.zeros(shape, dtype=torch.bool)
        if self.bool_mask is not None:
            hidden = hidden | ~self.bool_mask
        if "mask" in self.tensors:
            hidden = hidden | (self.tensors["mask"] == -math.inf)
        return hidden | torch.ones(shape[-2:], dtype=torch.bool).triu(1) if self.case.is_causal else hidden

    @override
    def doubles(self) -> tuple[str, int] | None:
        if self.case.softcap is not None or "mask" in self.tensors:
            return None
        return "x", 2 if self.case.is_self else 1

    @override
    def touched(self, result: Tensor, row: int) -> Tensor:
        touched = torch.zeros(result.shape[-2:], dtype=torch.bool)
        touched[row] = True
        if self.case.is_self:
            touched[:, row] = True
        return touched

    def _lead(self) -> tuple[int, ...]:
        case, lead = self.case, LEADS[self.case.lead]
        if case.heads and (lead or case.is_own_x):
            return (*lead, case.heads if case.is_own_x else 1)
        return lead

    def _result_shape(self) -> tuple[int, ...]:
        case, lead = self.case, self._lead()
        lead = (*lead[:-1], case.heads) if case.heads else lead
        return (*lead, case.tokens, case.tokens if case.is_self else case.other_tokens)

    def _make_mask(self, mask: tuple[str, bool, bool, bool]) -> None:
        kind, has_rows, has_columns, has_lead = mask
        *lead, T, U = self._result_shape()
        shape = (*(lead if has_lead else ()), T if has_rows else 1, U if has_columns else 1)
        if kind == "bool":
            self.bool_mask = self.maker.keep(*shape)
            return
        hidden = torch.rand(shape, generator=torch.Generator().manual_seed(self.case.seed)) < HIDDEN
        self.tensors["mask"] = self.maker.tensor(*shape).masked_fill(hidden, -math.inf)

    def _known(self) -> dict[str, Known]:
        """Return the operands at this rank; 0 for -inf in a mask."""
        known = {name: exact(tensor) for name, tensor in self.tensors.items()}
        for name in ("a", "b"):
            known[name] = known[name].moved(lambda t: t[..., : self.case.rank, :])
        if "mask" in known:
            known["mask"] = exact(self.tensors["mask"].masked_fill(self.tensors["mask"] == -math.inf, 0))
        return known

    def _projections(self, chain: Chain, known: dict[str, Known]) -> tuple[Known, Known]:
        p = chain.product(known["x"], known["a"].transposed)
        return p, chain.product(known.get("y", known["x"]), known["b"].transposed)

    def _through_masks(self, grad: Known) -> Known:
        if self.bool_mask is not None:
            hidden = ~self.bool_mask
            grad = grad.moved(lambda t: t.masked_fill(hidden, 0))
        return grad.moved(torch.tril) if self.case.is_causal else grad

    def _through_scale(self, chain: Chain, grad: Known, p: Known, q: Known) -> Known:
        scale, softcap = self.case.scale, self.case.softcap
        if softcap is not None:
            inside = chain.scaled(chain.product(p, q.transposed), (1.0 if scale is None else scale) / softcap)
            capped = chain.through(inside, torch.tanh, 1.0, top=1.0)
            square = chain.times(capped, capped)
            grad = chain.times(grad, chain.stored(1 - square.value, square.error))
        return grad if scale is None else chain.scaled(grad, scale)

    def _padded(self, known: Known) -> Known:
        return known.moved(lambda t: with_rows(t, self.case.spare))


def projected_shape(x: Known, weight: Known) -> tuple[int, ...]:
    """Return the shape of x weight^T."""
    lead = torch.broadcast_shapes(x.value.shape[:-2], weight.value.shape[:-2])  # type: ignore[no-untyped-call]
    return (*lead, x.value.shape[-2], weight.value.shape[-2])
