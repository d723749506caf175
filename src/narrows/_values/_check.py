"""What a check found: two models side by side in quality, speed and memory, and whether a budget is met."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from narrows._values._json import load_value, sealed
from narrows._values._model_plan import ModelBudget
from narrows._values._workload import Workload

SideName = Literal["dense", "narrows", "int8", "naive"]
ModelKind = Literal["causal", "encoder"]
Answer = Literal["met", "broken", "cannot tell"]
BudgetPart = Literal["perplexity", "keep", "speedup", "max_bytes"]
CHECK_SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with the ends of its interval (95 %, over documents or items); None: too few to tell."""

    value: float
    low: float | None
    high: float | None

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class TextUsed:
    """Which text a check read.

    Attributes:
        source: the file's name, or "given" for texts that came as values.
        sha256: of the file; of the documents where there is no file.
        part: "check": what calibration and choice did not see; "all": the whole text.
        documents, windows, tokens: documents in use, windows drawn from them, tokens a window (for an encoder, the
            most that it reads of one document).
        seed: with which windows were drawn.
    """

    source: str
    sha256: str
    part: Literal["check", "all"]
    documents: int
    windows: int
    tokens: int
    seed: int

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class LanguageQuality:
    """How well a causal model foretells the text; all but the first against dense, paired by document.

    Attributes:
        perplexity: exp of the mean negative log-likelihood.
        ratio: perplexity / dense perplexity; None for dense itself, as the others.
        divergence: mean over tokens of KL(dense || this), nats.
        agreement: share of tokens where both name the same next token first.
    """

    perplexity: float
    ratio: Estimate | None = None
    divergence: Estimate | None = None
    agreement: Estimate | None = None

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class EncoderQuality:
    """How well an encoder keeps what dense embeddings say.

    Attributes:
        similarity: mean cosine of this model's and dense's embeddings of a document; None for dense itself.
        correlation: Spearman's, of cosines of word pairs with people's scores; None without pairs.
        correlation_change: correlation minus dense's.
        accuracy: share of labelled lines classified right from their embeddings, over 5 folds; None without labels.
        accuracy_change: accuracy minus dense's.
    """

    similarity: Estimate | None = None
    correlation: float | None = None
    correlation_change: Estimate | None = None
    accuracy: float | None = None
    accuracy_change: Estimate | None = None

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class CheckedSide:
    """One of the models that stand side by side.

    Attributes:
        name: "dense", "narrows" (the compressed one), "int8" (dense with 8-bit weights), "naive" (the factors of
            "narrows" run as plain torch layers).
        missing: why it is not shown; empty where it is.
        numbers, kept_bytes: stored for the weights of the block linears, biases apart.
        weight_bytes: all weights and buffers in memory.
        disk_bytes: files of weights; None where there are none.
        language, encoder: quality, by the kind of model; None: not measured ("naive" is "narrows" up to rounding).
    """

    name: SideName
    missing: str = ""
    numbers: int | None = None
    kept_bytes: int | None = None
    weight_bytes: int | None = None
    disk_bytes: int | None = None
    language: LanguageQuality | None = None
    encoder: EncoderQuality | None = None

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one side at one workload; sample i of every side of a workload comes from round i.

    Attributes:
        samples_ns: one call each.
        peak_bytes: of weights, cache and what one call adds; None: not measured.
    """

    workload: Workload
    side: SideName
    samples_ns: tuple[float, ...]
    peak_bytes: int | None

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class GreedySample:
    """What both models write after the same prompt, always taking the likeliest token."""

    prompt: str
    dense: str
    compressed: str

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """One part of a budget against what was measured.

    Attributes:
        part: which limit.
        limit: as the budget has it (perplexity 0.01 is a growth of 1 %).
        found: in the same unit; None: not measured.
        answer: "met" and "broken" only where the whole interval lies on that side of the limit.
        reason: one sentence with the figures.
    """

    part: BudgetPart
    limit: float
    found: Estimate | None
    answer: Answer
    reason: str

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Check:
    """A compressed model against its dense one, measured in one run on one machine.

    Attributes:
        model, folder: names of the dense and of the compressed one.
        memory_source: what peak memory is, in words.
    """

    model: str
    folder: str
    kind: ModelKind
    dtype: str
    device_name: str
    fingerprint: str
    version: str
    text: TextUsed | None
    sides: tuple[CheckedSide, ...]
    timings: tuple[Timing, ...]
    sample: GreedySample | None
    budget: ModelBudget | None
    judgements: tuple[Judgement, ...]
    memory_source: str
    schema: int = CHECK_SCHEMA

    __pydantic_config__ = {"extra": "forbid"}

    @property
    def is_met(self) -> bool:
        """Every part of the budget is met (true without a budget)."""
        return all(one.answer == "met" for one in self.judgements)

    @property
    def is_broken(self) -> bool:
        """Some part of the budget is broken beyond doubt."""
        return any(one.answer == "broken" for one in self.judgements)

    def side(self, name: SideName) -> CheckedSide:
        """Return the side of that name."""
        return next(side for side in self.sides if side.name == name)

    def to_json(self) -> str:
        """Return the check as one JSON document."""
        return sealed(asdict(self), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "check") -> Check:
        """Read what `to_json` wrote.

        Raises:
            FileError: not JSON, not such a check, of a newer schema, or changed since; the text names the place.
        """
        return load_value(cls, text, source=source, schema=CHECK_SCHEMA, is_sealed=True)
