"""narrows.json: what a compressed model's folder holds, and how it is checked before a weight is read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from narrows._files import sha256_tensor
from narrows._files._locate import check_file, is_plain_name
from narrows._files._read import _opened
from narrows._values import ModelPlan, load_value
from narrows._values._foreign import shown
from narrows.errors import FileError
from narrows.models._forms import FORMS
from narrows.models._joint import details_of, saved_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

MANIFEST = "narrows.json"
MANIFEST_SCHEMA = 1
ADAPTER = "adapter_config.json"
AGAIN = "Save the model again, or get the folder again."
_SEAL = re.compile(rb'"sha256": "([0-9a-f]{64})"\n\}\n\Z')
_THREADS = 4  # each holds one tensor


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """One compressed layer: its form, its rank, and what the form keeps beside."""

    form: str
    rank: int
    details: dict[str, Any] = field(default_factory=dict)

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def stands_for(self, name: str) -> tuple[str, ...]:
        """Return the names of the dense layers that the layer `name` stands for: its own, or several joined ones'."""
        return saved_names(name, self.details)

    def replaces(self, name: str) -> set[str]:
        """Return the names of the dense weights that the layer `name` has in another form."""
        weights = FORMS[self.form].replaces(self.details)
        return {f"{layer}.{weight}" for layer in self.stands_for(name) for weight in weights}


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One tensor of a shard; sha256 is of dtype, shape and bytes (`sha256_tensor`)."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """The dense model: its name, and where it was a folder the SHA-256 of its configuration and weights."""

    name: str
    sha256: str | None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a compressed model's folder holds.

    Attributes:
        version: of narrows, that saved it.
        architecture: the model's class in transformers.
        layers: module name -> what stands in its place.
        tensors: name in the shards -> where it is and what it holds.
        files: all other files that count (configuration, tokenizer) -> SHA-256.
        plan: why every linear layer is what it is; None: none was to change.
        certificate: quality and speed as they were measured.
        source: the dense model; None: not told.
    """

    version: str
    architecture: str
    layers: dict[str, LayerRecord]
    tensors: dict[str, TensorRecord]
    files: dict[str, str]
    plan: ModelPlan | None
    certificate: dict[str, Any]
    source: SourceRecord | None
    schema: int = MANIFEST_SCHEMA
    sha256: str = ""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def to_bytes(self) -> bytes:
        """Return the JSON document, sealed: `sha256` is of the whole document with nothing in that place."""
        text = json.dumps({**asdict(self), "sha256": ""}, indent=1, allow_nan=False)
        unsealed = f"{text}\n".encode()
        seal = hashlib.sha256(unsealed).hexdigest().encode()
        return unsealed.replace(b'"sha256": ""\n}\n', b'"sha256": "' + seal + b'"\n}\n')


def layer_record(model: nn.Module, name: str, form: str, layer: nn.Module) -> LayerRecord:
    """Return what a manifest says of a compressed layer of a model."""
    return LayerRecord(form, layer.rank, FORMS[form].details(layer) | details_of(model, name))  # type: ignore[arg-type]


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder; it is unchanged since it was saved, the other files may not be.

    Raises:
        FileError: missing, cut short, changed, of a newer narrows, or with a form that this one does not know.
    """
    file = plain_file(folder, MANIFEST)
    data = file.read_bytes()
    _check_forms(file, data)
    manifest = load_value(Manifest, data, source=str(file), schema=MANIFEST_SCHEMA)
    found = _SEAL.search(data)
    if found is None or hashlib.sha256(data[: found.start(1)] + data[found.end(1) :]).hexdigest() != manifest.sha256:
        raise FileError(f"{file} was changed after it was saved: its SHA-256 is not the one it ends with. {AGAIN}")
    return manifest


def verified(folder: Path) -> Manifest:
    """Return the manifest of a folder in which every file and every tensor is what it says.

    Reads everything once: 1.8 GB/s on one core with SHA instructions.

    Raises:
        FileError: something is missing, changed, added to a shard, or lies outside the folder; the text names it.
    """
    manifest = check_files(folder)
    for shard in sorted({record.file for record in manifest.tensors.values()}):
        file = plain_file(folder, shard)
        _check_shard(file, {name: one for name, one in manifest.tensors.items() if one.file == shard})
    return manifest


def check_files(folder: Path) -> Manifest:
    """Return the manifest of a folder in which every file but the shards is what it says.

    Raises:
        FileError: as `verified`.
    """
    manifest = read_manifest(folder)
    check_no_adapter(folder)
    for name, digest in manifest.files.items():
        if sha256_file(plain_file(folder, name)) != digest:
            raise FileError(f"{folder / name} is not what {MANIFEST} says: it was changed after the save. {AGAIN}")
    return manifest


def shard_records(folder: Path, shards: Iterable[str]) -> dict[str, TensorRecord]:
    """Return what the given safetensors files of a folder hold, by tensor name."""
    found: dict[str, TensorRecord] = {}
    for shard in shards:
        with _opened(folder / shard) as opened:
            names = tuple(opened.keys())
            with ThreadPoolExecutor(_THREADS) as pool:
                records = pool.map(lambda name: _record(shard, opened.get_tensor(name)), names)  # noqa: B023
                found |= dict(zip(names, records, strict=True))
    return found


def sha256_file(file: Path) -> str:
    """Return 64 hex digits of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def check_no_adapter(folder: Path) -> None:
    """Raise FileError for a folder whose weights transformers would change by an adapter beside them."""
    if (folder / ADAPTER).exists():
        raise FileError(f"{folder} holds an adapter ({ADAPTER}): keep it in a folder of its own and add it with PEFT.")


