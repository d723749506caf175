"""Recorded launches, made again: on a CPU, where a launch copies bytes from one address to another."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from narrows.kernels.triton import _launch, _replay

WIDTH = 64


class Prepared:
    """Copies a row from each source into the result, in turn; notes the stream it is given."""

    pause = 0.0  # seconds between a launch and the next

    def __init__(self, count, streams):
        self.slots = [ctypes.c_uint64() for _ in range(count)]
        self.config = SimpleNamespace(stream=None)
        self._streams = streams

    def copy(self):
        return Prepared(len(self.slots), self._streams)

    def __call__(self):
        *sources, target = (slot.value for slot in self.slots)
        for row, source in enumerate(sources):
            ctypes.memmove(target + row * WIDTH * 4, source, WIDTH * 4)
        self._streams.append(self.config.stream)
        if self.pause:
            time.sleep(self.pause)


class Launch:
    def __init__(self, count, streams):
        self.prepared = Prepared(count, streams)

    def __call__(self, *tensors):
        _launch.note(self, tensors)
        *sources, target = tensors
        for row, source in enumerate(sources):
            target.view(-1)[row * WIDTH : (row + 1) * WIDTH].copy_(source.view(-1)[:WIDTH])


@pytest.fixture
def stream(monkeypatch):
    """The current stream's handle; assign to `handle` to change it. What was launched on is in `used`."""
    current = SimpleNamespace(handle=7, device=0, used=[])
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: current.device, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda _: current.handle, raising=False)
    monkeypatch.setattr(_replay, "_workspaces", {})
    # Copies stand for launches, which torch does not see.
    monkeypatch.setattr(_replay, "_HARMLESS", _replay._HARMLESS | {"aten::copy_"})
    return current


def recorded(x, a, b, stream, tied=(1, 2)):
    """The replay of two launches: x and a into a buffer, then the buffer and b into the result."""
    first, second = Launch(3, stream.used), Launch(3, stream.used)

    def call():
        buffer, out = torch.empty(2, WIDTH), torch.empty(2, WIDTH)
        first(x, a, buffer)
        second(buffer, b, out)
        return out

    result, replay = _replay.record(call, (x, a, b), tied=tied)
    assert torch.equal(result, torch.stack([x[:WIDTH], b[:WIDTH]]))
    assert replay is not None
    return replay


def rows(*seeds):
    return [torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in seeds]


def test_a_replay_reads_its_own_operands_into_memory_of_its_own(stream):
    replay = recorded(*rows(0, 1, 2), stream)
    results = []
    for seed in range(3, 9, 3):
        x, a, b = rows(seed, seed + 1, seed + 2)
        results.append(replay(x, a, b))
        assert torch.equal(results[-1], torch.stack([x, b]))
    assert results[0].data_ptr() != results[1].data_ptr()
    assert (results[0].shape, results[0].stride(), results[0].dtype) == ((2, WIDTH), (WIDTH, 1), torch.float32)


def test_an_unaligned_operand_or_another_device_is_refused(stream):
    replay = recorded(*rows(0, 1, 2), stream)
    x, a, b = rows(3, 4, 5)
    off = torch.randn(WIDTH + 1)[1:]
    assert off.data_ptr() % _launch.ALIGNMENT
    assert replay(off, a, b) is None
    assert replay(x, a, off) is None
    stream.device = 1
    assert replay(x, a, b) is None
    stream.device = 0
    assert replay(x, a, b) is not None


def test_tied_operands_that_overlap_must_lie_as_they_did(stream):
    block = torch.randn(4 * WIDTH)
    near = (block[: 2 * WIDTH], block[WIDTH : 3 * WIDTH])
    replay = recorded(rows(0)[0], near[0], near[1], stream, tied=(1, 2))
    (x,) = rows(1)
    other = torch.randn(4 * WIDTH)
    assert torch.equal(
        replay(x, other[: 2 * WIDTH], other[WIDTH : 3 * WIDTH]), torch.stack([x, other[WIDTH : 2 * WIDTH]])
    )
    assert replay(x, other[: 2 * WIDTH], other[2 * WIDTH :]) is None
    assert replay(x, other[: 2 * WIDTH], torch.randn(2 * WIDTH)) is None
    assert replay(x, other[WIDTH : 3 * WIDTH], other[: 2 * WIDTH]) is None


@pytest.mark.parametrize("shift", [0, WIDTH // 2, WIDTH, -WIDTH // 2, -WIDTH])
def test_tied_operands_that_lay_apart_may_lie_anywhere_but_not_near(stream, shift):
    replay = recorded(*rows(0, 1, 2), stream)
    (x,) = rows(3)
    block = torch.randn(4 * WIDTH)
    a, b = block[WIDTH : 2 * WIDTH], block[WIDTH + shift : 2 * WIDTH + shift]
    assert replay(x, a, b) is None  # overlaps or touches
    far = torch.randn(8 * WIDTH)
    assert torch.equal(replay(x, far[:WIDTH], far[5 * WIDTH : 6 * WIDTH])[1], far[5 * WIDTH : 6 * WIDTH])
    assert torch.equal(replay(x, far[5 * WIDTH : 6 * WIDTH], far[:WIDTH])[1], far[:WIDTH])


def test_each_stream_has_a_workspace_that_its_replays_share(stream):
    one, two = recorded(*rows(0, 1, 2), stream), recorded(*rows(3, 4, 5), stream)
    x, a, b = rows(6, 7, 8)
    for handle in (7, 9, 7):
        stream.handle = handle
        stream.used.clear()
        for replay in (one, two):
            assert torch.equal(replay(x, a, b), torch.stack([x, b]))
        assert stream.used == [handle] * 4
    assert sorted(_replay._workspaces) == [(0, 7), (0, 9)]


def test_without_memory_for_a_workspace_a_call_is_refused_and_a_later_one_runs(stream, monkeypatch):
    replay = recorded(*rows(0, 1, 2), stream)
    x, a, b = rows(3, 4, 5)

    def full(*_, **__):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", full)
        assert replay(x, a, b) is None
    assert torch.equal(replay(x, a, b), torch.stack([x, b]))


def test_threads_of_one_stream_take_turns(stream, monkeypatch):
    monkeypatch.setattr(Prepared, "pause", 1e-5)
    replays = [recorded(*rows(0, 1, 2), stream), recorded(*rows(3, 4, 5), stream)]
    wrong = []

    def work(i):
        x, a, b = rows(10 + i, 20 + i, 30 + i)
        expected = torch.stack([x, b])
        wrong.extend(i for count in range(20) if not torch.equal(replays[count % 2](x, a, b), expected))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_replay_keeps_no_operand_alive(stream):
    memory = [np.ones(WIDTH, dtype=np.float32) for _ in range(3)]
    replay = recorded(*(torch.from_numpy(m) for m in memory), stream)
    gone = [weakref.ref(m) for m in memory]
    del memory
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3
    assert replay(*rows(3, 4, 5)) is not None
