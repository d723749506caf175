"""Intervals of means, ratios and correlations by bootstrap over what is independent: documents or items."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from narrows._values._check import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CONFIDENCE = 0.95
FEWEST = 5
RESAMPLES = 10_000
CHUNK = 500  # resamples at a time: 500 x 5000 documents are 20 MB


def mean_over_documents(values_N: Floats, counts_N: Floats, documents_N: NDArray[np.int64], *, seed: int) -> Estimate:
    """Return sum(values) / sum(counts) with its 95 % interval, resampling whole documents.

    Tokens of one document are alike, so tokens (or windows) drawn one by one would make the interval too narrow.

    Args:
        values_N: sums over each window, (N,).
        counts_N: tokens of each window, (N,).
        documents_N: which document each window comes from, (N,).
        seed: of the resampling.
    """
    _, place_N = np.unique(documents_N, return_inverse=True)
    sums_D = np.bincount(place_N, weights=values_N)
    tokens_D = np.bincount(place_N, weights=counts_N)
    value = float(sums_D.sum() / tokens_D.sum())

    def means(picks_BD: NDArray[np.int64]) -> Floats:
        found: Floats = sums_D[picks_BD].sum(axis=1) / tokens_D[picks_BD].sum(axis=1)
        return found

    return bootstrap(means, len(sums_D), value=value, seed=seed)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], Floats],
    count: int,
    *,
    value: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return a value with the 95 % interval of its bootstrap distribution.

    Percentiles, moved outwards for small counts: at the level Phi(-sqrt(n / (n - 1)) t), t being Student's with n - 1
    degrees of freedom, they are as wide as a t interval of a mean (T. Hesterberg, What Teachers Should Know About the
    Bootstrap, 2015). Below 5 items no interval is given: at 3 it covered 74 % in simulation, at 5 to 40 94 to 97 %.

    Args:
        statistic: picks (B, n) of items, with repetition -> B values.
        count: n, how many items there are.
        value: of the items themselves.
        seed: of the picks.
        resamples: how many times the items are drawn.
    """
    if count < FEWEST:
        return Estimate(value, None, None)
    generator = np.random.default_rng(seed)
    sizes = [min(CHUNK, resamples - done) for done in range(0, resamples, CHUNK)]
    drawn = np.concatenate([statistic(generator.integers(count, size=(size, count))) for size in sizes])
    tail = _tail(count)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def _tail(count: int) -> float:
    from scipy.stats import norm, t

    quantile = t.ppf((1 + CONFIDENCE) / 2, count - 1)
    return float(norm.cdf(-np.sqrt(count / (count - 1)) * quantile))
