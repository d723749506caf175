"""Launching a compiled Triton kernel without Triton's work for each call.

`fn[grid](...)` binds and specialises every argument again, 9 to 17 us a call on an H100's host
(github.com/facebookexperimental/triton, pull request 1231). A `Launch` does that once: later
calls write addresses into a prepared launch.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from narrows.kernels.triton._driver import Prepared, can_prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

ALIGNMENT = 16

Recorded = list[tuple["Launch | None", "tuple[Tensor | None, ...]"]]
_recording = threading.local()


class Launch:
    """One kernel with everything fixed but the addresses of its tensors.

    Args:
        function: a `triton.jit` function whose first parameters are its tensors.
        grid: programs.
        scalars: the run-time numbers that follow the tensors, in order.
        constants: compile-time values by name, and `num_warps`, `num_stages`, `launch_pdl`.
    """

    def __init__(
        self, function: Any, grid: tuple[int, int, int], scalars: tuple[Any, ...], constants: dict[str, Any]
    ) -> None:
        self._function, self._grid, self._scalars, self._constants = function, grid, scalars, constants
        self.prepared: Prepared | None = None
        self._lock = threading.Lock()

    def __call__(self, stream: int, *tensors: Tensor | None) -> None:
        """Run on the current device and on `stream`, which must be its current stream."""
        note(self, tensors)
        if self.prepared is None:
            self._first(tensors)
            return
        addresses = [0 if t is None else t.data_ptr() for t in tensors]
        if any(address % ALIGNMENT for address in addresses):
            self._first(tensors)
            return
        with self._lock:  # another thread must not write its addresses in between
            for slot, address in zip(self.prepared.slots, addresses, strict=True):
                slot.value = address
            self.prepared.config.stream = stream
            self.prepared()

    def _first(self, tensors: tuple[Tensor | None, ...]) -> None:
        """Compile for these tensors, or find it compiled, and run; keep the handle of an aligned call."""
        kernel = self._function[self._grid](*tensors, *self._scalars, **self._constants)
        if kernel is None or any(t is not None and t.data_ptr() % ALIGNMENT for t in tensors):
            return
        if can_prepare(kernel):
            self.prepared = Prepared(kernel, self._grid, (*(None for _ in tensors), *self._scalars), len(tensors))


def note(launch: Launch | None, tensors: tuple[Tensor | None, ...] = ()) -> None:
    """Add a launch to what this thread records, if it does; None: one of another kind, that cannot be made again."""
    if (recorded := getattr(_recording, "launches", None)) is not None:
        recorded.append((launch, tensors))


@contextmanager
def recording() -> Iterator[Recorded]:
    """Collect the launches of this thread, and their tensors, while the context lasts."""
    launches: Recorded = []
    _recording.launches = launches
    try:
        yield launches
    finally:
        _recording.launches = None


def current_stream(device: torch.device) -> int:
    """Return the handle of the device's current stream; 0 on a CPU, where only the interpreter runs."""
    if device.type != "cuda":
        return 0
    return torch._C._cuda_getCurrentRawStream(device.index)  # noqa: SLF001
