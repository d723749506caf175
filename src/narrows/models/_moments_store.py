"""A folder that keeps calibration's sums: a killed run goes on from it, a finished one is read from it.

`moments.json` says what the folder is of and names the files of the last complete state of each
pass; it is replaced only when these are on disk, so at any moment it names a whole state.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from narrows._files import read_tensor, write_tensors_atomic, write_text_atomic
from narrows.errors import FileError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

    import torch

SCHEMA = 1
INDEX = "moments.json"
LOCK = "moments.lock"
STATES = "moments-"  # folders of states begin so
SHARD_BYTES = 1 << 28  # a file is made in memory before it is written


class MomentsStore:
    """An open folder of sums; a context manager. One process writes at a time.

    Args:
        folder: made if it is not there.
        settings: what decides the sums, as JSON values: text, weights, seed, layers and the like.

    Raises (from every method):
        FileError: the folder holds sums of other settings, or is damaged.
        ResourceError: in use by another run, or it cannot be written.
    """

    def __init__(self, folder: str | PathLike[str], settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self._settings = dict(settings)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / LOCK)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ResourceError(
                f"the store {self.folder} is in use by another run. Wait until it ends, or give another folder."
            ) from None
        except OSError as fault:
            raise ResourceError(f"the store {self.folder} cannot be written: {fault.strerror or fault}.") from None
        try:
            self._passes = self._read_index()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def counts(self, number: int) -> tuple[int, dict[str, int]] | None:
        """Return how many batches a pass has summed, and its counts; None when nothing is kept of it."""
        kept = self._passes.get(str(number))
        return None if kept is None else (int(kept["batches"]), dict(kept["counts"]))

    def names(self, number: int) -> tuple[str, ...]:
        """Return the names of the sums that are kept of a pass."""
        return tuple(self._passes[str(number)]["files"])

    def tensor(self, number: int, name: str) -> torch.Tensor:
        """Return one sum of a pass, on the CPU; also after the folder was closed."""
        return read_tensor(self.folder / self._passes[str(number)]["files"][name], name)

    def save(self, number: int, batches: int, tensors: Mapping[str, torch.Tensor], counts: Mapping[str, int]) -> None:
        """Replace what is kept of a pass; on any failure the older state stays."""
        state = f"{STATES}{number}-{batches}"
        try:
            (self.folder / state).mkdir(exist_ok=True)
        except OSError as fault:
            raise ResourceError(f"the store {self.folder} cannot be written: {fault.strerror or fault}.") from None
        files: dict[str, str] = {}
        for i, shard in enumerate(_shards(tensors)):
            file = f"{state}/{i:03}.safetensors"
            write_tensors_atomic(self.folder / file, {name: one.cpu() for name, one in shard.items()})
            files |= dict.fromkeys(shard, file)
        self._passes[str(number)] = {"batches": batches, "counts": dict(counts), "files": files}
        index = {"schema": SCHEMA, "settings": self._settings, "passes": self._passes}
        write_text_atomic(self.folder / INDEX, json.dumps(index, indent=1))
        self._sweep()

    def _read_index(self) -> dict[str, Any]:
        path = self.folder / INDEX
        if not path.exists():
            return {}
        try:
            index = json.loads(path.read_bytes())
            schema, settings, passes = int(index["schema"]), dict(index["settings"]), dict(index["passes"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise FileError(f"{path} is not an index of calibration sums: delete {self.folder}.") from None
        if schema != SCHEMA:
            raise FileError(f"{path} is of schema {schema}, this narrows knows {SCHEMA}: give another folder.")
        differing = [name for name, value in self._settings.items() if settings.get(name) != value]
        if differing:
            said = ", ".join(
                f"{name} ({_short(settings.get(name))}, now {_short(self._settings[name])})" for name in differing
            )
            raise FileError(
                f"the store {self.folder} holds sums of another calibration; different: {said}. "
                "Give another folder, or delete this one."
            )
        return passes

    def _sweep(self) -> None:
        """Delete states that the index does not name: older ones, and what a kill left."""
        named = {file.split("/")[0] for kept in self._passes.values() for file in kept["files"].values()}
        for found in self.folder.glob(f"{STATES}*"):
            if found.is_dir() and found.name not in named:
                shutil.rmtree(found, ignore_errors=True)


def _shards(tensors: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    held = 0
    for name, tensor in tensors.items():
        if shard and held + tensor.nbytes > SHARD_BYTES:
            yield shard
            shard, held = {}, 0
        shard[name] = tensor
        held += tensor.nbytes
    yield shard


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."
