"""narrows.linear: y = activation((x a^T + middle_bias) b + bias) + residual, with and without heads.

Letters: T tokens, D input, E output features, R rank, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from typing_extensions import override

import narrows
from narrows import Factors
from soak.right import draws
from soak.right.activations import FUNCTIONS, activated, through_activation
from soak.right.bounds import Chain, Known, exact
from soak.right.draws import Maker
from soak.right.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

# What stands before (T, D) in x; H is the number of heads.
LEADS = {
    "matrix": (),
    "batch": (2,),
    "batch of one": (1,),
    "two batches": (3, 2),
    "empty batch": (0,),
    "empty second batch": (2, 0),
}


@dataclass(frozen=True)
class LinearCase:
    """One call, as small numbers and names."""

    dtype: str
    tokens: int
    in_features: int
    out_features: int
    rank: int
    spare: int
    heads: int
    lead: str
    is_row: bool
    is_own_x: bool
    x: str
    a: str
    b: str
    extra: str
    exponent: int
    values: str
    has_bias: bool
    has_middle_bias: bool
    has_residual: bool
    activation: str | None
    impl: str
    needs: int
    seed: int


CASES = st.builds(
    LinearCase,
    dtype=draws.dtypes(),
    tokens=draws.lengths(),
    in_features=draws.widths(),
    out_features=draws.widths(),
    rank=draws.ranks(),
    spare=st.sampled_from((0, 1, 3)),
    heads=st.integers(0, 3),
    lead=st.sampled_from(list(LEADS)),
    is_row=st.booleans(),
    is_own_x=st.booleans(),
    x=draws.layouts(),
    a=draws.layouts(),
    b=draws.layouts(),
    extra=draws.layouts(),
    exponent=draws.exponents(),
    values=draws.values(),
    has_bias=st.booleans(),
    has_middle_bias=st.booleans(),
    has_residual=st.booleans(),
    activation=st.sampled_from((None, *FUNCTIONS)),
    impl=st.sampled_from(("auto", "two")),
    needs=st.integers(0, 63),
    seed=draws.seeds(),
)


class LinearTrial(Trial):
    """A call of narrows.linear."""

    def __init__(self, case: LinearCase) -> None:
        self.case = case
        self.maker = Maker(case.dtype, case.values, case.seed)
        self.needs = case.needs
        heads = (case.heads,) if case.heads else ()
        full = case.rank + case.spare
        x = self.maker.tensor(*self._x_shape(), layout=case.x, exponent=case.exponent)
        self.tensors = {
            "x": x,
            "a": self.maker.tensor(*heads, full, case.in_features, layout=case.a, exponent=-case.exponent),
            "b": self.maker.tensor(*heads, full, case.out_features, layout=case.b),
        }
        if case.has_bias:
            self.tensors["bias"] = self.maker.tensor(case.out_features, layout=case.extra)
        if case.has_middle_bias:
            self.tensors["middle_bias"] = self.maker.tensor(case.rank, layout=case.extra)
        if case.has_residual:
            self.tensors["residual"] = self.maker.tensor(*self._result_shape(), layout=case.extra)

    @override
    def run(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        case = self.case
        factors = Factors(tensors["a"], tensors["b"]).truncate(case.rank)
        given = {name: tensors.get(name) for name in ("bias", "middle_bias", "residual")}
        return (narrows.linear(tensors["x"], factors, activation=case.activation, impl=case.impl, **given),)

    @override
    def results(self, chain: Chain) -> tuple[Known, ...]:
        known = self._known()
        p = projected(chain, known["x"], known["a"], known.get("middle_bias"))
        z = projected(chain, p, known["b"].transposed, known.get("bias"))
        y = activated(chain, z, self.case.activation)
        y = chain.add(y, known["residual"]) if "residual" in known else y
        return (y.moved(lambda t: t[..., 0, :]) if self._is_row else y,)

    @override
    def gradients(self, chain: Chain, grads: Sequence[Known]) -> dict[str, Known]:
        known = self._known()
        grad = grads[0].moved(lambda t: t.unsqueeze(-2)) if self._is_row else grads[0]
        found = {"residual": grads[0]}
        p = shifted(chain, projected(chain, known["x"], known["a"]), known.get("middle_bias"))
        if self.case.activation:
            z = shifted(chain, projected(chain, p, known["b"].transposed), known.get("bias"))
            grad = through_activation(chain, grad, z, self.case.activation)
        dp = chain.product(grad, known["b"].transposed)
        dx = chain.total(chain.product(dp, known["a"]), known["x"].value.shape)
        found["x"] = dx.moved(lambda t: t[0]) if self._is_row else dx
        found["a"] = self._padded(token_sum(chain, dp, known["x"], known["a"]))
        found["b"] = self._padded(token_sum(chain, p, grad, known["b"]))
        found["middle_bias"] = chain.total(dp, (self.case.rank,))
        found["bias"] = chain.total(grad, (self.case.out_features,))
        return found

    @override
    def doubles(self) -> tuple[str, int] | None:
        case = self.case
        return None if case.has_bias or case.has_middle_bias or case.has_residual or case.activation else ("x", 1)

    @property
    def _is_row(self) -> bool:
        return self.case.is_row and not self.case.heads

    def _x_shape(self) -> tuple[int, ...]:
        case, lead = self.case, LEADS[self.case.lead]
        if self._is_row:
            return (case.in_features,)
        if case.heads and (lead or case.is_own_x):
            lead = (*lead, case.heads if case.is_own_x else 1)
        return (*lead, case.tokens, case.in_features)

    def _result_shape(self) -> tuple[int, ...]:
        case, x_shape = self.case, self._x_shape()
        if not case.heads:
            return (*x_shape[:-1], case.out_features)
        return (*x_shape[:-3], case.heads, case.tokens, case.out_features)

    def _known(self) -> dict[str, Known]:
        """Return the operands at this rank, x and what follows it as matrices."""
        known = {name: exact(tensor) for name, tensor in self.tensors.items()}
        for name in ("a", "b"):
            known[name] = known[name].moved(lambda t: t[..., : self.case.rank, :])
        if self._is_row:
            for name in {"x", "residual"} & set(known):
                known[name] = known[name].moved(lambda t: t.unsqueeze(-2))
        return known

    def _padded(self, known: Known) -> Known:
        """Return the gradient of factors of which a prefix was used: 0 for the rest."""
        return known.moved(lambda t: with_rows(t, self.case.spare))


def with_rows(tensor: Tensor, rows: int) -> Tensor:
    """Return the matrix with rows of 0 below it."""
    longer = tensor.new_zeros((*tensor.shape[:-2], tensor.shape[-2] + rows, tensor.shape[-1]))
    longer[..., : tensor.shape[-2], :] = tensor
    return longer


def projected(chain: Chain, x: Known, weight: Known, bias: Known | None = None) -> Known:
    """Return x weight^T + bias: rounded once for a matrix; after the matmul and after the bias for heads."""
    if bias is not None and weight.value.ndim == 3:
        return chain.add(chain.product(x, weight.transposed), bias)
    return chain.product(x, weight.transposed, bias)


def shifted(chain: Chain, known: Known, bias: Known | None) -> Known:
    """Return known + bias as the backward passes add it: after rounding."""
    return known if bias is None else chain.add(known, bias)


def token_sum(chain: Chain, left: Known, right: Known, like: Known) -> Known:
    """Return left^T right summed over tokens and leading dimensions: in one matmul where there are no heads."""
    if like.value.ndim == 2:
        flat = [known.moved(lambda t: t.flatten(0, -2)) for known in (left, right)]
        return chain.product(flat[0].transposed, flat[1])
    return chain.total(chain.product(left.transposed, right), like.value.shape)
