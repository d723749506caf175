# ruff: noqa: D400 (the first line is the question)
"""Do factors of the centred inputs, with a corrected bias, lose less of a layer's output than factors of the inputs?

Everything in float64, on the activations that `make models` records: 32 windows of 256 tokens a layer. Half of
the windows tests what the other half calibrated, each in turn. Three ways, at equal rank:

    uncentred     C = E[x x^T]:                    y = W_r x + bias
    bias only     the same factors:                y = W_r x + bias + (W - W_r) mean
    centred       C = E[(x - mean)(x - mean)^T]:   y = W_r x + bias + (W - W_r) mean

with and without the first token of each window (its activations can be far larger than all others), in
calibration and in the test. The error is that of the outputs W x, relative, in the Frobenius norm; a ratio is its
error divided by that of "uncentred" in the same half.

    python benchmarks/centring.py                     about a minute; needs models/ (make models)
    python benchmarks/centring.py --output -
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
from safetensors import safe_open

import narrows
from narrows._values import Moments
from narrows.decompose import weighted

MODELS = Path(__file__).parents[1] / "models"
OUTPUT = Path(__file__).parent / "results" / "centring.json"
WINDOW = 256
KEEPS = (0.9, 0.8, 0.6, 0.4)  # r (D + E) / (D E)
SHRINKAGES = (0.0, 0.1)
WAYS = ("uncentred", "bias only", "centred")


@dataclass(frozen=True)
class Layer:
    """One linear layer: its weight (E, D) and what entered it, (windows, 256, D), both float64."""

    model: str
    name: str
    weight_ED: torch.Tensor
    x_NTD: torch.Tensor

    @property
    def ranks(self) -> dict[float, int]:
        """Return the rank that keeps each share of the weight's numbers."""
        E, D = self.weight_ED.shape
        return {keep: int(keep * D * E / (D + E)) for keep in KEEPS}


@dataclass(frozen=True)
class Setting:
    """The shrinkage of the inputs' moment, and whether the first token of each window counts."""

    shrinkage: float
    calibrated_first: bool
    tested_first: bool


