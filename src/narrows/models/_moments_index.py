"""moments.json: what a folder of sums is of, and the files of the last whole state of each pass, with digests."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from narrows._files import read_file
from narrows._values import load_value
from narrows._values._foreign import shown
from narrows._values._json import sealed
from narrows.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 2
INDEX = "moments.json"
STATES = "moments-"  # folders of states begin so
_FILE = re.compile(rf"{STATES}\d+-\d+/\d{{3,}}\.safetensors")


@dataclass(frozen=True, slots=True)
class PassState:
    """The last whole state of one reading of the text.

    Attributes:
        batches: that are summed.
        counts: layer -> rows; "" -> positions with a label.
        files: name of a sum -> its file.
        sha256: name of a sum -> digest of dtype, shape and bytes; empty in folders of the first version.
    """

    batches: int
    counts: dict[str, int]
    files: dict[str, str]
    sha256: dict[str, str] = field(default_factory=dict)

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class SumsIndex:
    """What a folder of sums holds.

    Attributes:
        settings: what decides the sums.
        passes: number of the pass -> its state.
    """

    settings: dict[str, Any]
    passes: dict[str, PassState]
    schema: int = SCHEMA

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def to_json(self) -> str:
        """Return the index as one JSON document."""
        return sealed(asdict(self), indent=1)


def read_index(folder: Path, settings: Mapping[str, Any]) -> dict[str, PassState]:
    """Return what a folder keeps of each pass; nothing where it has no index.

    Raises:
        FileError: the index is damaged, of a newer version, or of other settings.
    """
    path = folder / INDEX
    if not path.exists() and not path.is_symlink():
        return {}
    if os.path.realpath(path) != str(Path(os.path.realpath(folder)) / INDEX):
        raise FileError(f"{path} is a link: delete {folder}.")
    try:
        index = load_value(SumsIndex, read_file(path), source=str(path), schema=SCHEMA, is_sealed=True)
        _check_files(path, index)
    except FileError as fault:
        raise FileError(f"{path} is not an index of calibration sums: delete {folder}. ({fault})") from None
    differing = [name for name, value in settings.items() if index.settings.get(name) != value]
    if differing:
        said = ", ".join(
            f"{name} ({shown(index.settings.get(name), 12)}, now {shown(settings[name], 12)})" for name in differing
        )
        raise FileError(
            f"the store {folder} holds sums of another calibration; different: {said}. "
            "Give another folder, or delete this one."
        )
    return dict(index.passes)


def _check_files(path: Path, index: SumsIndex) -> None:
    """Raise FileError for a name that is no file of a state, or that leads out of the folder."""
    home = Path(os.path.realpath(path.parent))
    for name in {file for one in index.passes.values() for file in one.files.values()}:
        if not _FILE.fullmatch(name) or os.path.realpath(home / name) != str(home / name):
            raise FileError(f"{path} names the file {shown(name)!r}, which is none of its own.")
