"""One example of an operation, and everything that must be true of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows.testing import worst
from soak.right.bounds import Chain, Known, exact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from soak.right.draws import Maker

REPEATS = 3  # the first call is remembered, the second makes it ready, the third one is


class Violation(AssertionError):  # noqa: N818 (what was violated, not what failed)
    """An operation did what it must not do; the text says what."""


class Undecided(Exception):  # noqa: N818 (no error: nothing can be said)
    """Rounding can take the results anywhere: there is nothing to compare."""


class Trial(ABC):
    """An operation on operands of one case.

    Attributes:
        maker: of the tensors.
        tensors: the operands, by name; the first is x (q for attention).
        needs: bits, one for each operand: which of them are differentiated by.
    """

    maker: Maker
    tensors: dict[str, Tensor]
    needs: int

    @abstractmethod
    def run(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the operation's results on these operands."""

    @abstractmethod
    def results(self, chain: Chain) -> tuple[Known, ...]:
        """Return what the results must be."""

    @abstractmethod
    def gradients(self, chain: Chain, grads: Sequence[Known]) -> dict[str, Known]:
        """Return what the gradients of the operands must be, for those of the results; all operands or some."""

    def hidden(self) -> Tensor | None:
        """Return where the result must be -inf."""
        return None

    def doubles(self) -> tuple[str, int] | None:
        """Return an operand and n where doubling it multiplies every result by 2^n exactly; None: there is none."""
        return None

    def numb(self) -> Tensor | None:
        """Return where a result does not depend on x; broadcasts to it."""
        return self.hidden()

    def touched(self, result: Tensor, row: int) -> Tensor | None:
        """Return where a result is NaN when row `row` of x is, or `numb`; broadcasts to it. None: not as simple."""
        rows = torch.zeros(result.shape[-2], 1, dtype=torch.bool)
        rows[row] = True
        return rows


@dataclass(frozen=True)
class Judged:
    """Attributes:
    result: the largest |error| / bound of a result.
    gradient: of a gradient; 0 where there is none.
    num_gradients: how many gradients were looked at.
    """

    result: float
    gradient: float
    num_gradients: int


def judge(trial: Trial) -> Judged:
    """Return how near to its bounds a trial came.

    Raises:
        Violation: a wrong value, shape, dtype or gradient, a changed operand, or one of the laws is broken.
        Undecided: something may have overflowed, or no bound says anything.
    """
    chain = Chain(trial.maker.dtype)
    known = trial.results(chain)
    if chain.may_overflow:
        raise Undecided
    before = {name: tensor.clone() for name, tensor in trial.tensors.items()}
    results = trial.run(trial.tensors)
    near = within("result", results, known, trial)
    unchanged = all(same(trial.tensors[name], tensor) for name, tensor in before.items())
    require(unchanged, "an operand was changed")
    for _ in range(REPEATS - 1):
        require(all(map(same, trial.run(trial.tensors), results)), "a second call gave other bits")
    doubled(trial, results)
    poisoned(trial, results)
    gradient, count = differentiated(trial)
    return Judged(near, gradient, count)


def within(what: str, found: Sequence[Tensor], known: Sequence[Known], trial: Trial) -> float:
    """Return the largest |error| / bound of the tensors found.

    Raises:
        Violation: above 1, or another shape, dtype, or places of -inf.
    """
    require(len(found) == len(known), f"{len(found)} {what}s, not {len(known)}")
    hidden = trial.hidden() if what == "result" else None
    largest = 0.0
    for i, (tensor, wanted) in enumerate(zip(found, known, strict=True)):
        shape = tuple(wanted.value.shape)
        require(tuple(tensor.shape) == shape, f"{what} {i} is {tuple(tensor.shape)}, not {shape}")
        require(tensor.dtype == trial.maker.dtype, f"{what} {i} is {tensor.dtype}, not {trial.maker.dtype}")
        if hidden is not None:
            require(bool(((tensor == -math.inf) == hidden).all()), f"{what} {i} is -inf at other places")
            tensor, wanted = tensor.masked_fill(hidden, 0), wanted.moved(lambda t: t.masked_fill(hidden, 0))  # noqa: PLW2901
        ratio = worst(tensor, wanted.reference)
        require(ratio <= 1, f"the worst |error| of {what} {i} is {ratio:.3g} times its bound")
        largest = max(largest, ratio)
    return largest


