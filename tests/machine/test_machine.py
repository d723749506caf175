"""What `machine`, `available_bytes` and `conditions` say of the machine that runs the tests."""

from __future__ import annotations

import platform
from dataclasses import replace

import psutil
import pytest
import torch

from narrows._machine import available_bytes, conditions, machine
from narrows._machine._describe import fingerprint
from narrows._machine._software import blas_name, software
from narrows.errors import DeviceError


def test_the_cpu_record_says_what_torch_and_the_system_say():
    found = machine()
    assert found.device == "cpu"
    assert found.name
    assert 1 <= found.cores <= psutil.cpu_count()
    assert found.threads == torch.get_num_threads()
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total
    assert found.software["torch"] == torch.__version__
    assert found.num_multiprocessors == 0


def test_the_same_machine_gives_the_same_record_and_another_thread_count_another():
    threads = torch.get_num_threads()
    first = machine()
    assert machine() is first
    torch.set_num_threads(threads + 1)
    try:
        assert machine().threads == threads + 1
        assert machine().fingerprint != first.fingerprint
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "change",
    [
        {"device": "cuda"},
        {"name": "another"},
        {"cores": 999},
        {"threads": 999},
        {"caches": {"L3": 1}},
        {"features": ("none",)},
        {"memory_bytes": 1 << 50},
        {"num_multiprocessors": 132},
        {"software": {"torch": "0"}},
        {"software": {"driver": "1"}},
    ],
)
def test_the_fingerprint_changes_with_what_changes_a_time(change):
    assert fingerprint(replace(machine(), **change)) != machine().fingerprint


def test_the_fingerprint_ignores_what_changes_no_time():
    found = machine()
    assert len(found.fingerprint) == 16
    software = {**found.software, "os": "Linux 0", "python": "3.99"}
    alike = replace(found, memory_bytes=round(found.memory_bytes / (1 << 30)) * (1 << 30), software=software)
    assert fingerprint(alike) == found.fingerprint
    assert platform.node() not in repr(found) or not platform.node()


@pytest.mark.parametrize("ask", [machine, available_bytes, conditions])
def test_an_unknown_device_is_named_with_the_known_ones(ask):
    with pytest.raises(DeviceError, match=r"device='tpu' is not known\. Use 'cpu', 'cuda' or 'cuda:1'"):
        ask("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="not shown: there is a GPU")
@pytest.mark.parametrize("ask", [machine, available_bytes, conditions])
def test_a_missing_gpu_is_told_with_what_was_found_and_what_to_do(ask):
    with pytest.raises(DeviceError, match=r"device='cuda:1' is not there: torch \S+ is built .*Use device='cpu'"):
        ask("cuda:1")


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cudax"])
def test_a_malformed_gpu_name_is_not_known(device):
    with pytest.raises(DeviceError, match=f"device='{device}' is not known"):
        machine(device)


def test_available_memory_is_within_the_machines():
    assert 0 < available_bytes("cpu") <= machine().memory_bytes


def test_conditions_hold_three_load_averages():
    loads = conditions()["load average"].split()
    assert len(loads) == 3
    assert all(float(load) >= 0 for load in loads)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        ("Math Kernel Library Version 2024.2-Product\n MKL-DNN v3.12.0 (Git", "MKL 2024.2, oneDNN 3.12.0"),
        ("BLAS_INFO=open, BUILD", "OpenBLAS"),
        ("nothing", "unknown"),
    ],
)
def test_the_matmul_library_is_read_from_torchs_build(build, name):
    assert blas_name(build) == name


@pytest.mark.gpu
def test_a_gpu_has_multiprocessors_a_cache_and_a_capability():
    found = machine("cuda:0")
    assert found.device == "cuda"
    assert found.num_multiprocessors > 0
    assert found.caches["L2"] > 0
    assert found.features[0].startswith("sm_")
    assert 0 < available_bytes("cuda") <= found.memory_bytes


def test_a_variable_that_lowers_precision_is_shown_and_makes_another_machine(monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    plain = software()
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    lowered = software()
    assert lowered["precision switches"] == "NVIDIA_TF32_OVERRIDE=1"
    here = machine()
    assert fingerprint(replace(here, software=plain)) != fingerprint(replace(here, software=lowered))