def plain_file(folder: Path, name: str) -> Path:
    """Return folder / name, which must be a plain name of a regular file that lies there.

    A link may lead within the folder, or from a snapshot of the Hugging Face cache to its blobs.

    Raises:
        FileError: another name, a link that leaves the folder, a missing file, a pickle.
    """
    if not is_plain_name(name):
        raise FileError(
            f"{folder / MANIFEST} names the file {shown(name)!r}: only plain names inside the folder are read."
        )
    check_inside(folder, name)
    if not (folder / name).exists():
        raise FileError(f"{folder} has no {name}, which belongs to a model that narrows saved. {AGAIN}")
    check_file(folder / name)
    return folder / name


def check_inside(folder: Path, name: str) -> None:
    """Raise FileError for a link that leaves the folder, and for what is neither a file nor a folder."""
    home = Path(os.path.realpath(folder))  # Path.resolve raises at a link that leads to itself
    allowed = {home, home.parent.parent / "blobs"} if home.parent.name == "snapshots" else {home}
    target = Path(os.path.realpath(folder / name))
    if target.parent not in allowed:
        raise FileError(f"{folder / name} is a link to {target}, outside its folder. {AGAIN}")
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise FileError(f"{folder / name} is not a regular file. {AGAIN}")


def _check_forms(file: Path, data: bytes) -> None:
    """Raise FileError, with the version to install, for a form that came after this version."""
    try:
        manifest: Any = json.loads(data)
        forms = {str(name): str(one["form"]) for name, one in manifest["layers"].items()}
        version = str(manifest["version"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # no manifest: `load_value` says what is wrong
    for name, form in forms.items():
        if form not in FORMS:
            raise FileError(
                f"{file}: layer {shown(name)} has the form {shown(form)!r}, which this narrows does not know "
                f"(it knows {', '.join(FORMS)}). Install narrows {shown(version, 20)} or newer."
            )


def _check_shard(file: Path, expected: Mapping[str, TensorRecord]) -> None:
    found = shard_records(file.parent, [file.name])
    if found.keys() != expected.keys():
        odd = min(found.keys() ^ expected.keys())
        what = "lacks the tensor" if odd in expected else "holds a tensor that is not in the manifest,"
        raise FileError(f"{file} {what} {shown(odd)!r}. {AGAIN}")
    for name, record in expected.items():
        if (found[name].dtype, found[name].shape) != (record.dtype, record.shape):
            raise FileError(
                f"{file}: tensor {shown(name)!r} is {found[name].dtype} {found[name].shape}, {MANIFEST} says "
                f"{shown(record.dtype)} {shown(record.shape)}. {AGAIN}"
            )
        if found[name].sha256 != record.sha256:
            raise FileError(f"{file}: the content of tensor {shown(name)!r} is not what was saved (SHA-256). {AGAIN}")


def _record(shard: str, tensor: Any) -> TensorRecord:
    return TensorRecord(shard, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), sha256_tensor(tensor))
