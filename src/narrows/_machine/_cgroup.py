"""What a control group (a container) allows: CPUs and memory, versions 1 and 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._machine._system import ROOT, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Version 1 writes "no limit" as the largest multiple of a page below 2^63.
UNLIMITED = 1 << 60


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """Give the folders that may hold the limits of this process: its own group, then each parent up to the mount."""
    for line in read_text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, group = rest.partition(":")
        if not number.isdigit() or (names and controller not in names.split(",")):
            continue
        mount = root / "sys/fs/cgroup" / (controller if names else "")
        parts = group.strip("/").split("/") if group.strip("/") else []
        for depth in range(len(parts), -1, -1):
            yield mount.joinpath(*parts[:depth])


def _number(path: Path) -> int | None:
    text = read_text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many CPUs the group may use at once (2.5 is two and a half); None without a limit."""
    quotas = []
    for folder in _folders("cpu", root):
        limit, _, window = read_text(folder / "cpu.max").partition(" ")
        if limit.isdigit() and window.isdigit():
            quotas.append(int(limit) / int(window))
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota is not None and quota > 0 and period:
            quotas.append(quota / period)
    return min(quotas, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Return the bytes the group may hold; None without a limit."""
    return min((limit for limit, _ in _memory(root)), default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Return the bytes the group may still take; None without a limit."""
    return min((max(limit - used, 0) for limit, used in _memory(root)), default=None)


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    """Give (limit, bytes in use that cannot be reclaimed) of every group above this process that has a limit."""
    for folder in _folders("memory", root):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and limit < UNLIMITED:
                yield limit, max((used or 0) - _reclaimable(folder), 0)


def _reclaimable(folder: Path) -> int:
    """Return the bytes of file cache that the kernel gives back before it kills."""
    for line in read_text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in {"inactive_file", "total_inactive_file"}:
            return int(value)
    return 0
