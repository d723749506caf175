"""narrows.linear_group, gated_linear and stack: several factors that read the same x.

Letters: T tokens, D input, E output features, R rank.
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
from soak.right.activations import FUNCTIONS, activated, through_activation
from soak.right.bounds import Chain, Known, exact
from soak.right.draws import Maker
from soak.right.linear import LEADS, projected, shifted, token_sum
from soak.right.trial import Trial, require, same

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


@dataclass(frozen=True)
class GroupCase:
    """One call; members are (R, E, has a bias)."""

    dtype: str
    tokens: int
    in_features: int
    members: tuple[tuple[int, int, bool], ...]
    stacked: int
    lead: str
    is_row: bool
    x: str
    a: str
    b: str
    exponent: int
    values: str
    activation: str | None
    impl: str
    needs: int
    seed: int


def cases(*, least: int, most: int) -> st.SearchStrategy[GroupCase]:
    """Return cases with so many members, of which the first `stacked` share a block."""
    member = st.tuples(draws.ranks(), draws.widths(), st.booleans())
    return st.builds(
        GroupCase,
        dtype=draws.dtypes(),
        tokens=draws.lengths(),
        in_features=draws.widths(),
        members=st.lists(member, min_size=least, max_size=most).map(tuple),
        stacked=st.integers(0, most),
        lead=st.sampled_from(list(LEADS)),
        is_row=st.booleans(),
        x=draws.layouts(),
        a=draws.layouts(),
        b=draws.layouts(),
        exponent=draws.exponents(),
        values=draws.values(),
        activation=st.sampled_from((None, *FUNCTIONS)),
        impl=st.sampled_from(("auto", "two")),
        needs=st.integers(0, 1023),
        seed=draws.seeds(),
    )


GROUP_CASES = cases(least=1, most=3)
PAIR_CASES = cases(least=2, most=2)


class GroupTrial(Trial):
    """A call of narrows.linear_group."""

    def __init__(self, case: GroupCase) -> None:
        self.case = case
        self.maker = Maker(case.dtype, case.values, case.seed)
        self.needs = case.needs
        shape = (case.in_features,) if case.is_row else (*LEADS[case.lead], case.tokens, case.in_features)
        self.tensors = {"x": self.maker.tensor(*shape, layout=case.x, exponent=case.exponent)}
        for i, (rank, out_features, has_bias) in enumerate(self.members()):
            self.tensors[f"a{i}"] = self.maker.tensor(rank, case.in_features, layout=case.a, exponent=-case.exponent)
            self.tensors[f"b{i}"] = self.maker.tensor(rank, out_features, layout=case.b)
            if has_bias:
                self.tensors[f"bias{i}"] = self.maker.tensor(out_features)

    def members(self) -> tuple[tuple[int, int, bool], ...]:
        """Return (R, E, has a bias) of every member."""
        return self.case.members

    @override
    def run(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        biases = [tensors.get(f"bias{i}") for i in range(len(self.members()))]
        return narrows.linear_group(tensors["x"], self.factors(tensors), biases, impl=self.case.impl)

    def factors(self, tensors: Mapping[str, Tensor]) -> tuple[Factors, ...]:
        """Return the members, the first of them stacked."""
        every = [Factors(tensors[f"a{i}"], tensors[f"b{i}"]) for i in range(len(self.members()))]
        count = min(self.case.stacked, len(every))
        return (*narrows.stack(every[:count]), *every[count:]) if count else tuple(every)

    @override
    def results(self, chain: Chain) -> tuple[Known, ...]:
        return tuple(self._squeezed(member) for member in self._members(chain, self._known(), is_forward=True))

    @override
    def gradients(self, chain: Chain, grads: Sequence[Known]) -> dict[str, Known]:
        known = self._known()
        return self._sent_back(chain, known, [self._as_matrix(grad) for grad in grads])

    @override
    def doubles(self) -> tuple[str, int] | None:
        return None if any(has_bias for *_, has_bias in self.members()) else ("x", 1)

    def _sent_back(self, chain: Chain, known: dict[str, Known], grads: Sequence[Known]) -> dict[str, Known]:
        """Return the gradients of all operands for those of every member's result."""
        found: dict[str, Known] = {}
        total: Known | None = None
        for i, grad in enumerate(grads):
            x, a, b = known["x"], known[f"a{i}"], known[f"b{i}"]
            dp = chain.product(grad, b.transposed)
            dx = chain.product(dp, a)
            total = dx if total is None else chain.add(total, dx)
            found[f"a{i}"] = token_sum(chain, dp, x, a)
            found[f"b{i}"] = token_sum(chain, projected(chain, x, a), grad, b)
            found[f"bias{i}"] = chain.total(grad, b.value.shape[-1:])
        assert total is not None
        return {**found, "x": self._squeezed(total)}

    def _members(self, chain: Chain, known: dict[str, Known], *, is_forward: bool) -> list[Known]:
        """Return (x a^T) b + bias of every member; the backward pass adds the bias after rounding."""
        found = []
        for i in range(len(self.members())):
            p = projected(chain, known["x"], known[f"a{i}"])
            bias = known.get(f"bias{i}")
            inside = projected(chain, p, known[f"b{i}"].transposed, bias if is_forward else None)
            found.append(inside if is_forward else shifted(chain, inside, bias))
        return found

    def _known(self) -> dict[str, Known]:
        known = {name: exact(tensor) for name, tensor in self.tensors.items()}
        return {**known, "x": self._as_matrix(known["x"])}

    def _as_matrix(self, known: Known) -> Known:
        return known.moved(lambda t: t.unsqueeze(-2)) if self.case.is_row else known

    def _squeezed(self, known: Known) -> Known:
        return known.moved(lambda t: t[0]) if self.case.is_row else known


