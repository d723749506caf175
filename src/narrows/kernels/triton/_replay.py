"""A call made again: the launches of one call, recorded, run later with other operands of the same layout.

What a call costs on the host is mostly Python around its launches. A replay writes addresses and
launches, nothing else: intermediates lie in one workspace for each stream, which all replays on
it share in turn, and only the result is allocated.
"""

from __future__ import annotations

import threading
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from narrows.kernels.triton._launch import ALIGNMENT, Launch, current_stream, recording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

# Bytes of one stream's workspace; a call with more intermediates goes the long way. Rank 64 at 4096 tokens, its sum
# split in two, takes 5 MiB.
WORKSPACE_BYTES = 8 << 20
_SPACING = 512  # bytes that the beginning of an intermediate is a multiple of, as torch's allocator has it
# What may happen in a call beside launches: memory is taken and looked at, but not read or written.
_HARMLESS = frozenset(
    f"aten::{name}"
    for name in (
        *("empty.memory_format", "empty_strided", "new_empty", "new_empty_strided", "alias", "detach", "view"),
        *("_unsafe_view", "slice.Tensor", "select.int", "as_strided", "t", "transpose.int", "permute", "expand"),
        *("unsqueeze", "squeeze.dim"),
    )
)
# By device and stream: its workspace, and who launches on it: no other thread's launches may come in between.
_workspaces: dict[tuple[int, int], tuple[Tensor, threading.Lock]] = {}


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes whether anything but launches computes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_harmless = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.is_harmless &= func.name() in _HARMLESS
        return func(*args, **(kwargs or {}))


class Replay:
    """The launches of one call, ready for other operands.

    Args:
        steps: each launch, and for each of its tensors where its address comes from.
        result: of the recorded call; later ones get new memory of its shape.
    """

    def __init__(self, steps: Sequence[tuple[Launch, Sequence[_Place | None]]], result: Tensor) -> None:
        self._shape, self._dtype, self._device = result.shape, result.dtype, result.device
        self._launches = []
        self._operands: dict[int, list[tuple[Any, int]]] = {}
        self._inner: list[tuple[Any, int]] = []
        for launch, places in steps:
            assert launch.prepared is not None
            own = launch.prepared.copy()
            self._launches.append(own)
            for slot, place in zip(own.slots, places, strict=True):
                if place is None:
                    continue
                source, offset = place
                if source == _WORKSPACE:
                    self._inner.append((slot, offset))
                else:
                    self._operands.setdefault(source, []).append((slot, offset))
        self._writes = sorted(self._operands.items())
        self._stream = _UNBOUND
        self._lock = threading.Lock()

    def __call__(self, *operands: Tensor) -> Tensor | None:
        """Return the result; None where an operand is not aligned, the device not the current one, or memory full."""
        index = self._device.index
        addresses = [operand.data_ptr() for operand in operands]
        if torch._C._cuda_getDevice() != index or any(address % ALIGNMENT for address in addresses):  # noqa: SLF001
            return None
        stream = current_stream(self._device)
        found = _workspaces.get((index, stream)) or self._workspace(index, stream)
        if found is None:
            return None
        out = torch.empty(self._shape, dtype=self._dtype, device=self._device)
        addresses.append(out.data_ptr())
        workspace, turn = found
        with self._lock, turn:
            if stream != self._stream:
                self._bind(workspace, stream)
            for source, slots in self._writes:
                address = addresses[source]
                for slot, offset in slots:
                    slot.value = address + offset
            for launch in self._launches:
                launch()
        return out

    def _workspace(self, index: int, stream: int) -> tuple[Tensor, threading.Lock] | None:
        try:
            workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=self._device)
        except torch.OutOfMemoryError:
            return None
        return _workspaces.setdefault((index, stream), (workspace, threading.Lock()))

    def _bind(self, workspace: Tensor, stream: int) -> None:
        self._stream = _UNBOUND  # in case an interrupt ends this half way
        base = workspace.data_ptr()
        for slot, offset in self._inner:
            slot.value = base + offset
        for launch in self._launches:
            launch.config.stream = stream
        self._stream = stream


_Place = tuple[int, int]  # operand (the result comes last) or _WORKSPACE, and bytes from its beginning
_WORKSPACE = -1
_UNBOUND = -1  # no stream has this handle


def record(
    call: Callable[[], Tensor], operands: Sequence[Tensor], *, tied: tuple[int, int] | None = None
) -> tuple[Tensor, Replay | None]:
    """Return the call's result, and its replay.

    There is none (None) where the call does more than launch, where it needs too much memory, and where
    operands overlap: which of them a launch read could not be told.

    Args:
        call: runs the operation on these operands.
        operands: what the launches read; a later replay gets others of the same layout, in this order.
        tied: two operands that may overlap, because later ones lie equally far apart.
    """
    watch = _Watch()
    with recording() as launches, watch:
        result = call()
    known = [(launch, tensors) for launch, tensors in launches if launch is not None and launch.prepared is not None]
    places = _Places([*operands, result])
    if not (known and len(known) == len(launches) and watch.is_harmless) or places.overlap(tied):
        return result, None
    steps = [(launch, [places.of(tensor) for tensor in tensors]) for launch, tensors in known]
    return result, Replay(steps, result) if places.num_bytes <= WORKSPACE_BYTES else None


class _Places:
    """Where the tensors of a recorded call lie: in an operand, or after one another in the workspace."""

    def __init__(self, operands: Sequence[Tensor]) -> None:
        self._ranges = [(operand.data_ptr(), _end(operand)) for operand in operands]
        self._inner: dict[int, int] = {}
        self.num_bytes = 0

    def overlap(self, tied: tuple[int, int] | None) -> bool:
        """Return whether two operands share addresses, other than those tied together."""
        pairs = combinations(range(len(self._ranges)), 2)
        return any(pair != tied and self._meet(*pair) for pair in pairs)

    def _meet(self, left: int, right: int) -> bool:
        (first, end), (other, other_end) = self._ranges[left], self._ranges[right]
        return first < other_end and other < end

    def of(self, tensor: Tensor | None) -> _Place | None:
        """Return a tensor's place; None for no tensor."""
        if tensor is None:
            return None
        address = tensor.data_ptr()
        for source, (first, end) in enumerate(self._ranges):
            if first <= address < end:
                return source, address - first
        storage = tensor.untyped_storage().data_ptr()
        if storage not in self._inner:
            self._inner[storage] = self.num_bytes
            size = tensor.untyped_storage().nbytes()
            self.num_bytes += -(-size // _SPACING) * _SPACING
        return _WORKSPACE, self._inner[storage] + address - storage


def _end(tensor: Tensor) -> int:
    """Return the address behind a tensor's last element."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr() + (last + 1) * tensor.element_size()
