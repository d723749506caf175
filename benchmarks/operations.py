# ruff: noqa: D400, E501 (the first line is the whole question)
"""What do narrows.linear and narrows.bilinear cost over the same matmuls written by hand, and which share of the FLOP-ratio speedup do they reach?

Two parts, both in eager float32 on the CPU, hot. Sides are interleaved: a round takes one sample of
each side, and every figure is the median of per-round ratios with a 99 % bootstrap interval.
Overhead: at 64 tokens the call against the same two matmuls in plain torch.
Share: (dense time / thin time) / (dense FLOPs / thin FLOPs); "dense" is x W^T for linear and the
origin's (x W^T) x^T for bilinear; each side with a fresh result and with a reused one.
The least time that this machine's measured ceilings allow stands beside each thin time.

    python benchmarks/operations.py                                     about 3 minutes
    python benchmarks/operations.py --width 256 --tokens 64 --ranks 16 --seconds 2 --output -
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from narrows._values import Ceilings, Factors, Kind

    Call = Callable[[], object]

OUTPUT = Path(__file__).parent / "results" / "operations-cpu.json"
FEWEST_ROUNDS = 5  # at 4096 tokens a round of all ranks takes 5 s on two cores
MOST_OVERHEAD = 1.15
OVERHEAD_CALLS = 20  # a sample of about 10 ms, so that a 10 us step of the clock is 0.1 %


@dataclass(frozen=True)
class Case:
    """One side by side measurement: `dense` or `by hand` against one thin call."""

    question: str
    kind: Kind
    tokens: int
    rank: int
    output: str
    call: Call
    against: Call
    calls: int = 1


def main() -> int:
    """Measure, print, record; 1 when a call costs more than the target over the matmuls by hand."""
    arguments = parse()
    import torch

    import narrows
    from narrows._machine import ceilings

    torch.manual_seed(arguments.seed)
    began = time.perf_counter()
    with torch.inference_mode():
        rows = overhead_rows(arguments, arguments.seconds * 0.15)
        limits = ceilings("cpu", "float32", seconds=min(4.0, arguments.seconds * 0.1))
        rows += share_rows(arguments, limits, arguments.seconds * 0.75)
    record = {
        "question": (__doc__ or "").splitlines()[0],
        "machine": asdict(narrows.machine()),
        "ceilings": asdict(limits),
        "width": arguments.width,
        "seed": arguments.seed,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": narrows.__version__,
        "seconds": round(time.perf_counter() - began, 1),
        "rows": rows,
    }
    show(rows)
    if arguments.output != "-":
        Path(arguments.output).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten: {arguments.output} ({record['seconds']} s)")
    return int(any(row["question"] == "overhead" and row["ratio"]["value"] > MOST_OVERHEAD for row in rows))


def parse() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=4096, help="D = E (default 4096)")
    parser.add_argument("--tokens", type=numbers, default=[1024, 2048, 4096], help="default 1024,2048,4096")
    parser.add_argument("--ranks", type=numbers, default=[64, 128, 256, 512], help="default 64,128,256,512")
    parser.add_argument("--seconds", type=float, default=170.0, help="for both parts together (default 170)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=str(OUTPUT), help="a file, or - for none")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    """Return the numbers of a comma list."""
    return [int(part) for part in text.split(",")]


def make_factors(rank: int, width: int) -> Factors:
    """Return Gaussian factors, interleaved."""
    import torch

    from narrows import Factors

    return Factors(torch.randn(rank, width), torch.randn(rank, width)).interleaved()


def overhead_rows(arguments: argparse.Namespace, seconds: float) -> list[dict[str, object]]:
    """Return narrows' call against the same two matmuls by hand, at 64 tokens and rank 64."""
    import torch

    import narrows

    tokens, rank, width = 64, min(64, arguments.width), arguments.width
    x, interleaved = torch.randn(tokens, width), make_factors(rank, width)
    a, b, rows = interleaved.a.contiguous(), interleaved.b.contiguous(), interleaved.pair.view(2 * rank, width)
    plain = narrows.Factors(a, b)

    def two_by_hand() -> torch.Tensor:
        both = rows @ x.mT
        return both[0::2].mT @ both[1::2]

    def three_by_hand() -> torch.Tensor:
        return (x @ a.mT) @ (x @ b.mT).mT

    cases = [
        Case("overhead", "linear", tokens, rank, "two", lambda: narrows.linear(x, plain), lambda: (x @ a.mT) @ b),
        Case("overhead", "bilinear", tokens, rank, "two", lambda: narrows.bilinear(x, interleaved), two_by_hand),
        Case("overhead", "bilinear", tokens, rank, "three", lambda: narrows.bilinear(x, plain), three_by_hand),
    ]
    cases = [Case(**{**vars(case), "calls": OVERHEAD_CALLS}) for case in cases]
    return [{**row, "target": MOST_OVERHEAD} for row in measure(cases, seconds, fewest=20)]


def share_rows(arguments: argparse.Namespace, limits: Ceilings, seconds: float) -> list[dict[str, object]]:
    """Return the thin chain against the dense one, at every length and rank."""
    rows: list[dict[str, object]] = []
    work = {t: t * (1 + t / arguments.width) for t in arguments.tokens}
    for tokens in arguments.tokens:
        for kind in ("linear", "bilinear"):
            part = seconds * work[tokens] / sum(work.values()) / 2
            measured = measure(share_cases(kind, tokens, arguments), part)
            rows += [with_share(row, arguments.width, limits) for row in measured]
    return rows


