"""What is free, and what does not fit it: refused before it is tried, and named where it runs out all the same."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from narrows._machine import _memory, check_fits, fitting, is_shortage
from narrows.errors import ResourceError

LIMITED = """
import resource
from narrows._machine import available_bytes
before = available_bytes()
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
print(before, available_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits on addresses bind on Linux")
def test_a_limit_on_the_process_is_what_is_free_where_it_is_smaller():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 0 < after <= min(before, 4 << 30)
    assert after < 4 << 30  # what the process has taken already is not free


def test_without_a_limit_nothing_is_taken_off():
    assert _memory._limit_left() is None


def test_what_fits_passes_and_what_does_not_is_told_in_bytes(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda _: 3 << 30)
    check_fits(3 << 30, "cpu", what="a thing", advice="Free some.")
    text = r"a thing takes 4\.00 GiB of memory, 3\.00 GiB are free\. Free some\."
    with pytest.raises(ResourceError, match=text):
        check_fits(4 << 30, "cpu", what="a thing", advice="Free some.")


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_each_device_is_asked_for_its_own(monkeypatch, device):
    asked = []
    monkeypatch.setattr(_memory, "available_bytes", lambda one: asked.append(one) or 1 << 40)
    check_fits(1 << 30, device, what="", advice="")
    assert asked == [device]


@pytest.mark.parametrize(("num_bytes", "device"), [(_memory.LEAST_LOOK - 1, "cpu"), (1 << 50, "mps:0")])
def test_little_memory_and_devices_that_do_not_tell_are_not_looked_at(monkeypatch, num_bytes, device):
    monkeypatch.setattr(_memory, "available_bytes", lambda _: pytest.fail("looked"))
    check_fits(num_bytes, device, what="", advice="")


@pytest.mark.parametrize("fault", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried 5 GiB\nmore")])
def test_memory_that_runs_out_inside_is_one_clear_error(fault):
    first = str(fault).partition("\n")[0] or "MemoryError"
    with (
        pytest.raises(ResourceError, match=rf"a thing did not fit the free memory \({first}\)\. Free some\."),
        fitting(1, "cpu", what="a thing", advice="Free some."),
    ):
        raise fault


def test_torchs_allocator_on_a_cpu_is_known_by_what_it_says():
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 62, dtype=torch.uint8)
    assert is_shortage(found.value)


def test_other_errors_stay_what_they_are():
    assert not is_shortage(RuntimeError("not implemented for Half"))
    with pytest.raises(RuntimeError, match="not implemented"), fitting(1, "cpu", what="", advice=""):
        raise RuntimeError("not implemented for Half")
