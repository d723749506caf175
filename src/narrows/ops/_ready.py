"""Calls that were made before, made again without the work around their launches or matmuls.

On a CUDA device, eager and outside everything that watches operations (autograd, autocast,
torch.compile, dispatch modes, functorch, graph capture): there only the host's time is left to save.
A call is found by its numbers and sizes. Whether operands and torch's state are as they were then is
one comparison in C, torch.compile's own: type, dtype, device, sizes, strides, requires_grad, and the
dispatch keys that an operation would go by, in which autocast, modes, transforms, tracing and
negative views show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch._C._dynamo.guards import TensorGuards
from torch.autograd import forward_ad

from narrows.kernels import tuned
from narrows.ops._direct import no_view

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from torch import Tensor

    Run = Callable[..., Tensor | None]

MOST = 1024  # calls that are remembered
# That differ in addresses alone. Rows that alternate and rows that lie apart are two; more come of operands that are
# not aligned or not on the current device, which have nothing to gain.
MOST_ALIKE = 4
_REPLAYED = (torch.bfloat16, torch.float16)  # what float32 kernels compute depends on torch's TF32 flags at the time
_PLAIN = (torch.Tensor, torch.nn.Parameter)


class _Ready(NamedTuple):
    """Attributes:
    fits: says whether these operands, and torch's state now, are as they were.
    is_leaf: one of them records gradients where they are recorded at all.
    run: returns the result; None where it cannot, for what only addresses tell.
    """

    fits: Callable[..., bool]
    is_leaf: bool
    run: Run


# By call and sizes (`_where`). One entry may have several shapes, strides, dtypes or types of operands.
_ready: dict[tuple[Any, ...], list[_Ready]] = {}
# By call and everything that was looked at; True: it was made ready, or cannot be.
_seen: dict[tuple[Any, ...], bool] = {}
_is_capturing = torch.cuda.is_current_stream_capturing


def again(call: tuple[Hashable, ...], operands: Sequence[Tensor]) -> Tensor | None:
    """Return the result of a call that was made ready; None for every other one, also where operands are no tensors.

    Args:
        call: which operation, and what it is given besides tensors.
        operands: x and two others at least, none of them None.
    """
    if not _ready:
        return None
    try:
        found = _ready.get(_where(call, operands))
    except (AttributeError, TypeError):  # they are refused by name where operands are checked
        return None
    for fits, is_leaf, run in found or ():
        if fits(*operands):
            if _is_watched() or (is_leaf and torch.is_grad_enabled()):
                return None
            result = run(*operands)
            if result is not None:
                return result
    return None


def first(
    call: tuple[Hashable, ...],
    operands: Sequence[Tensor],
    run: Callable[[], Tensor],
    prepare: Callable[[Callable[[], Tensor]], tuple[Tensor, Run | None]],
) -> Tensor:
    """Return the result of a call that is not ready; the second one with the same layouts is made ready.

    Args:
        call, operands: as in `again`; the operands are plain (`is_plain`). The second and the third are the factors.
        run: computes the result.
        prepare: from `run` to the result and what makes it again, from operands of the same layouts. That keeps no
            operand alive.
    """
    _, a, b, *_ = operands
    # The distance tells whether the rows of a and b alternate in memory. An operand may be another one too.
    apart = (b.data_ptr() - a.data_ptr(), len({id(t) for t in operands}))
    where = _where(call, operands)
    key = (where, *apart, *map(_layout, operands), *_dispatch_keys())
    was_made_ready = _seen.get(key)
    if was_made_ready is None:
        _forget_if_full()
        _seen[key] = False
    if was_made_ready is not False or sum(ready.fits(*operands) for ready in _ready.get(where, ())) >= MOST_ALIKE:
        return no_view(run())
    result, again_ = prepare(run)
    _seen[key] = True
    guards = TensorGuards(*operands, dynamic_dims_sizes=None, dynamic_dims_strides=None)
    # What holds an operand twice fits nothing.
    if again_ is not None and guards.check(*operands):
        is_leaf = any(t.requires_grad for t in operands)
        _ready.setdefault(where, []).append(_Ready(guards.check, is_leaf, again_))
    return no_view(result)


def recorded(run: Callable[[], Tensor], operands: Sequence[Tensor]) -> tuple[Tensor, Run | None]:
    """Return the result of a call that own kernels run, and the replay of its launches; None where it has none."""
    if operands[0].dtype not in _REPLAYED:
        return run(), None
    from narrows.kernels.triton._replay import record

    return record(run, operands, tied=(1, 2))


def is_plain(x: Tensor, *others: Tensor) -> bool:
    """Return whether a call of these operands is nothing but its computation: nobody watches or transforms it."""
    operands = (x, *others)
    if torch.compiler.is_compiling() or any(type(t) not in _PLAIN for t in operands) or not _is_on_device(x):
        return False
    if _is_watched() or _is_transformed(x) or torch._C._functorch.is_legacy_batchedtensor(x):  # noqa: SLF001
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in operands):
        return False
    return all(t.layout == torch.strided and not t.is_neg() for t in operands)


def _is_on_device(x: Tensor) -> bool:
    return x.is_cuda


def _is_watched() -> bool:
    """Return whether something that no tensor's dispatch keys show is to see every operation."""
    return torch._C._len_torch_function_stack() > 0 or forward_ad._current_level >= 0 or _is_capturing()  # noqa: SLF001


def _is_transformed(x: Tensor) -> bool:
    """Return whether a mode, a transform, autocast or a tracer is to see every operation."""
    c = torch._C  # noqa: SLF001
    return bool(
        c._len_torch_dispatch_stack()  # noqa: SLF001
        or c._functorch.peek_interpreter_stack() is not None  # noqa: SLF001
        or c._get_tracing_state() is not None  # noqa: SLF001
        or torch.is_autocast_enabled(x.device.type)
    )


def _where(call: tuple[Hashable, ...], operands: Sequence[Tensor]) -> tuple[Any, ...]:
    """Return what a call is looked up by: enough that few others share it."""
    x = operands[0]
    return (call, x.numel(), operands[1].numel(), operands[-1].numel(), x.get_device(), tuned.generation())


def _dispatch_keys() -> tuple[int, int]:
    """Return the dispatch keys that this thread adds to those of its operands, and takes away, as in inference_mode."""
    included, excluded = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()  # noqa: SLF001
    return included.raw_repr(), excluded.raw_repr()


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    """Return what `_Ready.fits` compares of a tensor."""
    kind = (type(tensor), tensor.requires_grad, tensor.is_inference())
    return (tensor.shape, tensor.stride(), tensor.dtype, tensor.device, kind)


def _forget_if_full() -> None:
    if len(_seen) >= MOST:
        _seen.clear()
        _ready.clear()