def main() -> None:
    """Compare, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", default=str(OUTPUT), help='JSON to write; "-" writes none')
    arguments = parser.parse_args()
    began = time.perf_counter()
    rows = [row for layer in layers() for row in compare(layer)]
    record = {
        "question": (__doc__ or "").splitlines()[0],
        "machine": asdict(narrows.machine()),
        "window": WINDOW,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": narrows.__version__,
        "seconds": round(time.perf_counter() - began, 1),
        "rows": rows,
        "summary": summary(rows),
    }
    show(rows)
    print(json.dumps(record["summary"], indent=1))
    if arguments.output != "-":
        Path(arguments.output).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def layers() -> list[Layer]:
    """Return every layer whose activations are recorded."""
    found = []
    for folder in sorted(path.parent for path in MODELS.glob("*/activations.safetensors")):
        with (
            safe_open(folder / "activations.safetensors", "pt") as inputs,
            safe_open(folder / "model.safetensors", "pt") as weights,
        ):
            for name in inputs.keys():  # noqa: SIM118 (not a dict)
                x_NTD = inputs.get_tensor(name).double().unflatten(0, (-1, WINDOW))
                found.append(Layer(folder.name, name, weights.get_tensor(f"{name}.weight").double(), x_NTD))
    if not found:
        raise SystemExit(f"{MODELS} holds no activations: run `make models` first.")
    return found


def compare(layer: Layer) -> list[dict[str, object]]:
    """Return one row for each setting and rank of a layer."""
    rows = []
    one, two = halves(layer.x_NTD)
    for shrinkage, calibrated_first in product(SHRINKAGES, (True, False)):
        pairs = ((one, two), (two, one))
        splits = [split_errors(layer, seen[calibrated_first], tested, shrinkage) for seen, tested in pairs]
        all_seen = one[calibrated_first] + two[calibrated_first]
        for tested_first in (True, False):
            setting = Setting(shrinkage, calibrated_first, tested_first)
            rows += [row(layer, setting, keep, [x[tested_first][keep] for x in splits], all_seen) for keep in KEEPS]
    return rows


@dataclass(frozen=True)
class Sums:
    """Sums over tokens: the number of them, x (D,), x x^T (D, D)."""

    count: int
    first_D: torch.Tensor
    second_DD: torch.Tensor

    @classmethod
    def of(cls, x_TD: torch.Tensor) -> Sums:
        """Return the sums over the rows of x."""
        return cls(len(x_TD), x_TD.sum(dim=0), x_TD.mT @ x_TD)

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.count + other.count, self.first_D + other.first_D, self.second_DD + other.second_DD)

    def projected(self, a_KD: torch.Tensor) -> Sums:
        """Return the same sums of a x, (K,) and (K, K)."""
        return Sums(self.count, a_KD @ self.first_D, a_KD @ self.second_DD @ a_KD.mT)

    def around(self, mean_D: torch.Tensor) -> torch.Tensor:
        """Return the sum of (x - mean)(x - mean)^T, (D, D), for any mean."""
        cross_DD = torch.outer(self.first_D, mean_D)
        return self.second_DD - cross_DD - cross_DD.mT + self.count * torch.outer(mean_D, mean_D)


Half = dict[bool, Sums]  # the tokens of half the windows, with (True) and without (False) the first of each window
Errors = dict[str, float]


def halves(x_NTD: torch.Tensor) -> tuple[Half, Half]:
    """Return the sums of both halves of the windows."""

    def sums(half_NTD: torch.Tensor) -> Half:
        others = Sums.of(half_NTD[:, 1:].flatten(0, 1))
        return {False: others, True: others + Sums.of(half_NTD[:, 0])}

    return sums(x_NTD[: len(x_NTD) // 2]), sums(x_NTD[len(x_NTD) // 2 :])


def split_errors(layer: Layer, seen: Sums, tested: Half, shrinkage: float) -> dict[bool, dict[float, Errors]]:
    """Return the error of each way, by keep, with (True) and without (False) the first tokens in the test.

    Args:
        layer: whose weight is factorised.
        seen: what calibrates.
        tested: what the error is measured on.
        shrinkage: of the inputs' moment.
    """
    mean_D = seen.first_D / seen.count
    plain, centred = (
        weighted(
            layer.weight_ED,
            Moments(second_DD / seen.count, mean_D, None, seen.count),
            method="one-sided",
            shrink_inputs=shrinkage,
        )
        for second_DD in (seen.second_DD, seen.around(mean_D))
    )
    result: dict[bool, dict[float, Errors]] = {}
    for first, sums in tested.items():
        of_plain, of_centred = sums.projected(plain.a), sums.projected(centred.a)
        lost = (
            lost_norms(plain.b, of_plain.second_DD),
            lost_norms(plain.b, of_plain.around(plain.a @ mean_D)),
            lost_norms(centred.b, of_centred.around(centred.a @ mean_D)),
        )
        norm = float(lost[0][0])
        result[first] = {
            keep: {way: float(norms[rank]) / norm for way, norms in zip(WAYS, lost, strict=True)}
            for keep, rank in layer.ranks.items()
        }
    return result


def lost_norms(b_KE: torch.Tensor, second_KK: torch.Tensor) -> torch.Tensor:
    """Return the square root of the sum of ||(W - W_r) x||^2 over tokens for every rank r = 0..K - 1, (K,).

    (W - W_r) x is the sum over i >= r of z_i b_i with z = a x, so its square sums up to the lower
    right corner, from r on, of the elements of (b b^T) * S.

    Args:
        b_KE: of W = b^T a.
        second_KK: S, the sum of z z^T.
    """
    elements_KK = (b_KE @ b_KE.mT) * second_KK
    corners_KK = elements_KK.flip(0, 1).cumsum(0).cumsum(1)
    return corners_KK.diagonal().flip(0).clamp(min=0).sqrt()


def row(layer: Layer, setting: Setting, keep: float, splits: list[Errors], seen: Sums) -> dict[str, object]:
    """Return the errors of one rank: the mean over both halves, and the ratio in each."""
    errors = {way: statistics.mean(split[way] for split in splits) for way in WAYS}
    ratios = {way: sorted(split[way] / split["uncentred"] for split in splits) for way in WAYS[1:]}
    return {
        "model": layer.model,
        "layer": layer.name,
        **asdict(setting),
        "keep": keep,
        "rank": layer.ranks[keep],
        "mean_share": round(float(seen.first_D.square().sum() / seen.count / seen.second_DD.trace()), 4),
        "error": {way: round(error, 6) for way, error in errors.items()},
        "ratio": {way: [round(ratio, 5) for ratio in values] for way, values in ratios.items()},
    }


def summary(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return the ratios over all layers, ranks and halves: geometric mean, smallest, largest, by setting and way."""
    found = []
    for setting in (Setting(s, c, t) for s in SHRINKAGES for c in (True, False) for t in (True, False)):
        chosen = [row for row in rows if all(row[key] == value for key, value in asdict(setting).items())]
        for way in WAYS[1:]:
            ratios = [ratio for one in chosen for ratio in one["ratio"][way]]  # type: ignore[index]
            found.append(
                {
                    **asdict(setting),
                    "way": way,
                    "mean_ratio": round(math.exp(statistics.mean(map(math.log, ratios))), 4),
                    "smallest": min(ratios),
                    "largest": max(ratios),
                    "share_below_1": round(sum(ratio < 1 for ratio in ratios) / len(ratios), 3),
                }
            )
    return found


def show(rows: list[dict[str, object]]) -> None:
    """Print one line a row."""
    for one in rows:
        first = f"first token {'in' if one['calibrated_first'] else 'out'}/{'in' if one['tested_first'] else 'out'}"
        error = one["error"]["uncentred"]  # type: ignore[index]
        ratio = {way: f"{values[0]:.4f}..{values[-1]:.4f}" for way, values in one["ratio"].items()}  # type: ignore[attr-defined]
        print(f"{one['model']} {one['layer']} s={one['shrinkage']} {first} keep {one['keep']} {error:.5f} {ratio}")


if __name__ == "__main__":
    main()
