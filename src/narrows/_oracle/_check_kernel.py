"""One conformance check that every implementation of the thin chain runs through.

Which tier catches what, as tests/oracle shows with wrong kernels: a dropped last index, a transposed
weight, a stale or unwritten element: T1 and T3. A scale off by 2^-8 in bfloat16: T3 and T2. A
low-precision accumulator: T2 only (small integers are exact in it, and T1 allows it).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from narrows._oracle._bounds import BilinearOracle, LinearOracle, Reference, worst
from narrows._oracle._exact_data import Operands, exact_operands, normal_operands, poisoned
from narrows._oracle._statistics import emulate, statistics
from narrows._values import Factors, Kind, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class CheckedKernel(Protocol):
    """What is asked of a kernel here; `narrows.kernels` explains it."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    def refuses(self, problem: Problem) -> str: ...

    def pack(self, factors: Factors) -> Factors: ...

    # Any: a linear kernel takes `bias` too, and may leave out `y`.
    @property
    def run(self) -> Callable[..., torch.Tensor]: ...


@dataclass(frozen=True, slots=True)
class _Case:
    """Sizes of one run; `spare` ranks are cut off after packing; `is_self`: y is x."""

    tokens: int
    others: int
    in_features: int
    out_features: int
    rank: int
    heads: int = 1
    spare: int = 0
    is_self: bool = False

    def problem(self, kind: Kind, dtype: torch.dtype, device: str) -> Problem:
        is_linear = kind == "linear" or self.is_self
        return Problem(
            kind,
            self.tokens,
            self.in_features,
            self.out_features,
            other_tokens=None if is_linear else self.others,
            heads=self.heads,
            dtype=str(dtype),
            device=device,
        )

    def sizes(self) -> dict[str, int]:
        names = ("tokens", "in_features", "out_features", "rank")
        return {"other_tokens": self.others} | {name: getattr(self, name) for name in names}


# One more, one less and far from every tile's size; a single row; a single everything; no rows.
CASES = (
    _Case(1, 1, 1, 1, 1),
    _Case(1, 63, 100, 64, 5),
    _Case(63, 100, 65, 33, 17),
    _Case(100, 1, 33, 65, 31),
    _Case(64, 65, 64, 64, 64),
    _Case(63, 17, 129, 100, 16, spare=7),
    _Case(17, 5, 63, 40, 9, heads=3),
    _Case(63, 63, 100, 100, 7, is_self=True),
    _Case(33, 33, 40, 40, 8, heads=2, spare=3, is_self=True),
    _Case(0, 3, 16, 8, 2),
)
# 16384 elements: T2 needs 10^4.
STATISTICAL = (_Case(128, 128, 96, 128, 32), _Case(128, 128, 96, 96, 32, is_self=True))


def check_kernel(
    kernel: CheckedKernel,
    *,
    device: str = "cpu",
    dtypes: Iterable[torch.dtype] = DTYPES,
    middle: torch.dtype | None = None,
    seed: int = 0,
) -> None:
    """Pass a kernel that is right on every case it does not refuse.

    Each case runs with row-major and column-major operands and with windows of NaN-filled memory,
    with and without a NaN-filled `out`; operands must come back unchanged.

    Args:
        dtypes: that it is asked to run.
        middle: dtype its projections are kept in; default the operands' (a kernel that keeps
            more passes too; naming it makes the bound tighter).

    Raises:
        AssertionError: names the kernel, the case, the tier and the figures; or it refuses everything.
    """
    reasons: list[str] = []
    ran = 0
    for dtype in dtypes:
        for case in (*CASES, *STATISTICAL):
            problem = case.problem(kernel.kind, dtype, device)
            reason = kernel.refuses(problem)
            if reason:
                reasons.append(f"{problem}: {reason}")
                continue
            _Check(kernel, case, problem, dtype, middle, seed).run()
            ran += 1
    _require(ran > 0, f"{kernel.name} refused every case, so nothing was checked. {'; '.join(reasons[:1])}")


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise AssertionError(message)


