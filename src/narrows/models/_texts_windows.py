"""Windows of tokens, as a model reads them.

Letters: N windows, T tokens.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from narrows.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENOUGH = 8  # times the windows asked for: of more text than that, the rest is not tokenised


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of one length, none of which overlap.

    Attributes:
        ids_NT: (N, T) int64, in the order of the documents.
        documents_N: (N,) int64, the index of the document that each window is of; windows of one
            document are not independent. Of joined short documents the first one's.
        begin, end: ids that the tokenizer puts around every text by itself, and so stand around every
            window: a BOS, [CLS] and [SEP]; empty where it adds none.
    """

    ids_NT: torch.Tensor
    documents_N: torch.Tensor
    begin: tuple[int, ...]
    end: tuple[int, ...]


def windows(documents: Sequence[str], tokenizer: Any, *, tokens: int, number: int | None, seed: int) -> Windows:
    """Return windows of T tokens, cut one after another from documents; the seed decides which of them.

    A document shorter than a window is joined with the ones that follow it in the seed's order until
    they fill one. A BOS is used where the tokenizer adds it by itself, which is how the model was
    trained, and not where the tokenizer only names one.

    Args:
        tokenizer: of transformers.
        tokens: T, with what the tokenizer adds.
        number: N; None: every window that the documents make.

    Raises:
        InputError: too little text for N windows, or T is no more than what the tokenizer adds.
    """
    begin, end = _marks(tokenizer)
    body = tokens - len(begin) - len(end)
    if body < 1 or (number is not None and number < 1):
        raise InputError(
            f"tokens={tokens} and number={number}: at least 1 window, longer than the {len(begin) + len(end)} tokens "
            "that the tokenizer adds, is needed."
        )
    found: list[tuple[int, int, list[int]]] = []
    for document, ids in _long_enough(documents, tokenizer, body, seed):
        cuts = range(0, len(ids) - body + 1, body)
        found += [(document, cut, [*begin, *ids[cut : cut + body], *end]) for cut in cuts]
        if number is not None and len(found) >= ENOUGH * number:
            break
    number = len(found) if number is None else number
    if len(found) < max(number, 1):
        raise InputError(_too_little(documents, tokens, number, len(found)))
    chosen = sorted(random.Random(seed).sample(found, number), key=lambda one: one[:2])  # noqa: S311 (no secret)
    ids_NT = torch.tensor([ids for _, _, ids in chosen], dtype=torch.int64)
    return Windows(ids_NT, torch.tensor([document for document, _, _ in chosen]), begin, end)


def _long_enough(documents: Sequence[str], tokenizer: Any, body: int, seed: int) -> Iterator[tuple[int, list[int]]]:
    """Yield (index, ids) of at least one window each; short documents are joined under the first one's index."""
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)  # noqa: S311 (no secret)
    gap = _ids(tokenizer, "\n\n")
    first, held = -1, list[int]()
    for i in order:
        ids = _ids(tokenizer, documents[i])
        if len(ids) >= body:
            yield i, ids
            continue
        first, held = (first, [*held, *gap, *ids]) if held else (i, ids)
        if len(held) >= body:
            yield first, held
            held = []


def _marks(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what the tokenizer puts before and after a text by itself."""
    bare, whole = _ids(tokenizer, "a b"), list(tokenizer("a b", verbose=False)["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return tuple(whole[:start]), tuple(whole[start + len(bare) :])
    raise InputError(
        f"the tokenizer makes {whole} of 'a b' and {bare} without special tokens: its marks are not known."
    )


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _too_little(documents: Sequence[str], tokens: int, number: int, found: int) -> str:
    characters = sum(map(len, documents))
    more = f"about {characters * number // found:,} characters" if found else "longer documents"
    return (
        f"{len(documents)} documents of {characters:,} characters make {found} windows of {tokens} tokens, and "
        f"{number} are asked for: give {more}, or ask for fewer or shorter windows."
    )
