"""One small call of every own kernel, with ragged tails: what benchmarks/sanitize.sh runs under compute-sanitizer.

    python benchmarks/_sanitize_calls.py                   every own kernel
    python benchmarks/_sanitize_calls.py --plant memcheck  a kernel that reads outside, which the tool must report
    python benchmarks/_sanitize_calls.py --plant racecheck a kernel whose threads race in shared memory

Letters: T tokens, U other tokens, D input, E output features, R rank, H heads, G key heads, F width of a value.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from _gpu import require_gpu
from _race import said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from narrows import Factors

    Call = Callable[[], object]

OWN = ("triton", "gluon")
DTYPES = ("bfloat16", "float16", "float32")
# (T, U, D, E, R): one row, one less and one more than a tile, primes; D = E for Y = X.
SIZES = ((1, 63, 100, 100, 5), (65, 17, 136, 136, 16), (129, 131, 264, 264, 40))
# Whole tiles of a multiple of 64, which kernels without bounds checks ask for.
WHOLE = (256, 256, 512, 512, 64)


class Material:
    """Makes normal random operands of one dtype on one device."""

    def __init__(self, device: str, dtype: str) -> None:
        import torch

        self._device, self._dtype = device, getattr(torch, dtype)
        self._generator = torch.Generator().manual_seed(0)

    def tensor(self, *shape: int) -> torch.Tensor:
        """Return a normal random tensor, made on the CPU so that no other kernel runs."""
        import torch

        return torch.randn(*shape, generator=self._generator).to(self._dtype).to(self._device)

    def factors(self, rank: int, in_features: int, out_features: int) -> Factors:
        """Return plain factors."""
        from narrows import Factors

        return Factors(self.tensor(rank, in_features), self.tensor(rank, out_features))


def calls(device: str, dtype: str, sizes: tuple[tuple[int, ...], ...] = (*SIZES, WHOLE)) -> Iterator[tuple[str, Call]]:
    """Yield (name, call) of every own kernel at every size."""
    make = Material(device, dtype)
    for T, U, D, E, R in sizes:
        for name in OWN:
            at = f"{name} {dtype} T={T} U={U} D={D} E={E} R={R}"
            yield from _bilinear(make, name, at, (T, U, D, R))
            yield from _linear(make, name, at, (T, D, E, R))
        yield from _attention(make, f"triton {dtype} U={U} R={R}", (U, R))
        yield f"score gradients {dtype} T={T} U={U} R={R}", _gradients(make, (T, U, R))


def _bilinear(make: Material, name: str, at: str, sizes: tuple[int, ...]) -> Iterator[tuple[str, Call]]:
    from narrows import bilinear

    T, U, D, R = sizes
    x, y, mask, factors = make.tensor(T, D), make.tensor(U, D), make.tensor(T, T), make.factors(R, D, D)
    pair = factors.interleaved()
    yield f"bilinear {at}, Y = X", lambda: bilinear(x, pair, impl=name)
    yield f"bilinear {at}, y of its own", lambda: bilinear(x, factors, y, impl=name)
    yield (
        f"bilinear {at}, causal with scale and cap",
        lambda: bilinear(x, pair, scale=0.5, softcap=9.0, causal=True, impl=name),
    )
    yield f"bilinear {at}, mask", lambda: bilinear(x, pair, mask=mask, impl=name)
    yield f"bilinear {at}, boolean mask", lambda: bilinear(x, pair, mask=mask > 0, impl=name)


def _linear(make: Material, name: str, at: str, sizes: tuple[int, ...]) -> Iterator[tuple[str, Call]]:
    from narrows import gated_linear, linear, linear_group

    T, D, E, R = sizes
    x, factors, other = make.tensor(T, D), make.factors(R, D, E), make.factors(R, D, E)
    bias, middle, residual = make.tensor(E), make.tensor(R), make.tensor(T, E)
    yield f"linear {at}", lambda: linear(x, factors, impl=name)
    yield (
        f"linear {at}, epilogue",
        lambda: linear(x, factors, bias, activation="gelu", residual=residual, middle_bias=middle, impl=name),
    )
    yield f"linear group {at}", lambda: linear_group(x, (factors, other), (bias, None), impl=name)
    yield f"gated linear {at}", lambda: gated_linear(x, factors, other, bias, impl=name)


def _attention(make: Material, at: str, sizes: tuple[int, int]) -> Iterator[tuple[str, Call]]:
    from narrows.ops import attend

    U, R = sizes
    q, k, v = make.tensor(2, 4, 1, R), make.tensor(2, 2, U, R), make.tensor(2, 2, U, 24)
    yield f"attention {at}", lambda: attend(q, k, v, scale=0.25, impl="triton")


def _gradients(make: Material, sizes: tuple[int, int, int]) -> Call:
    from narrows import kernels

    T, U, R = sizes
    grad, p, q = make.tensor(T, U), make.tensor(T, R), make.tensor(U, R)
    return lambda: kernels.score_gradients(grad, p, q)


def run_all(device: str, dtypes: tuple[str, ...] = DTYPES, **more: object) -> tuple[int, list[str], list[str]]:
    """Return how many calls ran, what was refused (once each) and what failed, with reasons."""
    import torch

    from narrows.errors import ImplementationError

    ran, refused, failed = 0, dict[str, None](), list[str]()
    for dtype in dtypes:
        for name, call in calls(device, dtype, **more):  # type: ignore[arg-type]
            try:
                call()
                if device == "cuda":
                    torch.cuda.synchronize()
            except ImplementationError as fault:
                refused[str(fault)] = None
            except Exception as fault:  # noqa: BLE001 (counted, printed, and the exit status is 1)
                failed.append(f"{name}: {said(fault)}")
            else:
                ran += 1
    return ran, list(refused), failed


def main() -> int:
    """Run what is asked; 1 when a call failed or none ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--plant", choices=("memcheck", "racecheck"))
    planted = parser.parse_args().plant
    require_gpu()
    if planted:
        import _planted

        _planted.read_outside() if planted == "memcheck" else _planted.race()
        return 0
    ran, refused, failed = run_all("cuda")
    for reason in refused:
        print(f"not shown: {reason}")
    for each in failed:
        print(f"failed: {each}")
    print(f"calls: {ran}")
    return int(bool(failed) or not ran)


if __name__ == "__main__":
    sys.exit(main())
