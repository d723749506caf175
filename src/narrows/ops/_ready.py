"""Calls that were made before, made again without the work around their launches (`kernels.triton._replay`).

On a CUDA device, eager, 16-bit and outside everything that watches operations (autograd, autocast,
torch.compile, dispatch modes, functorch, graph capture): there only the host's time is left to save.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from narrows.kernels import tuned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from narrows.kernels.triton._replay import Replay

MOST = 1024  # calls that are remembered
_DTYPES = (torch.bfloat16, torch.float16)
_PLAIN = (torch.Tensor, torch.nn.Parameter)
# By call: its replay; None where it cannot have one; its absence in a first call.
_replays: dict[tuple[Any, ...], Replay | None] = {}
_seen: set[tuple[Any, ...]] = set()


def is_plain(x: Tensor, *others: Tensor | None) -> bool:
    """Return whether a call of these operands is nothing but its launches: nobody watches or transforms it."""
    if torch.compiler.is_compiling() or type(x) not in _PLAIN or not x.is_cuda or x.dtype not in _DTYPES:
        return False
    if any(t is not None and type(t) not in _PLAIN for t in others):
        return False  # what is no tensor is refused where operands are checked
    if _is_watched() or torch._C._functorch.is_legacy_batchedtensor(x):  # noqa: SLF001
        return False
    if torch.is_grad_enabled() and (x.requires_grad or any(t is not None and t.requires_grad for t in others)):
        return False
    if x.is_neg() or any(t is not None and t.is_neg() for t in others):
        return False
    return not torch.cuda.is_current_stream_capturing()


def _is_watched() -> bool:
    """Return whether a mode, a transform, autocast or a tracer is to see every operation."""
    c = torch._C  # noqa: SLF001
    return bool(
        c._len_torch_dispatch_stack()  # noqa: SLF001
        or c._len_torch_function_stack()  # noqa: SLF001
        or c._functorch.peek_interpreter_stack() is not None  # noqa: SLF001
        or c._get_tracing_state() is not None  # noqa: SLF001
        or torch.autograd.forward_ad._current_level >= 0  # noqa: SLF001
        or torch.is_autocast_enabled("cuda")
    )


def layout(tensor: Tensor | None) -> tuple[Any, ...] | None:
    """Return what a replay is bound to."""
    return None if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype, tensor.device)


def again(key: tuple[Any, ...], operands: Sequence[Tensor]) -> Tensor | None:
    """Return the result of a call that has a replay; None for every other call."""
    replay = _replays.get((*key, tuned.generation()))
    return None if replay is None else replay(*operands)


def first(
    key: tuple[Any, ...],
    call: Callable[[], Tensor],
    operands: Sequence[Tensor],
    *,
    tied: tuple[int, int] | None = None,
) -> Tensor:
    """Return the result of a call without a replay; the second such call is recorded to have one.

    Args:
        key: what the replay is bound to.
        call: runs the operation.
        operands: in the order of `again`.
        tied: two operands whose distance is part of the key.
    """
    key = (*key, tuned.generation())
    if key in _replays or key not in _seen:
        _forget_if_full()
        _seen.add(key)
        return call()
    from narrows.kernels.triton._replay import record

    result, _replays[key] = record(call, operands, tied=tied)
    return result


def _forget_if_full() -> None:
    if len(_seen) >= MOST:
        _seen.clear()
        _replays.clear()
