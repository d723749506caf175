"""From rows of the quality benchmark to a table and verdicts: pure functions of what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from _baselines_names import BASELINES, METHODS, TARGETS
from _rows import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Row = dict[str, Any]


def report(rows: Sequence[Row]) -> str:
    """Return a table of all rows: perplexity and its ratio to dense's on both texts, and whether targets are met."""
    lines = []
    for one in sorted(rows, key=lambda one: (-one["keep"], one["seed"], ["dense", *METHODS].index(one["method"]))):
        texts = [one["texts"][name] for name in ("wikipedia", "news")]
        cells = [part for text in texts for part in (f"{text['perplexity']:.4g}", interval(text["ratio"]))]
        lines.append(
            (one["keep"], one["seed"], one["method"], f"{one['kept']:.4f}", one["dense_layers"], *cells, one["seconds"])
        )
    heads = ("keep", "seed", "method", "kept", "dense", "wikipedia", "x dense [95 %]", "news", "x dense [95 %]", "s")
    return table(heads, lines) + "\n" + "\n".join(verdicts(rows))


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Return for each row that has a target whether it meets its target and lies below every baseline of its seed."""
    found = []
    for one in rows:
        most = TARGETS.get(one["method"], {}).get(one["keep"])
        if most is None:
            continue
        ratio = one["texts"]["wikipedia"]["ratio"]["value"]
        rivals = {
            other["method"]: other["texts"]["wikipedia"]["ratio"]["value"]
            for other in rows
            if (other["seed"], other["keep"]) == (one["seed"], one["keep"]) and other["method"] in BASELINES
        }
        best = min(rivals, key=rivals.__getitem__, default=None)
        against = "no baseline measured" if best is None else f"best baseline {best} {rivals[best]:.3f}"
        found.append(
            f"{one['method']} at keep {one['keep']}, seed {one['seed']}: {ratio:.3f} x dense, at most {most} wanted: "
            f"{'yes' if ratio <= most else 'no'}; {against}"
        )
    return found


def interval(ratio: Mapping[str, float | None]) -> str:
    """Return "1.05 [1.04, 1.06]"."""
    if ratio["low"] is None or ratio["high"] is None:
        return f"{ratio['value']:.4g}"
    return f"{ratio['value']:.4g} [{ratio['low']:.4g}, {ratio['high']:.4g}]"
