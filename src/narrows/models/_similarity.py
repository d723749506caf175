"""How far encoders keep what dense embeddings say: of documents, of word pairs, of labelled lines.

Letters: N texts, D features, T tokens, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from narrows._values._check import EncoderQuality, Estimate
from narrows.errors import NonFiniteError
from narrows.models._check_interval import bootstrap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from narrows.models._check_data import Pairs
    from narrows.models._check_quality import Reading

    Floats = NDArray[np.float64]
    Progress = Callable[[str, int, int], None] | None

BATCH = 32
FOLDS = 5
RIDGE = 0.01  # of the mean variance of a feature: enough where there are more features than lines
RESAMPLES = 2000


@torch.inference_mode()
def embeddings(
    name: str, model: nn.Module, tokenizer: Any, texts: Sequence[str], *, tokens: int, progress: Progress = None
) -> Floats:
    """Return one unit vector a text, (N, D): the mean of the last hidden states over its tokens.

    Args:
        name: of the model, for errors and progress.
        model: an encoder of transformers.
        tokenizer: of that model.
        texts: N texts.
        tokens: what is longer is cut here.
        progress: called with (what, texts done, texts in all).

    Raises:
        NonFiniteError: the model gives NaN or Inf.
    """
    inner: Any = getattr(model, "base_model", model)
    rows = []
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        inputs = tokenizer(batch, padding=True, truncation=True, max_length=tokens, return_tensors="pt")
        inputs = {key: value.to(next(model.parameters()).device) for key, value in inputs.items()}
        rows.append(_pooled(inner(**inputs).last_hidden_state, inputs["attention_mask"]))
        if progress is not None:
            progress(f"embeddings of {name}", start + len(batch), len(texts))
    found: Floats = torch.cat(rows).numpy()
    if not np.isfinite(found).all():
        raise NonFiniteError(f"{name} gives NaN or Inf embeddings. Its weights or its dtype are at fault: try float32.")
    return found


def _pooled(hidden_NTD: Tensor, mask_NT: Tensor) -> Tensor:
    mask_NT1 = mask_NT[..., None].double()
    mean_ND = (hidden_NTD.double() * mask_NT1).sum(dim=1) / mask_NT1.sum(dim=1)
    return torch.nn.functional.normalize(mean_ND, dim=-1).cpu()


@dataclass(frozen=True, eq=False)
class Seen:
    """What one encoder makes of every text that a check has.

    Attributes:
        documents: embeddings (N, D).
        cosines: of each word pair; None without pairs.
        is_right: 1.0 where a labelled line is classified right; None without labels.
    """

    documents: Floats
    cosines: Floats | None = None
    is_right: Floats | None = None


def seen_by(name: str, model: nn.Module, reading: Reading) -> Seen:
    """Return what an encoder makes of the documents, the word pairs and the labelled lines.

    Raises:
        NonFiniteError: the model gives NaN or Inf.
    """
    pairs, labelled = reading.pairs, reading.labelled

    def embed(texts: Sequence[str]) -> Floats:
        tokens = reading.text.used.tokens
        return embeddings(name, model, reading.tokenizer, texts, tokens=tokens, progress=reading.progress)

    cosines = None if pairs is None else (embed(pairs.first) * embed(pairs.second)).sum(axis=1)
    is_right = None if labelled is None else is_classified(embed(labelled.texts), labelled.labels, seed=reading.seed)
    return Seen(embed(reading.text.documents), cosines, is_right)


def encoder_quality(dense: Seen, other: Seen | None, pairs: Pairs | None, *, seed: int) -> EncoderQuality:
    """Return the quality of an encoder against dense, each text paired with itself; of dense alone without `other`."""
    mine = dense if other is None else other
    return EncoderQuality(
        similarity=None if other is None else _mean((dense.documents * other.documents).sum(axis=1), seed),
        correlation=None if pairs is None or mine.cosines is None else _spearman(mine.cosines, pairs),
        correlation_change=None if other is None else _correlation_change(dense, other, pairs, seed),
        accuracy=None if mine.is_right is None else float(mine.is_right.mean()),
        accuracy_change=None
        if other is None or other.is_right is None or dense.is_right is None
        else _mean(other.is_right - dense.is_right, seed),
    )


def is_classified(features_ND: Floats, labels: Sequence[str], *, seed: int) -> Floats:
    """Return 1.0 for each text that least squares on the other four fifths puts into its class, else 0.0, (N,).

    Ridge regression onto one-hot classes (closed form), the largest output wins; folds are drawn by `seed`.
    """
    classes, target_N = np.unique(np.asarray(labels), return_inverse=True)
    fold_N = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
    found = np.zeros(len(labels))
    for fold in range(FOLDS):
        train, test = fold_N != fold, fold_N == fold
        onehot_NC = np.eye(len(classes))[target_N[train]]
        scores = _ridge(features_ND[train], onehot_NC, features_ND[test])
        found[test] = scores.argmax(axis=1) == target_N[test]
    return found


def _ridge(train_ND: Floats, target_NC: Floats, test_ND: Floats) -> Floats:
    mean_D, mean_C = train_ND.mean(axis=0), target_NC.mean(axis=0)
    centred_ND = train_ND - mean_D
    gram_DD = centred_ND.T @ centred_ND
    gram_DD += np.eye(len(gram_DD)) * max(RIDGE * np.trace(gram_DD) / len(gram_DD), np.finfo(np.float64).tiny)
    weight_DC = np.linalg.solve(gram_DD, centred_ND.T @ (target_NC - mean_C))
    scores: Floats = (test_ND - mean_D) @ weight_DC + mean_C
    return scores


def _mean(values_N: Floats, seed: int) -> Estimate:
    return bootstrap(lambda picks: values_N[picks].mean(axis=1), len(values_N), value=float(values_N.mean()), seed=seed)


def _spearman(cosines_N: Floats, pairs: Pairs) -> float:
    return float(_correlations(cosines_N[None], np.asarray(pairs.scores)[None])[0])


def _correlation_change(dense: Seen, other: Seen, pairs: Pairs | None, seed: int) -> Estimate | None:
    if pairs is None or dense.cosines is None or other.cosines is None:
        return None
    before, after, scores = dense.cosines, other.cosines, np.asarray(pairs.scores)

    def change(picks: NDArray[np.int64]) -> Floats:
        return _correlations(after[picks], scores[picks]) - _correlations(before[picks], scores[picks])

    value = float(change(np.arange(len(scores))[None])[0])
    return bootstrap(change, len(scores), value=value, seed=seed, resamples=RESAMPLES)


def _correlations(left_BN: Floats, right_BN: Floats) -> Floats:
    """Return Spearman's correlation of each pair of rows: Pearson's of their ranks, equal values sharing one."""
    from scipy.stats import rankdata

    ranks = [rankdata(side, axis=1) for side in (left_BN, right_BN)]
    left, right = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    found: Floats = (left * right).sum(axis=1) / np.where(scale > 0, scale, 1.0)
    return found
