"""The running sums of one pass over the text, and the averages they become.

Letters: D input, E output features, H hidden size, P positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from narrows._values import Moments
from narrows.errors import InputError
from narrows.models._calibrate_gram import Gram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from narrows.models._match import Target


class Sums:
    """Sums over tokens for some layers; layers that read the same tensor share what is summed of it.

    Attributes:
        leaders: layer -> the first of these layers that reads the same tensor.
        inputs, totals, rows: of each leader: sum of x x^T, sum of x (1, D), number of tokens.
        gradients: of each layer: sum of g g^T; empty without gradients.
        positions: positions that had a label.
        hidden, squares: sums of h (1, H) and of |h|^2 (1, 1) where labels are noise around h; else None.
    """

    def __init__(self, targets: Sequence[Target], groups: Mapping[str, str], *, gradients: bool) -> None:
        first: dict[str, str] = {}
        self.leaders = {one.name: first.setdefault(groups[one.name], one.name) for one in targets}
        device = {one.name: one.module.weight.device for one in targets}
        read = [one for one in targets if self.leaders[one.name] == one.name]
        self.inputs = {one.name: Gram(one.in_features, device[one.name]) for one in read}  # type: ignore[arg-type]
        self.totals = {one.name: torch.zeros(1, one.in_features, dtype=torch.float64) for one in read}
        self.rows = dict.fromkeys(self.inputs, 0)
        written = targets if gradients else ()
        self.gradients = {one.name: Gram(one.out_features, device[one.name]) for one in written}  # type: ignore[arg-type]
        self.positions = 0
        self.hidden: torch.Tensor | None = None
        self.squares: torch.Tensor | None = None

    def add_inputs(self, leader: str, x_TD: torch.Tensor, total_D: torch.Tensor) -> None:
        """Add float64 rows (T, D) that a leader read, and their sum (D,)."""
        self.inputs[leader].add(x_TD)
        self.totals[leader] += total_D.cpu()
        self.rows[leader] += len(x_TD)

    def add_hidden(self, hidden_PH: torch.Tensor) -> None:
        """Add what is needed for the variance of final hidden states (P, H)."""
        exact_PH = hidden_PH.detach().to(torch.float64).cpu()
        if self.hidden is None or self.squares is None:
            self.hidden = torch.zeros(1, exact_PH.shape[1], dtype=torch.float64)
            self.squares = torch.zeros(1, 1, dtype=torch.float64)
        self.hidden += exact_PH.sum(dim=0)
        self.squares += exact_PH.square().sum()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return every sum by name, each 2-D."""
        found = {f"totals/{name}": one for name, one in self.totals.items()}
        for kind, grams in (("inputs", self.inputs), ("gradients", self.gradients)):
            for name, gram in grams.items():
                found |= {f"{kind}/{name}/{i}": panel for i, panel in enumerate(gram.panels)}
        if self.hidden is not None and self.squares is not None:
            found |= {"hidden": self.hidden, "squares": self.squares}
        return found

    def counts(self) -> dict[str, int]:
        """Return how many tokens each leader read, and under "" the positions with labels."""
        return {"": self.positions, **self.rows}

    def restore(self, kept: Iterable[tuple[str, torch.Tensor]], counts: Mapping[str, int]) -> None:
        """Take over what `tensors` and `counts` returned."""
        own = self.tensors()
        for name, tensor in kept:
            if name in own:
                own[name].copy_(tensor)
            elif name == "hidden":
                self.hidden = tensor
            else:
                self.squares = tensor
        self.rows = {name: counts[name] for name in self.rows}
        self.positions = counts[""]

    def moments(self) -> dict[str, Moments]:
        """Return the averages of every layer; layers that read the same tensor share `inputs` and `mean`.

        The sums are given up one by one on the way, so that there are never both in memory.

        Raises:
            InputError: as `check`.
        """
        self.check()
        count = labels_weight(self.positions, self.hidden, self.squares) if self.gradients else 1.0
        read = {name: self.inputs.pop(name).mean(rows) for name, rows in self.rows.items()}
        first = {name: self.totals[name][0] / rows for name, rows in self.rows.items()}
        written = {name: self.gradients.pop(name).mean(count) for name in tuple(self.gradients)}
        return {
            name: Moments(read[leader], first[leader], written.get(name), self.rows[leader])
            for name, leader in self.leaders.items()
        }

    def check(self) -> None:
        """Raise InputError where a layer has read nothing."""
        idle = [name for name, rows in self.rows.items() if not rows]
        if idle:
            raise InputError(
                f"{len(idle)} layers read no token of the calibration text, as {idle[0]}: leave them out with "
                "filter_fn, or calibrate on text that reaches them."
            )


def labels_weight(positions: int, hidden: torch.Tensor | None, squares: torch.Tensor | None) -> float:
    """Return what sums of g g^T are divided by: positions with labels, times V where labels are noise.

    All positions count, also for a layer that reads only some tokens, so that its damage is a share of
    the whole text's.

    Args:
        hidden, squares: sums of the final hidden states (1, H) and of their squares (1, 1); V is their
            total variance.
    """
    if hidden is None or squares is None:
        return float(positions)
    variance = float(squares / positions - (hidden / positions).square().sum())
    if variance <= 0:
        raise InputError(
            f"the final hidden states of {positions} positions do not differ (variance {variance:.3g}): "
            "calibrate on more text."
        )
    return positions * variance
