"""Quality of every side of a check beside dense, on the same text.

"naive" is left out: its factors are those of "narrows", so its quality is the same up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from narrows._values._check import GreedySample
from narrows.models._perplexity import dense_quality, language_quality, paired_losses
from narrows.models._sample import greedy, prompt_of
from narrows.models._similarity import encoder_quality, seen_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from narrows._values._check import CheckedSide, ModelKind, SideName
    from narrows.models._check_data import Labelled, Pairs
    from narrows.models._check_text import CheckText

    Progress = Callable[[str, int, int], None] | None
    Sides = Mapping[SideName, CheckedSide]
    Models = Mapping[SideName, nn.Module]


@dataclass(frozen=True, eq=False)
class Reading:
    """What the models read, and how.

    Attributes:
        pairs, labelled: for encoders; None: not measured.
        seed: of folds and of everything that is resampled.
    """

    text: CheckText
    tokenizer: Any
    pairs: Pairs | None
    labelled: Labelled | None
    seed: int
    progress: Progress

    def quality(self, kind: ModelKind, sides: Sides, models: Models) -> dict[SideName, CheckedSide]:
        """Return the sides with the quality of their models."""
        return self._causal(sides, models) if kind == "causal" else self._encoder(sides, models)

    def _causal(self, sides: Sides, models: Models) -> dict[SideName, CheckedSide]:
        text = self.text.windows
        assert text is not None
        others = {name: model for name, model in models.items() if name not in {"dense", "naive"}}
        losses, paired = paired_losses(models["dense"], others, text.ids_NT, progress=self.progress)
        found = dict(sides)
        found["dense"] = replace(found["dense"], language=dense_quality(losses))
        for name, one in paired.items():
            quality = language_quality(name, losses, one, text.documents_N, self.seed)
            found[name] = replace(found[name], language=quality)
        return found

    def _encoder(self, sides: Sides, models: Models) -> dict[SideName, CheckedSide]:
        seen = {name: seen_by(name, model, self) for name, model in models.items() if name != "naive"}
        found = dict(sides)
        for name, one in seen.items():
            other = None if name == "dense" else one
            quality = encoder_quality(seen["dense"], other, self.pairs, seed=self.seed)
            found[name] = replace(found[name], encoder=quality)
        return found

    def sample(self, dense: nn.Module, compressed: nn.Module) -> GreedySample:
        """Return what both models write after the beginning of the first document."""
        prompt = prompt_of(self.text.documents[0], self.tokenizer)
        return GreedySample(prompt, *(greedy(model, self.tokenizer, prompt) for model in (dense, compressed)))
