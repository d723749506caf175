"""Where there is no CUDA device: what asks for one is told that there is one, and a launch is a call of libc.

The host then does all of its own part of an eager call, in the program's own code, and nothing of the driver's.
"""

from __future__ import annotations

import ctypes
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

_STREAM = 7


@contextmanager
def pretended_device() -> Iterator[None]:
    """Let calls on CPU tensors be made ready as those on a CUDA device are."""
    from narrows.kernels.triton import _driver
    from narrows.ops import _ready

    with ExitStack() as stack:
        for target, name, value in (
            (_ready, "_is_on_device", lambda _: True),
            (_ready, "_is_capturing", lambda: False),
            (torch._C, "_cuda_getDevice", lambda: 0),  # noqa: SLF001
            (torch._C, "_cuda_getCurrentRawStream", lambda _: _STREAM),  # noqa: SLF001
            # It reads the first number behind its first argument and returns 0, since there are programs.
            (_driver, "_driver", lambda: SimpleNamespace(cuLaunchKernelEx=ctypes.CDLL(None).mbsinit)),
        ):
            stack.enter_context(patch.object(target, name, value, create=True))
        yield


class StandIn:
    """Launches nothing, as `Launch` does it: its arguments are written, and libc is called.

    Args:
        num_tensors: of the kernel.
    """

    def __init__(self, num_tensors: int) -> None:
        from narrows.kernels.triton._driver import Prepared

        metadata = SimpleNamespace(launch_cooperative_grid=False, launch_pdl=True, num_warps=4, shared=0)
        signature = dict.fromkeys(map(str, range(num_tensors)), "*bf16")
        kernel = SimpleNamespace(metadata=metadata, src=SimpleNamespace(signature=signature), function=1)
        self.prepared = Prepared(kernel, (1, 1, 1), [None] * num_tensors, num_tensors)

    def __call__(self, *tensors: Tensor | None) -> None:
        from narrows.kernels.triton import _launch

        _launch.note(self, tensors)  # type: ignore[arg-type]


def own_chain() -> Callable[..., tuple[Tensor, Any]]:
    """Return what takes the place of `narrows.ops._bilinear._prepare`: two launches that compute nothing."""
    project, scores = StandIn(3), StandIn(6)

    def prepare(given: Sequence[Tensor], *_: object) -> tuple[Tensor, Any]:
        from narrows.ops._ready import recorded

        x, a, b = given

        def run() -> Tensor:
            tokens, rank = x.shape[0], a.shape[0]
            buffer, out = x.new_empty(2 * rank * tokens), x.new_empty(tokens, tokens)
            project(x, a, buffer)
            scores(buffer, buffer[tokens * rank :], None, None, None, out)
            return out

        return recorded(run, (x, a, b))

    return prepare
