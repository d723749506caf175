"""What a compression reads: text that calibrates, other text that a choice is measured on.

Letters: N windows, T tokens a window.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from narrows.errors import InputError
from narrows.models._check_interval import FEWEST
from narrows.models._recipe import FEWEST_WINDOWS
from narrows.models._texts import Parts, Windows, read_documents, split, windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import nn

    from narrows.models._recipe import Recipe

    Documents = Sequence[str] | str | PathLike[str]
    Inputs = Sequence[Mapping[str, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Reading:
    """Documents and their tokenizer, or a model's own inputs; what is made of them is made once.

    Attributes:
        documents: none where `inputs` are given.
        path: of the file or folder that they were read from; None: they were handed over.
        inputs: keyword arguments of the model, one mapping for each forward pass.
    """

    documents: Sequence[str]
    path: Path | None
    tokenizer: Any
    inputs: Inputs | None
    recipe: Recipe

    @classmethod
    def of(cls, documents: Documents | None, tokenizer: Any, inputs: Inputs | None, recipe: Recipe) -> Reading:
        """Return what is read.

        Raises:
            InputError: both documents and inputs, neither, or documents without their tokenizer.
            FileError: as `read_documents`.
        """
        if (documents is None) == (inputs is None):
            raise InputError("give documents with their tokenizer, or inputs for a model that reads no text.")
        if documents is not None and tokenizer is None:
            raise InputError("documents need tokenizer, the one of the model.")
        path = Path(documents).resolve() if isinstance(documents, (str, PathLike)) else None
        return cls(() if documents is None else read_documents(documents), path, tokenizer, inputs, recipe)

    @property
    def calibration(self) -> torch.Tensor | Inputs:
        """What calibrates: token ids (N, T), or the inputs."""
        return self.inputs if self.inputs is not None else self._calibration.ids_NT

    @property
    def first(self) -> torch.Tensor | Mapping[str, torch.Tensor]:
        """One window of it."""
        return self.inputs[0] if self.inputs is not None else self._calibration.ids_NT[:1]

    @cached_property
    def selection(self) -> Windows:
        """Windows that a choice is measured on.

        Raises:
            InputError: too little text.
        """
        recipe, documents = self.recipe, self.parts.selection
        number = -(-recipe.selection_tokens // recipe.context)
        with suppress(InputError):
            return self._windows(documents, number)
        with suppress(InputError):
            found = self._windows(documents, None)
            if len(found.ids_NT) >= FEWEST_WINDOWS:
                return found
        raise InputError(
            f"the {len(documents)} documents of {sum(map(len, documents)):,} characters that a choice is measured on "
            f"(15 % of the text) make fewer than {FEWEST_WINDOWS} windows of {recipe.context} tokens: give more text, "
            "or a smaller context."
        )

    @cached_property
    def training(self) -> torch.Tensor:
        """Token ids that recovery trains on, (N, T): all of the part that calibrates."""
        return self._windows(self.parts.calibration, None).ids_NT

    @cached_property
    def parts(self) -> Parts:
        """The documents for calibration, selection and check."""
        return split(self.documents, seed=self.recipe.seed)

    def check(self, model: nn.Module) -> None:
        """Raise InputError where there is too little text, or the model cannot read it.

        Args:
            model: its positions and its words limit what it reads.
        """
        if self.inputs is not None:
            if not len(self.inputs):
                raise InputError("inputs is empty: give at least one mapping of the model's keyword arguments.")
            return
        config: Any = getattr(model, "config", None)
        text = None if config is None else config.get_text_config()
        positions = getattr(text, "max_position_embeddings", None)
        if positions is not None and self.recipe.context > positions:
            raise InputError(f"context={self.recipe.context} tokens are more than the {positions} the model reads.")
        words, largest = getattr(text, "vocab_size", None), int(self._calibration.ids_NT.max())
        if words is not None and largest >= words:
            raise InputError(f"the tokenizer gives token {largest}, the model has {words} words: it is of another one.")

    def notes(self) -> tuple[str, ...]:
        """Return what is to be known of the text that a choice was measured on."""
        found, recipe = self.selection, self.recipe
        tokens, documents = found.ids_NT.numel(), len(set(found.documents_N.tolist()))
        notes = []
        if tokens < recipe.selection_tokens:
            asked = recipe.selection_tokens
            notes.append(f"the choice was measured on {tokens} tokens, not {asked}: there is no more text.")
        if documents < FEWEST:
            notes.append(
                f"the choice was measured on {documents} documents, fewer than {FEWEST}: there is no interval, and "
                "budgets were held to the value itself."
            )
        return tuple(notes)

    @cached_property
    def _calibration(self) -> Windows:
        return self._windows(self.parts.calibration, -(-self.recipe.calibration_tokens // self.recipe.context))

    def _windows(self, documents: Sequence[str], number: int | None) -> Windows:
        return windows(documents, self.tokenizer, tokens=self.recipe.context, number=number, seed=self.recipe.seed)
