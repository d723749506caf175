"""What is recorded of a call, and when it may not be made again; launches are stand-ins here."""

from __future__ import annotations

import pytest
import torch

from narrows.kernels.triton import _launch, _replay


class Slot:
    value = 0


class Prepared:
    def __init__(self, count):
        self.count = count
        self.slots = [Slot() for _ in range(count)]

    def copy(self):
        return Prepared(self.count)


class FakeLaunch:
    def __init__(self, count, *, is_prepared=True):
        self.prepared = Prepared(count) if is_prepared else None

    def __call__(self, *tensors):
        _launch.note(self, tensors)


def chain(x, a, b, *, launch=None, extra=None, size=64):
    launch = launch or FakeLaunch(4)
    buffer = torch.empty(size)
    out = torch.empty(3, 3)
    if extra is not None:
        extra(out)
    launch(x, a, b, buffer[16:])
    launch(buffer, None, buffer, out)
    return out


def operands():
    pair = torch.randn(4, 2, 8)
    return torch.randn(3, 8), pair[:, 0], pair[:, 1]


def test_addresses_are_told_from_operands_workspace_and_result():
    x, a, b = operands()
    _, replay = _replay.record(lambda: chain(x, a, b), (x, a, b), tied=(1, 2))
    assert replay is not None
    sources = {source: [offset for _, offset in slots] for source, slots in replay._writes}
    assert sources == {0: [0], 1: [0, 32], 3: [0]}  # b lies 8 floats behind a, within a's rows
    assert [offset for _, offset in replay._inner] == [64, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"extra": lambda out: out.fill_(1.0)},
        {"extra": lambda out: out.add_(1)},
        {"launch": FakeLaunch(4, is_prepared=False)},
        {"size": _replay.WORKSPACE_BYTES},
    ],
    ids=["fills", "computes", "not compiled", "too large"],
)
def test_a_call_that_does_more_than_launch_has_no_replay(change):
    x, a, b = operands()
    result, replay = _replay.record(lambda: chain(x, a, b, **change), (x, a, b), tied=(1, 2))
    assert replay is None
    assert result.shape == (3, 3)


def test_a_launch_of_another_kind_has_no_replay():
    x, a, b = operands()

    def call():
        _launch.note(None)
        return chain(x, a, b)

    assert _replay.record(call, (x, a, b), tied=(1, 2))[1] is None


def test_a_call_without_launches_has_no_replay():
    assert _replay.record(lambda: torch.empty(3), ())[1] is None


def test_operands_that_overlap_have_no_replay_unless_their_distance_is_known():
    x, a, b = operands()
    assert _replay.record(lambda: chain(x, a, b), (x, a, b))[1] is None
    assert _replay.record(lambda: chain(x, x, x), (x, x, x), tied=(1, 2))[1] is None
    assert _replay.record(lambda: chain(x, a, b), (x, a, b), tied=(1, 2))[1] is not None


def test_recording_ends_with_its_context():
    launch = FakeLaunch(1)
    with _launch.recording() as launches:
        launch(torch.empty(1))
    launch(torch.empty(1))
    assert len(launches) == 1