@dataclass(frozen=True)
class _Check:
    kernel: CheckedKernel
    case: _Case
    problem: Problem
    dtype: torch.dtype
    middle: torch.dtype | None
    seed: int

    def run(self) -> None:
        operands = self._normal()
        if self.case in STATISTICAL:
            self._tier2(operands)
            return
        self._tier1(operands)
        if self.kernel.kind == "linear" and "bias" in inspect.signature(self.kernel.run).parameters:
            bias = torch.linspace(-3, 3, self.case.out_features, device=self.problem.device).to(self.dtype)
            self._tier1(operands, bias)
        if self.case.heads == 1:
            self._tier3()

    def _normal(self) -> Operands:
        sizes = self.case.sizes() | {"rank": self.case.rank + self.case.spare}
        operands = normal_operands(
            self.kernel.kind,
            **sizes,
            dtype=self.dtype,
            heads=self.case.heads,
            device=self.problem.device,
            seed=self.seed,
        )
        return Operands(operands.x, operands.a, operands.b, operands.x) if self._is_self else operands

    @property
    def _is_self(self) -> bool:
        return self.case.is_self and self.kernel.kind == "bilinear"

    def _tier1(self, operands: Operands, bias: torch.Tensor | None = None) -> None:
        reference = self._reference(operands, bias)
        for how, result in self._results(operands, reference.value.shape, bias):
            ratio = worst(result, reference)
            self._require(ratio <= 1, f"T1, {how}", f"the worst |error| is {ratio:.3g} times its bound")

    def _tier2(self, operands: Operands) -> None:
        if self.dtype == torch.float64:
            return
        reference = self._reference(operands, None)
        emulated = emulate(operands, middle=self.middle)
        result = self._call(operands, None, None)
        self._require(worst(result, reference) <= 1, "T1", "outside the bound")
        failures = statistics(result, reference, emulated).failures
        self._require(not failures, "T2", ", ".join(failures))

    def _tier3(self) -> None:
        operands = exact_operands(
            self.kernel.kind,
            **self.case.sizes(),
            dtype=self.dtype,
            is_self=self._is_self,
            device=self.problem.device,
            seed=self.seed,
        )
        expected = operands.expected
        assert expected is not None
        for how, result in self._results(operands, expected.shape, None):
            wrong = int((result != expected).sum())
            self._require(wrong == 0, f"T3, {how}", f"{wrong} of {expected.numel()} elements of an exact result differ")

    def _reference(self, operands: Operands, bias: torch.Tensor | None) -> Reference:
        if operands.y is None:
            linear = LinearOracle(operands.x, operands.a, operands.b, bias, middle=self.middle)
            return linear.at(self.case.rank)
        return BilinearOracle(operands.x, operands.a, operands.b, operands.y, middle=self.middle).at(self.case.rank)

    def _results(
        self, operands: Operands, shape: torch.Size, bias: torch.Tensor | None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (how, result) of every memory layout, with and without `out`."""
        for layout, arrange in LAYOUTS.items():
            arranged = _arranged(operands, arrange)
            result = self._call(arranged, bias, None)
            self._require(result.shape == shape, layout, f"the result is {tuple(result.shape)}, not {tuple(shape)}")
            self._require(result.dtype == self.dtype, layout, f"the result is {result.dtype}, not {self.dtype}")
            out = poisoned(shape, self.dtype, self.problem.device)
            self._call(arranged, bias, out)
            same = all(torch.equal(b, c) for b, c in zip(_tensors(operands), _tensors(arranged), strict=True))
            self._require(same, layout, "an operand was changed")
            yield f"{layout} operands", result
            yield f"{layout} operands, out", out

    def _call(self, operands: Operands, bias: torch.Tensor | None, out: torch.Tensor | None) -> torch.Tensor:
        factors = self.kernel.pack(Factors(operands.a, operands.b))
        factors = factors.truncate(min(self.case.rank, factors.rank))
        options: dict[str, Any] = {} if bias is None else {"bias": bias}
        other = None if self._is_self else operands.y
        return self.kernel.run(operands.x, factors, other, out=out, **options)

    def _require(self, is_met: bool, where: str, message: str) -> None:
        _require(is_met, f"{self.kernel.name}, {self.problem}, rank {self.case.rank}, {where}: {message}.")


def _columns(tensor: torch.Tensor) -> torch.Tensor:
    """Return a column-major copy."""
    return tensor.mT.contiguous().mT


def _window(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy within NaN-filled memory: reading past an edge shows as NaN."""
    rows, columns = tensor.shape[-2:]
    buffer = poisoned((*tensor.shape[:-2], rows + 2, columns + 3), tensor.dtype, tensor.device)
    buffer[..., 1:-1, 1:-2] = tensor
    return buffer[..., 1:-1, 1:-2]


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "row-major": torch.clone,
    "column-major": _columns,
    "windowed": _window,
}


def _arranged(operands: Operands, arrange: Callable[[torch.Tensor], torch.Tensor]) -> Operands:
    y = None if operands.y is None else arrange(operands.y)
    return Operands(arrange(operands.x), arrange(operands.a), arrange(operands.b), y)


def _tensors(operands: Operands) -> tuple[torch.Tensor, ...]:
    tensors = (operands.x, operands.a, operands.b)
    return tensors if operands.y is None else (*tensors, operands.y)
