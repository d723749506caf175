"""One length of the bilinear chain S = (x A)(x B)^T beside its dense forms: operands, references, racers.

Letters: N calls, T tokens, D features.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from _dense import PLAIN, form
from _material import checked_calls, chosen, make_factors, normal, peak_row, refused, ways
from _race import Expected, Racer
from _rows import limit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from _material import Way
    from _rows import Row
    from _setting import Setting
    from narrows import Factors
    from narrows.bench._gate import Gate


class Point:
    """Everything that one length needs.

    Args:
        tokens, width: T and D.
        ranks: of the thin racers.
        setting: device, dtype, how much is cold.
        dense: names of the dense forms to race.
    """

    def __init__(
        self, tokens: int, width: int, ranks: Sequence[int], setting: Setting, *, dense: Sequence[str]
    ) -> None:
        from narrows import Problem

        self.ranks, self._setting, self._dense_names = tuple(ranks), setting, tuple(dense)
        self.problem = Problem("bilinear", tokens, width, width, dtype=setting.dtype, device=setting.device)
        self._count = setting.calls(self.problem.itemsize * tokens * (width + tokens))
        self._x_NTD = self._normal(self._count, tokens, width, seed=tokens)
        weight = self._normal(width, width, seed=1).mul_(width**-0.5)
        self._weights = (weight, weight.mT.contiguous())
        self._gates = {number: self._gate(number) for number in checked_calls(self._count)}

    def _normal(self, *shape: int, seed: int) -> torch.Tensor:
        import torch

        return normal(*shape, seed=seed, device=self._setting.device, dtype=getattr(torch, self._setting.dtype))

    @cached_property
    def _factors(self) -> Factors:
        return make_factors(max(self.ranks), self.problem, seed=2, device=self._setting.device)

    def _gate(self, number: int) -> Gate:
        from narrows.bench._accuracy import sampled_rows
        from narrows.bench._gate import Gate

        x = self._x_NTD[number]
        return Gate(sampled_rows(self.problem.tokens, number), x, x)

    def dense_racers(self, mode: str) -> list[Racer]:
        """Return a racer for each dense form; launched by the host, a compiled one is another question."""
        return [self._dense_racer(name, mode) for name in self._dense_names if mode == "graph" or name in PLAIN]

    def _dense_racer(self, name: str, mode: str) -> Racer:
        from narrows._cost import dense_cost

        run, order = form(name, *self._weights), name.split(" ", maxsplit=1)[0]
        expected = {n: [Expected(gate.rows, gate.dense(self._weights[0], order))] for n, gate in self._gates.items()}
        hot = self._weights[0].numel() * self.problem.itemsize
        limit = limit_of(dense_cost(self.problem, order), 2, self._setting.ceilings, hot_bytes=hot, mode=mode)
        return Racer(name, None, lambda number: run(self._x_NTD[number]), self._count, expected, limit)

    def thin_racers(self, mode: str, ranks: Sequence[int]) -> list[Racer]:
        """Return a racer for each way to run the thin chain at each rank."""
        return [self._thin_racer(way, rank, mode) for rank in ranks for way in ways(self.problem)]

    def _thin_racer(self, way: Way, rank: int, mode: str) -> Racer:
        from narrows._cost import thin_cost

        if way.refusal:
            return refused(way, rank)
        packed = way.pack(self._factors.truncate(rank))
        expected = {n: [Expected(gate.rows, gate.thin(self._factors, rank))] for n, gate in self._gates.items()}
        cost, ceilings = thin_cost(self.problem, rank), self._setting.ceilings
        limit = limit_of(cost, way.launches, ceilings, hot_bytes=packed.num_bytes, mode=mode)
        return Racer(
            way.name,
            rank,
            lambda number: way.run(self._x_NTD[number], packed),
            self._count,
            expected,
            limit,
            chosen(way, self.problem, rank, mode=mode),
        )

    def peaks(self) -> list[Row]:
        """Return what memory one call of each way takes, launched by the host, against what it may take."""
        usable = [way for way in ways(self.problem) if not way.refusal]
        return [
            peak_row(way, self._x_NTD[0], self._factors.truncate(rank), self.problem, tokens=self.problem.tokens)
            for rank in self.ranks
            for way in usable
        ]