def require(is_met: bool, message: str) -> None:
    """Raise Violation unless met."""
    if not is_met:
        raise Violation(message)


def same(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors hold the same values; NaN equals NaN."""
    return left.shape == right.shape and bool(((left == right) | (left.isnan() & right.isnan())).all())


def doubled(trial: Trial, results: Sequence[Tensor]) -> None:
    """Raise unless doubling an operand multiplies every result by a power of two, bit for bit, where it must.

    Not in float16, where what is halved may be subnormal and so lose bits.
    """
    found = trial.doubles()
    if found is None or trial.maker.dtype == torch.float16:
        return
    name, degree = found
    operand = trial.tensors[name]
    if is_shared(operand):
        return
    operand.mul_(2)
    twice = trial.run(trial.tensors)
    operand.mul_(0.5)
    exactly = all(same(tensor, result * 2.0**degree) for tensor, result in zip(twice, results, strict=True))
    require(exactly, f"{name} doubled does not give the result times {2**degree} bit for bit")


def poisoned(trial: Trial, results: Sequence[Tensor]) -> None:
    """Raise unless NaN in one row of x makes the results NaN where that row counts, and changes no other bit."""
    x = next(iter(trial.tensors.values()))
    if x.ndim < 2 or not x.numel() or is_shared(x):
        return
    row = x.shape[-2] // 2
    kept = x[..., row, :].clone()
    x[..., row, :] = math.nan
    spoiled = trial.run(trial.tensors)
    x[..., row, :] = kept
    numb = trial.numb()
    for tensor, result in zip(spoiled, results, strict=True):
        touched = trial.touched(result, row)
        if touched is None:
            return
        touched = touched.expand(result.shape)
        seen = touched if numb is None else touched & ~numb
        require(bool(tensor[seen].isnan().all()), f"NaN in row {row} of x gave numbers there")
        require(same(tensor[~touched], result[~touched]), f"NaN in row {row} of x changed other rows")


def is_shared(tensor: Tensor) -> bool:
    """Return whether two elements lie in one place: such a tensor cannot be written to."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and stride == 0 for size, stride in sizes)


def differentiated(trial: Trial) -> tuple[float, int]:
    """Return how near the gradients came to their bounds, and their number.

    Raises:
        Violation: as in `within`.
        Undecided: something may have overflowed.
    """
    leaves = leaves_of(trial)
    results = trial.run({**trial.tensors, **leaves})
    grads = tuple(trial.maker.tensor(*result.shape).to(result.dtype) for result in results)
    chain = Chain(trial.maker.dtype)
    known = trial.gradients(chain, [exact(grad) for grad in grads])
    judged = [name for name in leaves if name in known]
    if chain.may_overflow:
        raise Undecided
    if not judged:
        return 0.0, 0
    found = torch.autograd.grad(results, [leaves[name] for name in judged], grads)
    return within("gradient", found, [known[name] for name in judged], trial), len(judged)


def leaves_of(trial: Trial) -> dict[str, Tensor]:
    """Return those operands that are differentiated by, in their own memory; all where no bit is set."""
    floating = {name: tensor for name, tensor in trial.tensors.items() if tensor.is_floating_point()}
    chosen = {name: t for i, (name, t) in enumerate(floating.items()) if trial.needs >> i & 1} or floating
    return {name: tensor.detach().requires_grad_() for name, tensor in chosen.items()}
