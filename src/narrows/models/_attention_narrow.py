"""A model's attention narrowed from text: calibrate, narrow, tell how."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from narrows.errors import InputError
from narrows.models._attention import CONTEXT, attention_, attention_inputs
from narrows.models._calibrate import calibrate, short_of_tokens
from narrows.models._check_text import documents_sha256
from narrows.models._compress_checks import check_reads_text
from narrows.models._compress_text import Reading
from narrows.models._match import targets
from narrows.models._recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

    from torch import nn

    from narrows._values import Moments
    from narrows.models._attention import Widths
    from narrows.models._attention_summary import AttentionSummary
    from narrows.models._match import Target

    Progress = Callable[[str, int, int], None] | None

DEFAULT = Recipe()
TOLD = ("query_key_error", "value_error", "reason")
READ = ("calibration_tokens", "context", "seed", "autocast")  # of the recipe; the rest is about linear layers


def narrow_attention_(
    model: nn.Module,
    widths: Widths,
    *,
    documents: Sequence[str] | str | PathLike[str] | None = None,
    tokenizer: Any = None,
    inputs: Sequence[Mapping[str, torch.Tensor]] | None = None,
    recipe: Recipe = DEFAULT,
    rotary_context: int = CONTEXT,
    store: str | PathLike[str] | None = None,
    progress: Progress = None,
) -> AttentionSummary:
    """Give a model's attention narrower heads, in place, the best for given text; return what was done and what not.

    Queries and keys are narrowed together, and values with the output layer. A cache then holds narrow keys and
    values, and attention itself does less; what the heads compute changes, by the errors that the summary tells.
    Attention of families that are not known, or that cannot be narrow, stays as it is and is listed with the reason.

    Args:
        model: of transformers, dense, on its device.
        widths: `AttentionWidths(query_key=..., value=...)` for every attention, or a mapping of such by its name;
            None, and names that are not given, stay as they are. With rotary positions query_key is even.
        documents: texts, or the path of a .jsonl or .txt file or of a folder of them; a part of them calibrates.
        tokenizer: of the model.
        inputs: in place of documents: the model's keyword arguments, one mapping for each forward pass. For text
            unlike documents, as single words or questions, give that: moments of long windows are not theirs.
        recipe: how much is read, and how: calibration_tokens, context (tokens a window), seed, autocast.
        rotary_context: tokens that rotary positions are averaged over: the length that matters most.
        store: a folder where calibration is kept, so that a run that was stopped goes on.
        progress: called with what is done, how much, and of how much.

    Raises:
        InputError: neither documents nor inputs, a name is no attention of the model, or the model is quantised,
            compressed, or carries adapters.
        RankError: a width that the heads do not have. The model is as it was.
        NonFiniteError, ResourceError, FileError: from the steps; the texts name layer and value.
    """
    if rotary_context < 1:
        raise InputError(f"rotary_context={rotary_context} must be at least 1 token.")
    reading = Reading.of(documents, tokenizer, inputs, recipe)
    names = attention_inputs(model, widths)
    chosen = targets(model, lambda _, name: name in names) if names else ()
    moments = _moments(model, chosen, reading, store, progress) if names else {}
    done = attention_(model, moments, widths, context=rotary_context, progress=progress)
    noted = replace(done, notes=short_of_tokens(chosen, moments))
    return replace(noted, certificate=_certificate(reading, rotary_context, noted))


def _moments(
    model: nn.Module,
    chosen: Sequence[Target],
    reading: Reading,
    store: str | PathLike[str] | None,
    progress: Progress,
) -> Mapping[str, Moments]:
    if reading.inputs is None:
        check_reads_text(model)
    reading.check(model)
    autocast = reading.recipe.autocast
    return calibrate(
        model,
        reading.calibration,
        chosen,
        seed=reading.recipe.seed,
        gradients=False,
        store=store,
        autocast=None if autocast is None else getattr(torch, autocast),
        progress=progress,
    )


def _certificate(reading: Reading, rotary_context: int, done: AttentionSummary) -> dict[str, Any]:
    """Return what a manifest keeps of how the heads were made."""
    recipe, texts = reading.recipe, None
    if reading.inputs is None:
        path = None if reading.path is None else str(reading.path)
        texts = {"path": path, "sha256": documents_sha256(reading.documents), "seed": recipe.seed}
    return {
        "texts": texts,
        "recipe": {**{name: getattr(recipe, name) for name in READ}, "rotary_context": rotary_context},
        "cache_share": done.cache_share,
        "attention": {
            layer.name: {name: one for name in TOLD if (one := getattr(layer, name)) not in {None, ""}}
            for layer in done.layers
        },
        "notes": list(done.notes),
    }
