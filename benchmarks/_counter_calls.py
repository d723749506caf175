"""The thin chain as a captured graph would run it, a few calls of each length: what benchmarks/counters.py profiles.

python benchmarks/_counter_calls.py 2048,4096 64
"""

from __future__ import annotations

import sys

from _gpu import numbers, require_gpu
from _material import make_factors, normal

WIDTH, CALLS = 4096, 3


def main(lengths: tuple[int, ...], rank: int) -> None:
    """Run every length CALLS times, each with an x of its own and then a plain copy of it; profile the last time."""
    import torch

    from narrows import Problem
    from narrows.kernels import Epilogue
    from narrows.ops._bilinear_choice import own_kernel

    with torch.inference_mode():
        for tokens in lengths:
            problem = Problem("bilinear", tokens, WIDTH, WIDTH, dtype="bfloat16", device="cuda")
            factors = make_factors(rank, problem, seed=2, device="cuda").interleaved()
            x_NTD = normal(CALLS, tokens, WIDTH, seed=tokens, device="cuda", dtype=torch.bfloat16)
            for number, x in enumerate(x_NTD):
                chosen, config = own_kernel("auto", x, factors, None, Epilogue(), "graph") or (None, None)
                if chosen is None:
                    raise SystemExit(f"auto runs no own kernel at {tokens} tokens, rank {rank}")
                torch.cuda.synchronize()
                if number == CALLS - 1:
                    torch.cuda.profiler.start()
                chosen.run_with(config, x, factors, None, epilogue=Epilogue())
                torch.empty_like(x).copy_(x)
                torch.cuda.synchronize()
                torch.cuda.profiler.stop()


if __name__ == "__main__":
    require_gpu()
    main(numbers(sys.argv[1]), int(sys.argv[2]))
