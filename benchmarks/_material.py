"""Operands of a point and the float64 side of its checks, for the benchmarks of one GPU.

Normal random data: zeros draw less power and let a GPU clock higher. Letters: N calls, T tokens,
D input, E output features, R rank.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from _race import Racer, said

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from _rows import Row
    from narrows import Factors, Problem
    from narrows.kernels import Kernel
    from narrows.kernels.tuned import Signature

AUTO = "auto"
CUBLAS = ("two", "three")


@dataclass(frozen=True)
class Way:
    """One way to run a thin chain.

    Attributes:
        name: "auto" for the public operation, else an implementation's.
        launches: of one call at least.
        pack: from plain factors to those that `run` takes.
        run: from x and packed factors to the result.
        refusal: why it cannot; empty when it can.
    """

    name: str
    launches: int
    pack: Callable[[Factors], Factors]
    run: Callable[[torch.Tensor, Factors], torch.Tensor]
    refusal: str


def ways(problem: Problem) -> tuple[Way, ...]:
    """Return every way to run a thin chain: each implementation, then the public operation with impl="auto"."""
    import narrows
    from narrows.kernels import kernels_for

    found = [_way(kernel, problem) for kernel in kernels_for(problem.kind)]
    operation = narrows.linear if problem.kind == "linear" else narrows.bilinear
    least = min(way.launches for way in found if not way.refusal)

    def pack(factors: Factors) -> Factors:
        return factors if problem.kind == "linear" else factors.interleaved()

    return (*found, Way(AUTO, least, pack, lambda x, factors: operation(x, factors, impl=AUTO), ""))


def _way(kernel: Kernel, problem: Problem) -> Way:
    refusal = kernel.refuses(problem)
    launches = 1 if refusal else kernel.launches(problem)
    return Way(kernel.name, launches, kernel.pack, kernel.run, refusal)


def normal(*shape: int, seed: int, device: str, dtype: torch.dtype) -> torch.Tensor:
    """Return standard normal values."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=device, dtype=dtype)


def make_factors(rank: int, problem: Problem, *, seed: int, device: str) -> Factors:
    """Return plain contiguous factors, scaled so that results are about as large as x."""
    import torch

    from narrows import Factors

    dtype, scale = getattr(torch, problem.dtype), problem.in_features**-0.5
    a = normal(rank, problem.in_features, seed=seed, device=device, dtype=dtype)
    b = normal(rank, problem.out_features, seed=seed + 1, device=device, dtype=dtype)
    return Factors(a.mul_(scale), b.mul_(scale))


def checked_calls(count: int) -> tuple[int, ...]:
    """Return which calls are compared with float64: the first and the last."""
    return (0, count - 1) if count > 1 else (0,)


@dataclass(frozen=True)
class Peak:
    """Memory of one call against what it may take.

    Attributes:
        requested: bytes that a call asked the allocator for at its peak, operands not counted.
        output, middle: bytes of the result, and of what is R wide between two matmuls.
        workspace: of partial sums, from the sizes that the call is launched with.
    """

    requested: int
    output: int
    middle: int
    workspace: int

    @property
    def is_within(self) -> bool:
        """Say whether the call took no more than it may."""
        return self.requested <= self.output + self.middle + self.workspace


def peak_of(call: Callable[[], object], *, problem: Problem, rank: int, workspace: int) -> Peak:
    """Return the peak of one call on the current CUDA device, after a first one that fills caches."""
    import torch

    from narrows._cost import thin_cost

    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()["requested_bytes.all.current"]
    call()
    torch.cuda.synchronize()
    cost = thin_cost(problem, rank)
    requested = torch.cuda.memory_stats()["requested_bytes.all.peak"] - before
    return Peak(requested, cost.bytes_written, cost.intermediate_bytes, workspace)


def peak_row(way: Way, x: torch.Tensor, factors: Factors, problem: Problem, **where: object) -> Row:
    """Return the row of what memory one host-launched call takes; `where` names the point."""
    row = {**where, "mode": "memory", "variant": way.name, "rank": factors.rank, "status": "ok", "reason": ""}
    try:
        packed = way.pack(factors)
        workspace = workspace_bytes(way.name, problem, factors.rank, mode="eager")
        peak = peak_of(lambda: way.run(x, packed), problem=problem, rank=factors.rank, workspace=workspace)
    except Exception as fault:  # noqa: BLE001 (a row that failed is a result; the others go on)
        return {**row, "status": "failed", "reason": said(fault)}
    return {**row, **asdict(peak), "is_within": peak.is_within}


def refused(way: Way, rank: int) -> Racer:
    """Return the racer of a way that cannot run this: it has no time, and says why."""

    def never(_: int) -> torch.Tensor:
        raise AssertionError(way.refusal)

    return Racer(way.name, rank, never, 0, {}, status="refused", reason=way.refusal)


def workspace_bytes(name: str, problem: Problem, rank: int, *, mode: str) -> int:
    """Return the bytes of float32 partial sums that an implementation states through its launch sizes."""
    from narrows.kernels.tuned import config, implementation

    signature = _signature(problem, rank, mode)
    name = implementation(signature) if name == AUTO else name
    if name in CUBLAS:
        return 0
    split = config(name, signature).project.split
    return 4 * split * problem.tokens * signature.rows if split > 1 else 0


def chosen(way: Way, problem: Problem, rank: int, *, mode: str) -> str:
    """Return which implementation and sizes impl="auto" runs on a CUDA device; empty for another way or device."""
    if way.name != AUTO or problem.device == "cpu":
        return ""
    from narrows.kernels.tuned import config, implementation

    signature = _signature(problem, rank, mode)
    name = implementation(signature)
    return name if name in CUBLAS else f"{name} {config(name, signature)}"


def _signature(problem: Problem, rank: int, mode: str) -> Signature:
    import torch

    from narrows.kernels.tuned import Signature

    return Signature(
        kind=problem.kind,
        tokens=problem.tokens,
        other_tokens=problem.other_tokens or 0,
        in_features=problem.in_features,
        out_features=problem.out_features,
        rank=rank,
        heads=problem.heads,
        dtype=problem.dtype,
        mode=mode,
        device=torch.cuda.current_device(),
    )
