"""One signature: search the sizes of each own kernel, check the best ones, and race them against cuBLAS."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch

from narrows.bench._tune_race import race
from narrows.bench._tune_search import PERSISTENT, fastest, search, short_chains
from narrows.errors import ResourceError
from narrows.kernels import tuned
from narrows.kernels.tuned import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable

    from narrows._values import Mode
    from narrows.bench._timer import Timer
    from narrows.bench._tune_case import Case
    from narrows.bench._tune_search import Times
    from narrows.kernels.tuned import Config, Neighbours, OwnKernel, Signature

    Runner = tuple[str, Config | None]  # an implementation and its sizes; cuBLAS has none

FINALISTS = 4  # of each own kernel


@dataclass
class _Finalists:
    """What is raced, what its check found, and why the others are not there."""

    timers: dict[Runner, Timer] = field(default_factory=dict)
    errors: dict[Runner, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


class Contest:
    """Finds every implementation's best, one signature after the other.

    Args:
        say: shows what is done now.
    """

    def __init__(self, *, say: Callable[[str], None]) -> None:
        self._say = say
        self.title = ""
        # Sizes are searched once for all modes of a call: launching from the host hides what they change, but
        # for the number of launches (`short_chains`).
        self._call: Signature | None = None
        self._searched: dict[str, Times] = {}

    def candidates(self, case: Case, own: list[OwnKernel], hints: Neighbours) -> dict[str, Candidate]:
        """Return the best of cuBLAS and of each own kernel.

        Args:
            case: of the signature.
            own: kernels that do not refuse it.
            hints: what is known around it: their sizes are tried too.

        Raises:
            ResourceError: cuBLAS itself is wrong, or the device broke down.
        """
        base: Runner = (tuned.cublas(case.signature), None)
        mode = cast("Mode", case.signature.mode)
        final = _Finalists({base: case.cublas_timer(mode)})
        final.errors[base] = case.error(final.timers[base])
        if not final.errors[base] <= 1:
            raise ResourceError(
                f"cuBLAS is wrong for {case.signature}: an element is {final.errors[base]:.3g} times its error bound "
                "away from float64, so nothing can be compared with it. Check the device."
            )
        for kernel in own:
            best = fastest(self._times(case, kernel, hints.config(kernel.name), final), FINALISTS)
            if best and mode == "eager" and kernel.name != PERSISTENT:
                best = [*best[:2], *short_chains(best[0], case.signature)]
            for config in best:
                self._admit(case, kernel, config, final)
        self._say(f"{self.title}: {len(final.timers)} finalists")
        return self._judged(final, base, own)

    def _times(self, case: Case, kernel: OwnKernel, hint: Config | None, final: _Finalists) -> Times:
        """Return the quick time of every candidate of a kernel; what cannot run takes forever."""
        call = case.signature._replace(mode="graph")
        if call != self._call:
            self._call, self._searched = call, {}
        if kernel.name in self._searched:
            return self._searched[kernel.name]
        limits = tuned.limits(case.signature.device)
        count = 0

        def time(config: Config) -> float:
            nonlocal count
            count += 1
            self._say(f"{self.title}: {kernel.name}, sizes {count}")
            try:
                return case.quick_ns(kernel, config)
            except Exception as fault:  # noqa: BLE001 (a compiler raises what it likes)
                final.reasons[kernel.name] = f"{config}: {_told(fault, case.device)}"
                return math.inf

        start = tuned.analytic_config(case.signature, limits)
        times = search(start, () if hint is None else (hint,), case.signature, limits, time, name=kernel.name)
        self._searched[kernel.name] = times
        return times

    def _admit(self, case: Case, kernel: OwnKernel, config: Config, final: _Finalists) -> None:
        """Take a candidate into the race if its results are right."""
        reason = tuned.failure(kernel, config, case.signature)
        if not reason:
            try:
                timer = case.timer(kernel, config, cast("Mode", case.signature.mode))
                error = case.error(timer)
            except Exception as fault:  # noqa: BLE001 (a compiler raises what it likes)
                reason = _told(fault, case.device)
            else:
                reason = "" if error <= 1 else f"an element is {error:.3g} times its error bound away from float64"
        if reason:
            final.reasons[kernel.name] = f"{config}: {reason}"
            return
        final.timers[kernel.name, config], final.errors[kernel.name, config] = timer, error

    def _judged(self, final: _Finalists, base: Runner, own: list[OwnKernel]) -> dict[str, Candidate]:
        medians, ratios = race(final.timers, base)
        found: dict[str, Candidate] = {}
        for runner in sorted(ratios, key=lambda runner: ratios[runner].value):  # the best of a name comes last
            name, config = runner
            ratio = ratios[runner]
            found[name] = Candidate(
                config=config,
                median_ns=medians[runner],
                speedup=ratio.value,
                low=ratio.low,
                high=ratio.high,
                rounds=ratio.num_rounds,
                error=final.errors[runner],
                checked=True,
            )
        for kernel in own:
            reason = final.reasons.get(kernel.name, "none of its sizes could run")
            found.setdefault(kernel.name, Candidate(None, None, 0.0, 0.0, 0.0, 0, 0.0, checked=False, reason=reason))
        return found


def _told(fault: Exception, device: torch.device) -> str:
    """Return what a fault says.

    Raises:
        ResourceError: it broke the device's context: nothing more can run in this process.
    """
    text = (str(fault).strip().splitlines() or [""])[0]
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            raise ResourceError(
                f"the device broke down ({type(fault).__name__}: {text}). Every choice made before is kept; run the "
                "same again, in a new process."
            ) from None
    return f"{type(fault).__name__}: {text}"
