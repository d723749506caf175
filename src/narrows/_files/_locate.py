"""From what a user names (a file, or a model's folder) to the safetensors files that are meant."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from narrows._files._plain import read_file
from narrows._values._foreign import LONGEST, shown
from narrows._values._json import document
from narrows.errors import FileError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


def check_file(path: Path) -> None:
    """Raise FileError unless `path` is a regular file of a kind that is safe to read."""
    if path.suffix.lower() in PICKLES:
        raise FileError(
            f"{path} is a pickle ({path.suffix}): reading one can run any program, so narrows does not. Convert it "
            "where you trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors')."
        )
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileError(f"{path} does not exist. Give a .safetensors or .npy file, or a model's folder.") from None
    except OSError as fault:
        raise FileError(f"{path} cannot be read: {fault.strerror}.") from None
    if not stat.S_ISREG(mode):
        raise FileError(f"{path} is not a regular file. Give a .safetensors or .npy file, or a model's folder.")


def shards(path: Path) -> dict[str, Path] | None:
    """Return tensor name -> file of a sharded model's folder; None for anything else.

    Raises:
        FileError: the index is not valid, or names a file that is not plainly inside the folder.
    """
    if not path.is_dir() or (path / SINGLE).exists() or not (path / INDEX).exists():
        return None
    index = path / INDEX
    check_file(_inside(path, INDEX))
    try:
        weight_map = document(read_file(index))["weight_map"]
        named = {str(tensor): str(shard) for tensor, shard in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FileError(
            f"{index} is not a safetensors index (a JSON object with a weight_map). Get it again."
        ) from None
    return {tensor: _inside(path, shard) for tensor, shard in named.items()}


def single(path: Path) -> Path:
    """Return the one file that a path means: itself, or a folder's model.safetensors.

    Raises:
        FileError: the folder has none.
    """
    if not path.is_dir():
        check_file(path)
        return path
    if not (path / SINGLE).exists():
        others = ", ".join(sorted(found.name for found in path.glob("*.safetensors"))[:5]) or "no .safetensors file"
        raise FileError(f"{path} has neither {SINGLE} nor {INDEX}; it holds {others}. Give the file itself.")
    return _inside(path, SINGLE)


def is_plain_name(name: str) -> bool:
    """Return whether a name that a foreign file tells is one of a file beside it, and fit to be shown."""
    is_short = name not in {"", ".", ".."} and len(name) <= LONGEST
    return is_short and name.isprintable() and not {"/", "\\"} & set(name)


def _inside(folder: Path, name: str) -> Path:
    """Return folder / name, which must be a plain name of a file that lies there.

    The cache of Hugging Face's hub keeps `snapshots/REVISION/NAME` as links into its own `blobs`.
    """
    if not is_plain_name(name):
        raise FileError(
            f"{folder / INDEX} names the file {shown(name)!r}: only plain names inside the folder are read."
        )
    home = Path(os.path.realpath(folder))  # Path.resolve raises at a link that leads to itself
    allowed = {home, home.parent.parent / "blobs"} if home.parent.name == "snapshots" else {home}
    target = Path(os.path.realpath(folder / name))
    if target.parent not in allowed:
        raise FileError(f"{folder / name} is a link to {target}, outside its folder. Give that file itself.")
    check_file(folder / name)
    return folder / name
