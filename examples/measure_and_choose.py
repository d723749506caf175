"""Measure one layer at a few ranks, choose a rank for every length under an error budget, and run it.

Takes about 20 seconds: the sizes are small and the time is bounded, so expect wide intervals.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import narrows


def main() -> None:
    """Print the plan, and how far the chosen factors are from the layer."""
    generator = torch.Generator().manual_seed(0)
    thin = [torch.randn(size, 32, generator=generator) for size in (512, 256)]
    weight = thin[0] @ thin[1].T  # (E, D) = (512, 256), of true rank 32

    problem = narrows.Problem(kind="linear", tokens=256, in_features=256, out_features=512)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "measurements.sqlite"
        report = narrows.measure(problem, ranks=(16, 32, 64), weight=weight, tokens=(64, 256), minutes=0.3, store=store)

    plan = narrows.choose(report, narrows.Budget(error=0.01))
    for choice in plan.choices:
        what = "dense" if choice.rank is None else f"rank {choice.rank} ({choice.implementation})"
        print(f"{choice.tokens_from}..{choice.tokens_to} tokens: {what}")
        print(*(f"    {reason}" for reason in choice.reasons), sep="\n")

    tokens = plan.choices[-1].tokens_to  # 256, or less where the time was too short for it
    x = torch.randn(tokens, 256, generator=generator)
    rank = plan.at(tokens).rank or 32
    y = narrows.linear(x, narrows.factorize(weight, rank=rank))
    dense = x @ weight.T
    print(f"rank {rank}: relative error {(y - dense).norm() / dense.norm():.1e}")


if __name__ == "__main__":
    main()
