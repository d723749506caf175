"""A call made again: the launches of one call, recorded, run later with other operands of the same layout.

What a call costs on the host is mostly Python around its launches. A replay writes addresses and
launches, nothing else: intermediates lie in one workspace for each stream, which all replays on
it share in turn, and only the result is allocated.
"""

from __future__ import annotations

import threading
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch._C._dynamo import guards
from torch.utils._python_dispatch import TorchDispatchMode

from narrows.kernels.triton._launch import ALIGNMENT, Launch, recording

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


class _Tie(NamedTuple):
    """How far apart two operands lie.

    Attributes:
        left, right: which operands.
        least, most: distances in bytes within which they overlap or touch.
        distance: that of the recorded call; None: beyond these.
    """

    left: int
    right: int
    least: int
    most: int
    distance: int | None


class Replay:
    """The launches of one call, ready for other operands.

    Args:
        steps: each launch, and for each of its tensors where its address comes from.
        result: of the recorded call; later ones get new memory of its layout.
        tie: how far apart two operands must lie; None: anywhere.
    """

    def __init__(
        self, steps: Sequence[tuple[Launch, Sequence[_Place | None]]], result: Tensor, tie: _Tie | None = None
    ) -> None:
        # What the code that torch.compile generates takes memory with, on the current device: 0.5 us where torch.empty
        # takes 1.6 (one core of a 2-core EPYC, CPU memory).
        empty = guards._empty_strided_cuda if result.is_cuda else guards._empty_strided_cpu  # type: ignore[attr-defined]  # noqa: SLF001
        self._empty: Callable[[], Tensor] = partial(empty, tuple(result.shape), result.stride(), result.dtype)
        self._device, self._index, self._tie = result.device, result.device.index or 0, tie
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
        self._stream, self._turn = _UNBOUND, threading.Lock()
        self._lock = threading.Lock()

    def __call__(self, *operands: Tensor) -> Tensor | None:
        """Return the result.

        None where an operand is not aligned, tied operands lie otherwise than they did, the device is not the current
        one, or memory is full.
        """
        addresses = [operand.data_ptr() for operand in operands]
        bits = 0
        for address in addresses:
            bits |= address
        if bits % ALIGNMENT or torch._C._cuda_getDevice() != self._index:  # noqa: SLF001
            return None
        if self._tie is not None:
            left, right, least, most, wanted = self._tie
            distance = addresses[right] - addresses[left]
            if (distance if least <= distance <= most else None) != wanted:
                return None
        stream = torch._C._cuda_getCurrentRawStream(self._index)  # noqa: SLF001
        out = self._empty()
        addresses.append(out.data_ptr())
        with self._lock:
            if stream != self._stream and not self._bind(stream):
                return None
            with self._turn:
                for source, slots in self._writes:
                    address = addresses[source]
                    for slot, offset in slots:
                        slot.value = address + offset
                for launch in self._launches:
                    launch()
        return out

    def _bind(self, stream: int) -> bool:
        """Write what is the stream's own into the launches; False where there is no memory for its workspace."""
        found = _workspaces.get((self._index, stream)) or self._workspace(stream)
        if found is None:
            return False
        self._stream = _UNBOUND  # in case an interrupt ends this half way
        workspace, self._turn = found
        base = workspace.data_ptr()
        for slot, offset in self._inner:
            slot.value = base + offset
        for launch in self._launches:
            launch.config.stream = stream
        self._stream = stream
        return True

    def _workspace(self, stream: int) -> tuple[Tensor, threading.Lock] | None:
        try:
            workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=self._device)
        except torch.OutOfMemoryError:
            return None
        return _workspaces.setdefault((self._index, stream), (workspace, threading.Lock()))


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
        tied: two operands that may overlap: later ones must then lie equally far apart, and else not overlap either.
    """
    watch = _Watch()
    with recording() as launches, watch:
        result = call()
    known = [(launch, tensors) for launch, tensors in launches if launch is not None and launch.prepared is not None]
    places = _Places([*operands, result])
    if not (known and len(known) == len(launches) and watch.is_harmless) or places.overlap(tied):
        return result, None
    steps = [(launch, [places.of(tensor) for tensor in tensors]) for launch, tensors in known]
    tie = None if tied is None else places.tie(*tied)
    return result, Replay(steps, result, tie) if places.num_bytes <= WORKSPACE_BYTES else None


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

    def tie(self, left: int, right: int) -> _Tie:
        """Return how far apart two operands lie."""
        (first, end), (other, other_end) = self._ranges[left], self._ranges[right]
        least, most, distance = other - other_end, end - first, other - first
        return _Tie(left, right, least, most, distance if least <= distance <= most else None)

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
