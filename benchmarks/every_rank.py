# ruff: noqa: D400 (the first line is the whole question)
"""How long does one decomposition take that gives every rank of a layer, its factors at one rank and its damage at all?

Layers of 4096 and 14336 features, as in an 8B Llama's feed-forward, in bfloat16 as such models are stored; weights and
moments are drawn at random, the moments with a spectrum that falls by 10^4. One call warms the solvers up.

    python benchmarks/every_rank.py --output benchmarks/results/every-rank-h200.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import cache
from pathlib import Path

import torch

from _gpu import closing, opening, require_gpu, save

RESULTS = Path(__file__).parent / "results"
SHAPES = ((14336, 4096), (4096, 14336))  # E, D
RANK = 1024
REPEATS = 5
MOST_S = 3.0  # wanted


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", default=str(RESULTS / "every-rank-h200.json"), help="a JSON file, or - for none")
    arguments = parser.parse_args()
    require_gpu()
    began = time.perf_counter()
    record = {**opening((__doc__ or "").splitlines()[0]), "most_seconds": MOST_S, "rows": []}
    rows = [row(E, D, method) for E, D in SHAPES for method in ("one-sided", "two-sided")]
    save(arguments.output, {**record, "rows": rows, **closing(began)})


def row(E: int, D: int, method: str) -> dict[str, object]:
    """Return seconds of each repetition for one shape."""
    from narrows._values import Moments
    from narrows.decompose import weighted

    torch.manual_seed(0)
    weight_ED = (torch.randn(E, D, device="cuda") / D**0.5).bfloat16()
    moments = Moments(
        inputs=moment(D), mean=torch.zeros(D, dtype=torch.float64, device="cuda"), gradients=moment(E), tokens=32768
    )
    seconds = []
    for _ in range(REPEATS + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        found = weighted(weight_ED, moments, method=method)  # type: ignore[arg-type]
        found.factors(RANK, torch.bfloat16)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    told = {
        "out_features": E,
        "in_features": D,
        "method": method,
        "ranks": len(found.damages),
        "first_seconds": round(seconds[0], 3),
        "seconds": [round(one, 3) for one in seconds[1:]],
        "peak_bytes": torch.cuda.max_memory_allocated(),
    }
    print(f"{E} x {D} {method}: {statistics.median(seconds[1:]):.2f} s, the first {seconds[0]:.2f} s", flush=True)
    return told


@cache
def moment(size: int) -> torch.Tensor:
    """Return a symmetric positive definite matrix whose eigenvalues fall from 1 to 1e-4, float64 (size, size)."""
    basis, _ = torch.linalg.qr(torch.randn(size, size, device="cuda", dtype=torch.float64))
    return (basis * torch.logspace(0, -4, size, dtype=torch.float64, device="cuda")) @ basis.mT


if __name__ == "__main__":
    main()
