"""Factors of the timed weight on disk, for a child that takes over from one that died."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._files import sha256_tensor, write_tensors_atomic
from narrows._files._read import _opened
from narrows._values import Factors
from narrows.errors import FileError

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def keep_factors(path: Path, factors: Factors) -> None:
    """Write factors with the digests of both."""
    tensors = {"a": factors.a, "b": factors.b}
    digests = {name: sha256_tensor(tensor) for name, tensor in tensors.items()}
    write_tensors_atomic(path, tensors, metadata=digests)


def kept_factors(path: Path, device: torch.device) -> Factors | None:
    """Return what `keep_factors` wrote; None where it is not there or not what was written: it can be made again."""
    if not path.exists():
        return None
    try:
        with _opened(path) as opened:
            digests = opened.metadata() or {}
            a, b = opened.get_tensor("a"), opened.get_tensor("b")
    except FileError:
        return None
    if (digests.get("a"), digests.get("b")) != (sha256_tensor(a), sha256_tensor(b)):
        return None
    return Factors(a.to(device), b.to(device))
