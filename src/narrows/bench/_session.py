"""The child's side of an experiment: prepares weights, checks points against float64, times them.

Holds the operands of the timed weight and the timers of one length. Letters: T tokens, D, E features.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch

from narrows import kernels
from narrows._machine import check_fits, is_shortage
from narrows._oracle import poisoned, worst
from narrows._values import DTYPE_BYTES, Factors, WeightRecord
from narrows.bench._accuracy import output_errors, sampled_rows
from narrows.bench._facts import facts_of, kernel_of, num_sets, shortage, thin_variants
from narrows.bench._gate import Gate
from narrows.bench._kept_factors import keep_factors, kept_factors
from narrows.bench._material import input_hash, make_inputs, make_operands, weight_hash
from narrows.bench._point import cost_of
from narrows.bench._timer import Ring, make_timer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from narrows._oracle import Reference
    from narrows._values import Experiment, OutputError, WeightSource
    from narrows.bench._material import Operands
    from narrows.bench._point import Check, Point
    from narrows.bench._timer import Timer


class Session:
    """Everything that touches tensors and the device for one experiment."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.experiment = experiment
        self.folder = folder
        self.device = torch.device(experiment.device)
        self.dtype: torch.dtype = getattr(torch, experiment.dtype)
        self._tokens = 0
        self._timers: dict[Point, Timer] = {}
        self._gate: Gate | None = None
        if self.device.index is not None:
            torch.cuda.set_device(self.device)  # events are recorded on the current device's stream

    def describe(self) -> dict[str, object]:
        """Return the identity of the content and the variants of this experiment; reads every file once."""
        problem = self.experiment.problem(self.experiment.tokens[0])
        _ = self._inputs
        return {
            "weights": [weight_hash(source, self.experiment) for source in self.experiment.weights],
            "input": input_hash(self.experiment),
            "dense": list(kernels.dense_associations(problem)),
            "thin": thin_variants(problem.kind, problem.device),
        }

    def prepare(self, index: int) -> tuple[WeightRecord, tuple[OutputError, ...]]:
        """Factorise one weight; return what is known of it and its error at every length and rank."""
        source = self.experiment.weights[index]
        self._check_fits(source)
        operands = self._timed_operands if index == 0 else make_operands(source, self.experiment)
        factors = operands.factorize(max(self.experiment.ranks))
        certificate = factors.certificate
        assert certificate is not None
        sigma_HR = torch.tensor(certificate.singular_values, dtype=torch.float64)
        ranks = self.experiment.ranks
        record = WeightRecord(
            name=source.name,
            sha256=weight_hash(source, self.experiment),
            method=certificate.method,
            singular_values=tuple(sigma_HR.square().sum(dim=0).sqrt().tolist()),
            factor_errors={rank: certificate.error(min(rank, certificate.rank)) for rank in ranks},
            residual=certificate.residual,
            seconds=certificate.seconds,
            true_rank=source.inner if source.is_product else None,
        )
        x, y = self._inputs
        weight, factors = operands.exact().to(self.device), factors.to(self.device)
        errors = tuple(
            output_errors(self.experiment, weight_name=source.name, exact_weight=weight, factors=factors, x=x, y=y)
        )
        if index == 0:
            self._keep(factors.to(self.dtype))
        return record, errors

    def _check_fits(self, source: WeightSource) -> None:
        """Raise ResourceError where a weight itself, and its float64 copy, are larger than the free memory."""
        asked = self.experiment
        numbers = asked.heads * asked.in_features * asked.out_features
        what = f"weight {source.name} ({asked.out_features}, {asked.in_features}), with a copy in float64,"
        check_fits(numbers * (4 + 8), "cpu", what=what, advice="Give a smaller one.")

    def load_factors(self) -> None:
        """Factorise the timed weight, if no earlier child has left its factors, before anything is timed."""
        _ = self._factors

    def check(self, point: Point) -> Check:
        """Run one point once, compare sampled rows with float64 under a derived bound, count its cost."""
        facts = facts_of(point, self.experiment.problem(point.tokens))
        if not facts.can_be_timed:
            return facts
        if point.tokens > self._num_rows:
            reason = f"an input of {point.tokens} tokens did not fit when this run started"
            return replace(facts, status="does not fit", reason=reason)
        try:
            self._move_to(point.tokens)
            return self._compare(point, facts)
        except (MemoryError, RuntimeError) as fault:
            if not is_shortage(fault):
                raise
            return replace(facts, status="does not fit", reason=str(fault).splitlines()[0])

    def sample(self, point: Point) -> tuple[float, int]:
        """Return (nanoseconds a call, calls) of one more sample of a checked point."""
        self._move_to(point.tokens)
        try:
            return self._timer(point).sample()
        except BaseException:
            self._timers.pop(point, None)  # it would hold its operands while other rows need the memory
            raise

    @cached_property
    def _num_rows(self) -> int:
        """The largest length whose input fits now; 0 when none does."""
        asked = self.experiment
        kept = asked.in_features * DTYPE_BYTES[asked.dtype]
        made = asked.in_features * 4 + kept  # made or read in float32 at least, then cast: both live for a moment

        def fits(tokens: int) -> bool:
            return not (shortage(tokens * made, "cpu") or shortage(tokens * kept, asked.device))

        return max(filter(fits, asked.tokens), default=0)

    @cached_property
    def _inputs(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, y = make_inputs(self.experiment, self._num_rows)
        return x.to(self.device, self.dtype), None if y is None else y.to(self.device, self.dtype)

    @cached_property
    def _timed_operands(self) -> Operands:
        return make_operands(self.experiment.weights[0], self.experiment)

    @cached_property
    def _weight(self) -> torch.Tensor:
        return self._timed_operands.exact().to(self.device, self.dtype)

    @cached_property
    def _given(self) -> kernels.Given:
        left, right = self._timed_operands.left, self._timed_operands.right
        assert left is not None
        assert right is not None
        is_self = self.experiment.other_tokens is None
        return kernels.Given.of(left.to(self.device, self.dtype), right.to(self.device, self.dtype), is_self=is_self)

    @cached_property
    def _given_factors(self) -> Factors:
        """The product's operands as the thin chain's, for the reference."""
        left, right = self._timed_operands.left, self._timed_operands.repeated()
        assert left is not None
        return Factors(left, right, is_ordered=False).to(self.device, self.dtype)

    @cached_property
    def _factors(self) -> Factors:
        kept = kept_factors(self._factors_path, self.device)
        if kept is None:
            self._keep(self._timed_operands.factorize(max(self.experiment.ranks)).to(self.dtype))
            kept = kept_factors(self._factors_path, self.device)
        assert kept is not None
        return kept

    @property
    def _factors_path(self) -> Path:
        name = weight_hash(self.experiment.weights[0], self.experiment)[:16]
        return self.folder / f"{name}-{self.experiment.dtype}-{max(self.experiment.ranks)}.safetensors"

    def _keep(self, factors: Factors) -> None:
        """Keep the timed factors on disk, for a child that takes over."""
        keep_factors(self._factors_path, factors)

    def _move_to(self, tokens: int) -> None:
        """Drop what belongs to another length."""
        if tokens == self._tokens:
            return
        self._timers.clear()
        self._tokens = tokens
        x, other = self._sides()
        if self.experiment.kind == "bilinear" and other is None:
            other = x
        self._gate = Gate(sampled_rows(tokens, self.experiment.seed), x, other)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _sides(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return x (T, D) and y as it was given (None: Y = X, or linear)."""
        x, y = self._inputs
        return x[: self._tokens], y

    def _compare(self, point: Point, facts: Check) -> Check:
        """Run the point and hold its sampled rows against their bound."""
        assert self._gate is not None
        peak = self._device_peak(point, facts) if self.device.type == "cuda" else None
        rows = self._output(point).index_select(-2, self._gate.rows)
        reference = self._reference(point, self._gate)
        ratio = worst(rows, reference)
        if not ratio <= 1:
            reason = f"an element is {ratio:.3g} times its derived error bound away from the float64 result"
            largest, most = float(reference.value.abs().max()), torch.finfo(self.dtype).max
            if not largest <= most:
                reason = (
                    f"the exact result reaches {largest:.3g}, above {most:.3g}, the largest {self.experiment.dtype}"
                )
            return replace(facts, status="wrong result", reason=reason, worst=ratio)
        norm = reference.value.norm().clamp_min(torch.finfo(torch.float64).tiny)
        rounding = float((rows.double() - reference.value).norm() / norm)
        return replace(facts, rounding=rounding, worst=ratio, peak_memory_bytes=peak)

    def _reference(self, point: Point, gate: Gate) -> Reference:
        if point.variant == "given":
            return gate.thin(self._given_factors, self._given_factors.rank)
        if point.rank is None:
            return gate.dense(self._weight, point.variant)
        return gate.thin(self._factors, point.rank)

    def _output(self, point: Point) -> torch.Tensor:
        """Return a result whose every element was written by this very run: its memory held NaN before."""
        if point.mode == "graph":
            return self._timer(point).output()
        problem = self.experiment.problem(point.tokens)
        heads = (problem.heads,) if problem.heads > 1 else ()
        out = poisoned((*heads, point.tokens, problem.columns), self.dtype, self.device)
        return self._call(point, copy=False)(out=out)

    def _device_peak(self, point: Point, facts: Check) -> int:
        """Return the allocator's peak of one call, its operands included."""
        call = self._call(point, copy=False)
        call()  # libraries allocate their workspace once
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before + facts.bytes_read

    def _call(self, point: Point, *, copy: bool) -> Callable[..., torch.Tensor]:
        """Return one call of a point; `copy` gives it operands of its own."""
        x, y = self._sides()
        if copy:
            x, y = x.clone(), None if y is None else y.clone()
        if point.variant == "given":
            return partial((self._given.clone() if copy else self._given).run, x, y)
        kernel = kernel_of(point, self.experiment.problem(point.tokens))
        if kernel is None:
            weight = self._weight.clone() if copy else self._weight
            return partial(kernels.dense_run, point.variant, x, weight, y)
        assert point.rank is not None
        factors = self._factors.truncate(point.rank)
        if copy:
            factors = Factors(factors.a.clone(), factors.b.clone())
        return partial(kernel.run, x, kernel.pack(factors), y)

    def _ring(self, point: Point) -> Ring:
        if point.cache == "hot":
            return Ring([self._call(point, copy=False)])
        cost = cost_of(point, self.experiment.problem(point.tokens))
        return Ring([self._call(point, copy=True) for _ in range(num_sets(point, cost, self.experiment.device))])

    def _timer(self, point: Point) -> Timer:
        if point not in self._timers:
            self._timers[point] = make_timer(self._ring(point), mode=point.mode, device=self.device)
        return self._timers[point]
