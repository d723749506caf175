"""Whether any time changed beyond doubt between two reports of the same experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows._stats import median, unpaired_ratio
from narrows.errors import ConditionsError, InputError

if TYPE_CHECKING:
    from narrows._stats import Ratio
    from narrows._values import Report, Row

Key = tuple[int, int | None, str, str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One row measured in both reports.

    Attributes:
        tokens, rank, variant, mode, cache: which row; rank None is dense.
        a_ns, b_ns: medians.
        ratio: time in A / time in B: above 1, B is faster; its ends divide those of the middle 90 % of
            each run's samples; its verdict "tie" means not distinguishable (they reach into 1 / 1.02 .. 1.02).
    """

    tokens: int
    rank: int | None
    variant: str
    mode: str
    cache: str
    a_ns: float
    b_ns: float
    ratio: Ratio


@dataclass(frozen=True, slots=True)
class Differences:
    """What two reports say about each other.

    Attributes:
        rows: measured in both, in A's order.
        only_a, only_b: rows that just one of them measured.
        conditions: what differs between the runs (empty unless forced).
    """

    rows: tuple[Difference, ...]
    only_a: tuple[Row, ...]
    only_b: tuple[Row, ...]
    conditions: tuple[str, ...]

    @property
    def slower(self) -> tuple[Difference, ...]:
        """Rows in which B is slower than A by more than 2 %, beyond doubt."""
        return tuple(row for row in self.rows if row.ratio.verdict == "slower")

    @property
    def faster(self) -> tuple[Difference, ...]:
        """Rows in which B is faster than A by more than 2 %, beyond doubt."""
        return tuple(row for row in self.rows if row.ratio.verdict == "faster")


def compare(a: Report, b: Report, *, force: bool = False) -> Differences:
    """Return the ratio of times, A / B, of every row that both reports measured, and how far it can be known.

    The runs were not interleaved, so what changed the whole machine between them is in the ratio; a change is said
    only where the middle 90 % of the samples of both runs lie more than 2 % apart.

    Args:
        force: compare although the conditions differ.

    Raises:
        ConditionsError: the reports were measured under different conditions; it lists which.
        InputError: no row was measured in both.
    """
    conditions = differing_conditions(a, b)
    if conditions and not force:
        raise ConditionsError(
            "The reports were measured under different conditions: "
            + " ".join(conditions)
            + " Measure under the same ones, or force the comparison.",
            conditions,
        )
    in_a, in_b = _by_key(a), _by_key(b)
    rows = tuple(_difference(in_a[key], in_b[key]) for key in in_a if key in in_b)
    if not rows:
        raise InputError(
            f"No row was measured in both reports (A has {len(in_a)}, B has {len(in_b)} measured rows). "
            "Measure the same tokens, ranks, modes and caches."
        )
    return Differences(
        rows=rows,
        only_a=tuple(row for key, row in in_a.items() if key not in in_b),
        only_b=tuple(row for key, row in in_b.items() if key not in in_a),
        conditions=conditions,
    )


def _by_key(report: Report) -> dict[Key, Row]:
    return {(r.tokens, r.rank, r.variant, r.mode, r.cache): r for r in report.rows if r.samples_ns}


def _difference(a: Row, b: Row) -> Difference:
    return Difference(
        tokens=a.tokens,
        rank=a.rank,
        variant=a.variant,
        mode=a.mode,
        cache=a.cache,
        a_ns=median(a.samples_ns),
        b_ns=median(b.samples_ns),
        ratio=unpaired_ratio(a.samples_ns, b.samples_ns),
    )


def differing_conditions(a: Report, b: Report) -> tuple[str, ...]:
    """Return one sentence for each condition that differs: machine, software, shapes, dtype, seed, weights, version."""
    of_a, of_b = _conditions(a), _conditions(b)
    names = [*of_a, *(name for name in of_b if name not in of_a)]
    return tuple(
        f"{name}: {of_a.get(name, 'absent')} in A, {of_b.get(name, 'absent')} in B."
        for name in names
        if of_a.get(name) != of_b.get(name)
    )


def _conditions(report: Report) -> dict[str, str]:
    experiment, machine = report.experiment, report.machine
    found: dict[str, object] = {
        "machine fingerprint": machine.fingerprint,
        "machine": machine.name,
        "threads": machine.threads,
        **{f"software {name}": version for name, version in machine.software.items()},
        "narrows": report.version,
        "kind": experiment.kind,
        "in_features": experiment.in_features,
        "out_features": experiment.out_features,
        "heads": experiment.heads,
        "kv_heads": experiment.kv_heads,
        "other_tokens": experiment.other_tokens,
        "dtype": experiment.dtype,
        "device": experiment.device,
        "seed": experiment.seed,
        "input": report.inputs,
        **{f"weight {weight.name} sha256": weight.sha256 for weight in report.weights},
    }
    return {name: str(value) for name, value in found.items()}
