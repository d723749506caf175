"""A folder that keeps calibration's sums: a killed run goes on from it, a finished one is read from it.

`moments.json` says what the folder is of and names the files of the last complete state of each
pass; it is replaced only when these are on disk, so at any moment it names a whole state.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from narrows._files import make_folder, read_tensor, sha256_tensor, take_turn, write_tensors_atomic, write_text_atomic
from narrows.errors import FileError, ResourceError
from narrows.models._moments_index import INDEX, STATES, PassState, SumsIndex, read_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from os import PathLike

    import torch

LOCK = "moments.lock"
SHARD_BYTES = 1 << 28  # a file is made in memory before it is written


class MomentsStore:
    """An open folder of sums; a context manager. One run has it at a time; the next one finds what it has summed.

    Args:
        folder: made if it is not there.
        settings: what decides the sums, as JSON values: text, weights, seed, layers and the like.
        waiting: called about once a second while another run has it.

    Raises (from every method):
        FileError: the folder holds sums of other settings, or is damaged.
        ResourceError: it cannot be written.
    """

    def __init__(
        self, folder: str | PathLike[str], settings: Mapping[str, Any], *, waiting: Callable[[], None] = lambda: None
    ) -> None:
        self.folder = Path(folder)
        self._settings = dict(settings)
        try:
            make_folder(self.folder)
            self._lock = take_turn(self.folder / LOCK, waiting=waiting)
        except OSError as fault:
            raise self._unwritable(fault) from None
        try:
            self._passes = read_index(self.folder, self._settings)
            self._sweep()
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
        return None if kept is None else (kept.batches, dict(kept.counts))

    def names(self, number: int) -> tuple[str, ...]:
        """Return the names of the sums that are kept of a pass."""
        return tuple(self._passes[str(number)].files)

    def tensor(self, number: int, name: str) -> torch.Tensor:
        """Return one sum of a pass, on the CPU; also after the folder was closed."""
        kept = self._passes[str(number)]
        path = self.folder / kept.files[name]
        found = read_tensor(path, name)
        if kept.sha256 and kept.sha256.get(name) != sha256_tensor(found):
            raise FileError(f"{path}: {name} is not what was saved (SHA-256): delete {self.folder}.")
        return found

    def save(self, number: int, batches: int, tensors: Mapping[str, torch.Tensor], counts: Mapping[str, int]) -> None:
        """Replace what is kept of a pass; on any failure the older state stays."""
        state = f"{STATES}{number}-{batches}"
        try:
            make_folder(self.folder / state)
        except OSError as fault:
            raise self._unwritable(fault) from None
        files: dict[str, str] = {}
        digests: dict[str, str] = {}
        for i, shard in enumerate(_shards(tensors)):
            file = f"{state}/{i:03}.safetensors"
            held = {name: one.cpu() for name, one in shard.items()}
            write_tensors_atomic(self.folder / file, held)
            files |= dict.fromkeys(held, file)
            digests |= {name: sha256_tensor(one) for name, one in held.items()}
        self._passes[str(number)] = PassState(batches, dict(counts), files, digests)
        write_text_atomic(self.folder / INDEX, SumsIndex(self._settings, self._passes).to_json())
        self._sweep()

    def _unwritable(self, fault: OSError) -> ResourceError:
        return ResourceError(
            f"the store {self.folder} cannot be written: {fault.strerror or fault}. Give a folder on a disk that can "
            "be written to."
        )

    def _sweep(self) -> None:
        """Delete states that the index does not name: older ones, and what a kill left."""
        named = {file.split("/")[0] for kept in self._passes.values() for file in kept.files.values()}
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
