"""narrows.ops.pivot_linear: [p; rest p] for p = rows x, in the weight's order, plus bias.

Letters: T tokens, D input, E output features, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from hypothesis import strategies as st
from typing_extensions import override

from narrows.ops import pivot_linear
from soak.right import draws
from soak.right.bounds import Chain, Known, exact
from soak.right.draws import Maker
from soak.right.linear import LEADS, token_sum
from soak.right.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


@dataclass(frozen=True)
class PivotCase:
    """One call; E = rank + others."""

    dtype: str
    tokens: int
    in_features: int
    rank: int
    others: int
    lead: str
    is_row: bool
    x: str
    rows: str
    rest: str
    extra: str
    exponent: int
    values: str
    has_bias: bool
    needs: int
    seed: int


CASES = st.builds(
    PivotCase,
    dtype=draws.dtypes(),
    tokens=draws.lengths(),
    in_features=draws.widths(),
    rank=draws.ranks(),
    others=draws.lengths(),
    lead=st.sampled_from(list(LEADS)),
    is_row=st.booleans(),
    x=draws.layouts(),
    rows=draws.layouts(),
    rest=draws.layouts(),
    extra=draws.layouts(),
    exponent=draws.exponents(),
    values=draws.values(),
    has_bias=st.booleans(),
    needs=st.integers(0, 15),
    seed=draws.seeds(),
)


class PivotTrial(Trial):
    """A call of pivot_linear."""

    def __init__(self, case: PivotCase) -> None:
        self.case = case
        self.maker = Maker(case.dtype, case.values, case.seed)
        self.needs = case.needs
        shape = (case.in_features,) if case.is_row else (*LEADS[case.lead], case.tokens, case.in_features)
        width = case.rank + case.others
        self.inverse_order = torch.argsort(self.maker.order(width))
        self.tensors = {
            "x": self.maker.tensor(*shape, layout=case.x, exponent=case.exponent),
            "rows": self.maker.tensor(case.rank, case.in_features, layout=case.rows, exponent=-case.exponent),
            "rest": self.maker.tensor(case.others, case.rank, layout=case.rest),
        }
        if case.has_bias:
            self.tensors["bias"] = self.maker.tensor(width, layout=case.extra)

    @override
    def run(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        given = tensors["x"], tensors["rows"], tensors["rest"], self.inverse_order, tensors.get("bias")
        return (pivot_linear(*given),)

    @override
    def results(self, chain: Chain) -> tuple[Known, ...]:
        known = self._known()
        p = chain.product(known["x"], known["rows"].transposed)
        others = chain.product(p, known["rest"].transposed)
        both = Known(torch.cat((p.value, others.value), -1), torch.cat((p.error, others.error), -1))
        y = both.moved(lambda t: t[..., self.inverse_order])
        y = chain.add(y, known["bias"]) if "bias" in known else y
        return (self._squeezed(y),)

    @override
    def gradients(self, chain: Chain, grads: Sequence[Known]) -> dict[str, Known]:
        known, rank = self._known(), self.case.rank
        grad = grads[0].moved(lambda t: t.unsqueeze(-2)) if self.case.is_row else grads[0]
        both = grad.moved(lambda t: t[..., torch.argsort(self.inverse_order)])
        direct, others = both.moved(lambda t: t[..., :rank]), both.moved(lambda t: t[..., rank:])
        p = chain.product(known["x"], known["rows"].transposed)
        dp = chain.add(direct, chain.product(others, known["rest"]))
        return {
            "x": self._squeezed(chain.product(dp, known["rows"])),
            "rows": token_sum(chain, dp, known["x"], known["rows"]),
            "rest": token_sum(chain, others, p, known["rest"]),
            "bias": chain.total(grad, (rank + self.case.others,)),
        }

    @override
    def doubles(self) -> tuple[str, int] | None:
        return None if self.case.has_bias else ("x", 1)

    def _known(self) -> dict[str, Known]:
        known = {name: exact(tensor) for name, tensor in self.tensors.items()}
        if self.case.is_row:
            known["x"] = known["x"].moved(lambda t: t.unsqueeze(-2))
        return known

    def _squeezed(self, known: Known) -> Known:
        return known.moved(lambda t: t[0]) if self.case.is_row else known
