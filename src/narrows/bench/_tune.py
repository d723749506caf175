"""`tune`: measures which implementation, and which sizes, run a call fastest on this device, and keeps the answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from narrows._machine import machine
from narrows._values import KINDS, MODES, Problem, dtype_name
from narrows.bench._tune_run import Tuner
from narrows.errors import DeviceError, InputError, RankError, ResourceError
from narrows.kernels import tuned
from narrows.kernels.tuned import Entry, Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from narrows._values import Kind, Mode
    from narrows.bench._sweep import Progress

TUNE_MINUTES = 30.0
ORIGIN_SHAPES = ((4096, 4096),)
ORIGIN_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
ORIGIN_RANKS = (64, 128, 256)


def tune(
    *,
    shapes: Sequence[tuple[int, int]] = ORIGIN_SHAPES,
    tokens: Sequence[int] = ORIGIN_TOKENS,
    ranks: Sequence[int] = ORIGIN_RANKS,
    kinds: Sequence[Kind] = ("bilinear", "linear"),
    modes: Sequence[Mode] = ("graph", "eager"),
    dtype: str = "bfloat16",
    device: str = "cuda",
    minutes: float = TUNE_MINUTES,
    again: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[Entry, ...]:
    """Measure implementations and sizes for these calls, keep the best, and return what is known of them.

    Choices are kept for this user and device as soon as each is made; `linear` and `bilinear` with
    impl="auto" use them from then on. What was measured with the same versions is not measured again.

    Args:
        shapes: (D, E) each; a bilinear call has Y = X and needs D = E.
        tokens, ranks: whole numbers.
        kinds: "bilinear", "linear".
        modes: "graph" (within a CUDA graph), "eager".
        dtype: of the operands.
        device: "cuda" or "cuda:1".
        minutes: after which no further call is begun.
        again: measure also what is known.
        progress: called before every step.

    Raises:
        ResourceError: there is no CUDA device, or the choices cannot be kept.
        InputError: a kind, mode, size or dtype that cannot be tuned.
    """
    if not 0 < minutes < math.inf:
        raise InputError(f"minutes={minutes} must be a finite number > 0, e.g. 30 or 0.5.")
    number = device_index(device)
    wanted = signatures(
        shapes=shapes, tokens=tokens, ranks=ranks, kinds=kinds, modes=modes, dtype=dtype_name(dtype), device=number
    )
    with torch.cuda.device(number), torch.no_grad():
        tuner = Tuner(
            device=torch.device("cuda", number),
            silicon=tuned.silicon(number),
            software=tuned.software(number),
            path=tuned.default_path(),
            seconds=minutes * 60,
            progress=progress,
        )
        found = tuner.run(wanted, again=again)
    tuned.forget()
    return found


def device_index(device: str) -> int:
    """Return the number of a CUDA device that is there.

    Raises:
        DeviceError: `device` names none.
        ResourceError: none is there.
    """
    if not device.startswith("cuda"):
        raise DeviceError(f"device={device!r}: choices are tuned for CUDA devices. Use 'cuda' or 'cuda:1'.")
    if not torch.cuda.is_available():
        raise ResourceError(
            f"no CUDA device is here (torch {torch.__version__}): choices are tuned for NVIDIA GPUs only."
        )
    machine(device)
    index: int | None = torch.device(device).index
    return torch.cuda.current_device() if index is None else index


def signatures(
    *,
    shapes: Sequence[tuple[int, int]],
    tokens: Sequence[int],
    ranks: Sequence[int],
    kinds: Sequence[Kind],
    modes: Sequence[Mode],
    dtype: str,
    device: int,
) -> list[Signature]:
    """Return every call that is asked for; the modes of one call follow each other.

    Raises:
        InputError: a kind or mode that is not known, or nothing asked for.
        ShapeError, RankError: sizes that do not fit together.
    """
    for name, words, known in (("kinds", kinds, KINDS), ("modes", modes, MODES)):
        if not words or any(word not in known for word in words):
            raise InputError(f"{name}={tuple(words)!r} must name at least one of {', '.join(known)}, and nothing else.")
    if not (shapes and tokens and ranks) or min(tokens) < 1:
        raise InputError(f"shapes={shapes}, tokens={tokens}, ranks={ranks} must name at least one each, tokens >= 1.")
    found = []
    for kind in kinds:
        for D, E in shapes:
            for rank in ranks:
                Problem(kind, tokens[0], D, E)  # the same checks of sizes
                if not 1 <= rank <= min(D, E):
                    raise RankError(f"rank={rank} is outside 1..{min(D, E)} = min(D={D}, E={E}).")
                found += [Signature(kind, T, 0, D, E, rank, 1, dtype, mode, device) for T in tokens for mode in modes]
    return found
