"""The self-check: an own kernel's sizes are run on exact integers before their first use in a process.

Compilers have translated two dependent matmuls wrongly without an error (github.com/triton-lang/triton,
issue 5424; github.com/openxla/xla, issue 19780): what was right when it was measured may be wrong with another
compiler, driver or device.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol, cast

import torch

from narrows._oracle import Operands, exact_operands, poisoned
from narrows._values import Factors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from narrows.kernels._config import Config
    from narrows.kernels.tuned._signature import Signature

# Tokens beyond whole tiles, by whether 16 divides the call's: Triton compiles the two apart.
RAGGED = {True: 16, False: 17}
# 400 tiles of 128 x 128 for the 132 programs of an H200; how many features there are is the projection's affair.
PERSISTENT_TOKENS = 2560
PERSISTENT_FEATURES = 64
Kind = Literal["linear", "bilinear"]


class OwnKernel(Protocol):
    """What is asked of an own kernel here: a `Kernel` that also runs with sizes given.

    One that needs T and U to be multiples of a number has it as `granule`.
    """

    @property
    def name(self) -> str: ...

    def pack(self, factors: Factors) -> Factors: ...

    # Any: a bilinear kernel takes y after the factors, a linear one its epilogue.
    @property
    def run_with(self) -> Callable[..., Tensor]: ...


_failures: dict[tuple[object, ...], str] = {}


def is_known(kernel: OwnKernel, config: Config, signature: Signature) -> bool:
    """Say whether this process has checked these sizes already."""
    return _key(kernel, config, signature) in _failures


def failure(kernel: OwnKernel, config: Config, signature: Signature) -> str:
    """Return what is wrong with an own kernel at these sizes; empty when its results are right bit for bit.

    Checked once a process for each device, kernel, config, rank, features and dtype.

    Args:
        kernel: any that has `run_with`.
        config: its sizes.
        signature: of the call; the check runs few tokens, of the same divisibility.

    Raises:
        torch.OutOfMemoryError: the device has no memory left for the check.
    """
    key = _key(kernel, config, signature)
    if key not in _failures:
        _failures[key] = _checked(kernel, config, signature)
    return _failures[key]


def verified(kernel: OwnKernel, config: Config, signature: Signature) -> bool:
    """Say whether an own kernel's results are right bit for bit at these sizes; see `failure`."""
    return not failure(kernel, config, signature)


def forget() -> None:
    """Check everything again on its next use."""
    _failures.clear()


def _key(kernel: OwnKernel, config: Config, signature: Signature) -> tuple[object, ...]:
    features = (signature.in_features, signature.out_features, signature.rank, signature.heads > 1)
    rows = (signature.is_self, _is_even(signature))
    return (signature.device, signature.kind, kernel.name, config, features, signature.dtype, *rows)


def _is_even(signature: Signature) -> bool:
    return signature.tokens % 16 == 0 and signature.other_tokens % 16 == 0


def _checked(kernel: OwnKernel, config: Config, signature: Signature) -> str:
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda", signature.device) if has_gpu else torch.device("cpu")
    with torch.no_grad(), torch.cuda.device(device) if has_gpu else nullcontext():
        for sizes in _sizes(config, signature, getattr(kernel, "granule", 1)):
            try:
                wrong = _wrong(kernel, config, _operands(signature, sizes), device, is_self=signature.is_self)
            except torch.OutOfMemoryError:
                raise
            except Exception as fault:  # noqa: BLE001 (a compiler raises what it likes: none of it may reach a matmul)
                return f"{type(fault).__name__}: {str(fault).strip().splitlines()[0] if str(fault).strip() else ''}"
            if wrong:
                T, U = sizes[:2]
                return f"{wrong} elements of an exact result are wrong at T={T}, U={U}"
    return ""


Sizes = tuple[int, int, int, int]  # T, U, D, E


def _sizes(config: Config, signature: Signature, granule: int) -> Iterator[Sizes]:
    """Yield small problems that compile to the same code: whole tiles, and a ragged last one.

    Args:
        config, signature: of the call.
        granule: that T and U must be multiples of.
    """
    if granule > 1:  # a persistent kernel: several tiles for each program, so that its buffers come round again
        many = PERSISTENT_TOKENS + (16 if _is_even(signature) else granule)
        narrow = _small(min(signature.in_features, signature.out_features), PERSISTENT_FEATURES)
        yield many, many, narrow, narrow
    tile = max(config.project.m, config.second.m, config.second.n)
    inner = config.project.k * config.project.split
    # The number of steps over D is compiled in; the interpreter is slow.
    D = signature.in_features if torch.cuda.is_available() else _small(signature.in_features, inner)
    E = D if signature.is_self and signature.kind == "bilinear" else _small(signature.out_features, inner)
    ragged = RAGGED[_is_even(signature)]
    for tokens in (tile, tile + -(-ragged // granule) * granule):
        yield tokens, (tokens if signature.is_self else tokens + tile // 2), D, E


def _small(features: int, period: int) -> int:
    """Return at most three periods of features, with the same remainder."""
    return min(features, 2 * period + features % period)


@lru_cache(maxsize=16)
def _exact(kind: Kind, sizes: Sizes, rank: int, dtype: torch.dtype, *, is_self: bool) -> Operands:
    T, U, D, E = sizes
    with torch.device("cpu"):  # a default device must not reach the generators
        return exact_operands(
            kind,
            tokens=T,
            in_features=D,
            out_features=E,
            rank=rank,
            dtype=dtype,
            other_tokens=U,
            is_self=is_self and kind == "bilinear",
        )


def _operands(signature: Signature, sizes: Sizes) -> Operands:
    """Return exact operands; with heads, two of them, the second one negated."""
    kind, dtype = cast("Kind", signature.kind), getattr(torch, signature.dtype)
    found = _exact(kind, sizes, signature.rank, dtype, is_self=signature.is_self)
    if signature.heads == 1:
        return found
    assert found.expected is not None
    a, expected = (torch.stack([t, -t]) for t in (found.a, found.expected))
    return Operands(found.x, a, torch.stack([found.b, found.b]), found.y, expected)


def _wrong(kernel: OwnKernel, config: Config, operands: Operands, device: torch.device, *, is_self: bool) -> int:
    """Return how many elements of the result are not exactly right, in memory that held NaN."""
    assert operands.expected is not None
    x, expected = operands.x.to(device), operands.expected.to(device)
    y = None if is_self or operands.y is None else operands.y.to(device)
    factors = kernel.pack(Factors(operands.a.to(device), operands.b.to(device)))
    out = poisoned(expected.shape, expected.dtype, device)
    kernel.run_with(config, x, factors, *(() if y is None else (y,)), out=out)  # linear kernels take no y
    return int((out != expected).sum())
