"""Facts from /proc, /sys and control groups, on file trees made here: any machine can be one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from narrows._machine import _cgroup, _system

if TYPE_CHECKING:
    from pathlib import Path


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def cache(cpu: int, index: int, level: str, kind: str, *, size: str, shared: str) -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
    facts = {"level": level, "type": kind, "size": size, "shared_cpu_list": shared}
    return {f"{folder}/{name}": text for name, text in facts.items()}


def test_an_x86_processor_has_its_name_and_the_features_that_matter(tmp_path):
    put(tmp_path, {"proc/cpuinfo": "model name\t: AMD EPYC 9654\nflags\t\t: fpu avx2 avx512f sse avx512_bf16"})
    assert _system.processor_name(tmp_path) == "AMD EPYC 9654"
    assert _system.features(tmp_path) == ("avx2", "avx512f", "avx512_bf16")


def test_an_arm_processor_says_neon(tmp_path):
    put(tmp_path, {"proc/cpuinfo": "Features\t: fp asimd sve bf16"})
    assert _system.features(tmp_path) == ("neon", "sve", "bf16")


def test_a_system_without_proc_still_has_a_processor_and_no_caches(tmp_path):
    assert _system.processor_name(tmp_path)
    assert _system.features(tmp_path) == ()
    assert _system.caches((0, 1), tmp_path) == {}
    assert _system.physical_cores((0, 1), root=tmp_path) == 2


def test_caches_add_up_over_instances_and_count_a_shared_one_once(tmp_path):
    files = {}
    for cpu in (0, 1):
        files |= cache(cpu, 0, "1", "Data", size="32K", shared=str(cpu))
        files |= cache(cpu, 1, "1", "Instruction", size="64K", shared=str(cpu))
        files |= cache(cpu, 2, "2", "Unified", size="1M", shared=str(cpu))
        files |= cache(cpu, 3, "3", "Unified", size="32768K", shared="0-1")
    assert _system.caches((0, 1), put(tmp_path, files)) == {"L1d": 64 << 10, "L2": 2 << 20, "L3": 32 << 20}
    assert _system.caches((0,), tmp_path) == {"L1d": 32 << 10, "L2": 1 << 20, "L3": 32 << 20}


def test_two_threads_of_one_core_count_once_and_a_quota_rounds_up(tmp_path):
    files = {}
    for cpu in range(8):
        topology = f"sys/devices/system/cpu/cpu{cpu}/topology"
        files |= {f"{topology}/core_id": str(cpu % 4), f"{topology}/physical_package_id": "0"}
    put(tmp_path, files)
    assert _system.physical_cores(tuple(range(8)), root=tmp_path) == 4
    assert _system.physical_cores((0, 4), root=tmp_path) == 1
    assert _system.physical_cores(tuple(range(8)), quota=2.5, root=tmp_path) == 3
    assert _system.physical_cores(tuple(range(8)), quota=0.1, root=tmp_path) == 1


def test_the_smallest_limit_of_all_groups_above_counts_in_version_2(tmp_path):
    put(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000",
            "sys/fs/cgroup/a/cpu.max": "250000 100000",
            "sys/fs/cgroup/a/b/memory.max": "max",
            "sys/fs/cgroup/a/memory.max": "8000",
            "sys/fs/cgroup/a/memory.current": "5000",
            "sys/fs/cgroup/a/memory.stat": "anon 3000\ninactive_file 1500",
        },
    )
    assert _cgroup.cpu_quota(tmp_path) == 2.5
    assert _cgroup.memory_limit(tmp_path) == 8000
    assert _cgroup.memory_left(tmp_path) == 8000 - (5000 - 1500)


def test_limits_of_version_1_count_unless_they_mean_unlimited(tmp_path):
    put(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/job\n1:cpu,cpuacct:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "4096",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5000",
        },
    )
    assert _cgroup.cpu_quota(tmp_path) is None
    assert _cgroup.memory_limit(tmp_path) == 4096
    assert _cgroup.memory_left(tmp_path) == 0


@pytest.mark.parametrize("text", ["", "garbage", "0::/\nbad"])
def test_a_strange_control_group_file_means_no_limit(tmp_path, text):
    put(tmp_path, {"proc/self/cgroup": text})
    assert _cgroup.cpu_quota(tmp_path) is None
    assert _cgroup.memory_left(tmp_path) is None
