"""Which text a check reads: what calibration and choice did not see."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from narrows._values._check import TextUsed
from narrows.errors import FileError, InputError
from narrows.models._texts import read_documents, split, windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from narrows.models._manifest import Manifest
    from narrows.models._texts import Windows

CONTEXT = 512


@dataclass(frozen=True, eq=False)
class CheckText:
    """The text of a check.

    Attributes:
        documents: that windows come from; for an encoder, those that it reads.
        windows: of tokens; None for an encoder.
    """

    used: TextUsed
    documents: tuple[str, ...]
    windows: Windows | None


def check_text(
    texts: Sequence[str] | str | PathLike[str] | None,
    manifest: Manifest | None,
    tokenizer: Any,
    *,
    is_causal: bool,
    tokens: int,
    number: int,
    seed: int,
) -> CheckText:
    """Return the text that both models read.

    Of the text that the manifest names, only the part that was kept for checks.

    Args:
        texts: as `read_documents` takes it; None: what the manifest names.
        manifest: of the compressed folder.
        tokenizer: of the model.
        is_causal: cut into windows; else whole documents.
        tokens: a window.
        number: of windows, or of documents at most.
        seed: of what is drawn.

    Raises:
        InputError: no text is given and none is found, or there is too little of it.
        FileError: a file of it cannot be read.
    """
    known: Mapping[str, Any] = {} if manifest is None else manifest.certificate.get("texts") or {}
    source, documents = _read(texts, known)
    digest = documents_sha256(documents)
    is_known = digest == known.get("sha256")
    part = split(documents, seed=int(known["seed"])).check if is_known else documents
    found = windows(part, tokenizer, tokens=tokens, number=number, seed=seed) if is_causal else None
    if found is None:
        part = tuple(random.Random(seed).sample(part, min(number, len(part))))  # noqa: S311 (no secret)
    used = TextUsed(
        source=source,
        sha256=digest,
        part="check" if is_known else "all",
        documents=len(part) if found is None else len(set(found.documents_N.tolist())),
        windows=0 if found is None else len(found.ids_NT),
        tokens=tokens,
        seed=seed,
    )
    return CheckText(used, part, found)


def documents_sha256(documents: Sequence[str]) -> str:
    """Return 64 hex digits of the SHA-256 of documents in order, wherever they come from."""
    digest = hashlib.sha256()
    for document in documents:
        text = document.encode()
        digest.update(f"{len(text)} ".encode() + text)
    return digest.hexdigest()


def context_of(model: nn.Module) -> int:
    """Return 512 tokens, or fewer where the model has no positions for them."""
    config: Any = model.config
    return min(CONTEXT, getattr(config.get_text_config(), "max_position_embeddings", None) or CONTEXT)


def _read(texts: Sequence[str] | str | PathLike[str] | None, known: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return what to call the text, and its documents."""
    if texts is not None:
        is_path = isinstance(texts, (str, PathLike))
        return (Path(texts).name if is_path else "given"), read_documents(texts)  # type: ignore[arg-type]
    path = known.get("path")
    if not path:
        raise InputError(
            "texts: give a .txt or .jsonl file that calibration did not read (the folder names no text that it was "
            "calibrated on)."
        )
    try:
        documents = read_documents(path)
    except (FileError, InputError) as fault:
        raise InputError(f"texts: the text that the folder names is not there: {fault} Give a file.") from None
    if documents_sha256(documents) != known.get("sha256"):
        raise InputError(
            f"texts: {path} is not what it was when the model was calibrated on a part of it (SHA-256). Give a file."
        )
    return Path(path).name, documents