class GatedTrial(GroupTrial):
    """A call of narrows.gated_linear: the first member is the gate."""

    @override
    def members(self) -> tuple[tuple[int, int, bool], ...]:
        """Return two members with the gate's E."""
        (rank, out_features, has_bias), (up_rank, _, has_up_bias) = self.case.members
        return (rank, out_features, has_bias), (up_rank, out_features, has_up_bias)

    @override
    def run(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        gate, up = self.factors(tensors)
        biases = {"gate_bias": tensors.get("bias0"), "up_bias": tensors.get("bias1")}
        case = self.case
        return (narrows.gated_linear(tensors["x"], gate, up, **biases, activation=case.activation, impl=case.impl),)

    @override
    def results(self, chain: Chain) -> tuple[Known, ...]:
        opening, values = self._members(chain, self._known(), is_forward=True)
        return (self._squeezed(chain.times(activated(chain, opening, self.case.activation), values)),)

    @override
    def gradients(self, chain: Chain, grads: Sequence[Known]) -> dict[str, Known]:
        known, grad = self._known(), self._as_matrix(grads[0])
        opening, values = self._members(chain, known, is_forward=False)
        d_opening = through_activation(chain, chain.times(grad, values), opening, self.case.activation)
        d_values = chain.times(grad, activated(chain, opening, self.case.activation))
        return self._sent_back(chain, known, (d_opening, d_values))

    @override
    def doubles(self) -> tuple[str, int] | None:
        return None if super().doubles() is None or self.case.activation else ("x", 2)


class StackTrial(GroupTrial):
    """A call of narrows.stack: the same factors, every a in one block, every b shared; gradients pass as they are."""

    @override
    def run(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        factors = self._apart(tensors)
        stacked = narrows.stack(factors)
        storages = {one.a.untyped_storage().data_ptr() for one in stacked}
        require(len(storages) == 1, "stacked factors lie in several blocks")
        for before, after in zip(factors, stacked, strict=True):
            require(after.b is before.b and after.rank == before.rank, "stack changed b or the rank")
            require(same(after.a, before.a), "stack changed a")
        return tuple(one.a for one in stacked)

    @override
    def results(self, chain: Chain) -> tuple[Known, ...]:
        return tuple(exact(self.tensors[f"a{i}"]) for i in range(len(self.members())))

    @override
    def gradients(self, chain: Chain, grads: Sequence[Known]) -> dict[str, Known]:
        return {f"a{i}": grad for i, grad in enumerate(grads)}

    @override
    def doubles(self) -> None:
        return None

    @override
    def touched(self, result: Tensor, row: int) -> Tensor:
        return torch.zeros((), dtype=torch.bool)

    def _apart(self, tensors: Mapping[str, Tensor]) -> list[Factors]:
        return [Factors(tensors[f"a{i}"], tensors[f"b{i}"]) for i in range(len(self.members()))]