def share_cases(kind: Kind, tokens: int, arguments: argparse.Namespace) -> list[Case]:
    """Return every rank against dense, with a fresh and with a reused result."""
    import torch

    import narrows
    from narrows.kernels import dense_run, kernel

    width = arguments.width
    x, weight = torch.randn(tokens, width), torch.randn(width, width)
    association = "linear" if kind == "linear" else "left"
    operation = narrows.linear if kind == "linear" else narrows.bilinear
    thin, out = kernel(kind, "two"), torch.empty(tokens, width if kind == "linear" else tokens)
    cases = []
    for rank in arguments.ranks:
        factors = make_factors(rank, width)
        cases += [
            Case(
                "share", kind, tokens, rank, "fresh",
                lambda f=factors: operation(x, f),
                lambda: dense_run(association, x, weight),
            ),
            Case(
                "share", kind, tokens, rank, "reused",
                lambda f=factors: thin.run(x, f, out=out),
                lambda: dense_run(association, x, weight, out=out),
            ),
        ]  # fmt: skip
    return cases


def measure(cases: list[Case], seconds: float, *, fewest: int = FEWEST_ROUNDS) -> list[dict[str, object]]:
    """Return one row a case: rounds of (each distinct dense side once, every thin side once)."""
    from narrows._stats import paired_ratio

    samples: dict[int, tuple[list[float], list[float]]] = {i: ([], []) for i in range(len(cases))}
    for case in cases:  # warm up: first calls allocate and choose
        case.call(), case.against()
    end, num_rounds = time.perf_counter() + seconds, 0
    while num_rounds < fewest or time.perf_counter() < end:
        order = range(len(cases)) if num_rounds % 2 == 0 else reversed(range(len(cases)))
        dense: dict[tuple[str, str], float] = {}
        for i in order:
            case = cases[i]
            # One dense sample of a round serves all ranks: it does not depend on them.
            key = (case.output, case.kind)
            if key not in dense or case.question == "overhead":
                dense[key] = sample(case.against, case.calls)
            samples[i][0].append(dense[key])
            samples[i][1].append(sample(case.call, case.calls))
        num_rounds += 1
    rows = []
    for i, case in enumerate(cases):
        against, own = samples[i]
        pair = (own, against) if case.question == "overhead" else (against, own)
        rows.append(
            {
                "question": case.question,
                "kind": case.kind,
                "tokens": case.tokens,
                "rank": case.rank,
                "output": case.output,
                "ratio": asdict(paired_ratio(*pair)),
                "samples_ns": own,
                "against_ns": against,
            }
        )
    return rows


def sample(call: Call, calls: int) -> float:
    """Return the nanoseconds of one call, the mean of `calls`."""
    began = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return (time.perf_counter_ns() - began) / calls


def with_share(row: dict[str, object], width: int, limits: Ceilings) -> dict[str, object]:
    """Add the speedup that the FLOPs promise, the share reached, and what the ceilings allow."""
    from narrows import Problem
    from narrows._cost import dense_cost, limit_ns, thin_cost

    problem = Problem(row["kind"], row["tokens"], width, width)
    thin, dense = thin_cost(problem, row["rank"]), dense_cost(problem, "linear" if row["kind"] == "linear" else "left")
    promised = dense.flops / thin.flops
    limit = limit_ns(thin, 2, limits, mode="eager", cache="hot")
    own = statistics.median(row["samples_ns"])
    return {
        **row,
        "promised": promised,
        "share": row["ratio"]["value"] / promised,
        "limit_ns": limit,
        "share_of_limit": limit / own,
        "thin_flops_per_s": thin.flops / own * 1e9,
        "dense_flops_per_s": dense.flops / statistics.median(row["against_ns"]) * 1e9,
    }


def show(rows: list[dict[str, object]]) -> None:
    """Print both tables."""
    print("kind      tokens  rank  against                time ratio [99 %]        wanted")
    for row in (r for r in rows if r["question"] == "overhead"):
        ratio = row["ratio"]
        print(
            f"{row['kind']:9} {row['tokens']:6} {row['rank']:5}  by hand ({row['output']:5})    "
            f"{ratio['value']:10.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]   <= {row['target']}"
        )
    print(
        "\nkind      tokens  rank  output  speedup [99 %]               by FLOPs   share  of the limit  GFLOP/s thin, dense"
    )
    for row in (r for r in rows if r["question"] == "share"):
        ratio = row["ratio"]
        print(
            f"{row['kind']:9} {row['tokens']:6} {row['rank']:5}  {row['output']:6} {ratio['value']:8.2f} "
            f"[{ratio['low']:7.2f}, {ratio['high']:7.2f}] {row['promised']:12.2f} {row['share']:7.0%} "
            f"{row['share_of_limit']:13.0%}   "
            f"{row['thin_flops_per_s'] / 1e9:8.0f}, {row['dense_flops_per_s'] / 1e9:.0f}"
        )


if __name__ == "__main__":
    sys.exit(main())
