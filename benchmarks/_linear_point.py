"""One shape and length of the linear chain y = (x A) B beside dense x W^T: operands, references, racers.

Letters: N calls, M sets of weights, T tokens, D input, E output features, R rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from _material import checked_calls, chosen, make_factors, normal, refused, ways
from _race import Expected, Racer
from _rows import limit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from _material import Way
    from _setting import Setting
    from narrows import Factors

DENSE = "F.linear"


class LinearPoint:
    """Everything that one shape, length and state of the factors needs.

    Args:
        tokens, in_features, out_features: T, D, E.
        ranks: of the thin racers.
        factors: "hot": every call reads the same ones; "cold": each its own, as the layers of a model.
        setting: device, dtype, how much is cold.
    """

    def __init__(
        self,
        tokens: int,
        in_features: int,
        out_features: int,
        ranks: Sequence[int],
        *,
        factors: str,
        setting: Setting,
    ) -> None:
        from narrows import Problem

        self.problem = Problem("linear", tokens, in_features, out_features, dtype=setting.dtype, device=setting.device)
        self._ranks, self._is_hot, self._setting = tuple(ranks), factors == "hot", setting
        self._own_bytes = self.problem.itemsize * tokens * (in_features + out_features)
        most = max(self._count(rank) for rank in (None, *ranks))
        self._x_NTD = self._normal(most, tokens, in_features, seed=tokens)

    def _normal(self, *shape: int, seed: int) -> torch.Tensor:
        import torch

        return normal(*shape, seed=seed, device=self._setting.device, dtype=getattr(torch, self._setting.dtype))

    def _count(self, rank: int | None) -> int:
        """Return how many calls rotate over the cold bytes; None: dense."""
        D, E = self.problem.in_features, self.problem.out_features
        weights = 0 if self._is_hot else self.problem.itemsize * (D * E if rank is None else rank * (D + E))
        return self._setting.calls(self._own_bytes + weights)

    def _rows(self) -> torch.Tensor:
        from narrows.bench._accuracy import sampled_rows

        return sampled_rows(self.problem.tokens, 0).to(self._setting.device)

    def racers(self) -> list[Racer]:
        """Return dense, then every way to run the thin chain at each rank."""
        thin = [self._thin(way, rank) for rank in self._ranks for way in ways(self.problem)]
        return [self._dense(), *thin]

    def _expected(self, count: int, reference: Callable[[torch.Tensor, int], object]) -> dict[int, list[Expected]]:
        rows = self._rows()
        numbers = checked_calls(count)
        return {n: [Expected(rows, reference(self._x_NTD[n][rows], n))] for n in numbers}  # type: ignore[arg-type]

    def _dense(self) -> Racer:
        from torch.nn import functional

        from narrows._cost import dense_cost
        from narrows._oracle import dense_linear_bound

        count, D, E = self._count(None), self.problem.in_features, self.problem.out_features
        weights = [self._normal(E, D, seed=1 + n).mul_(D**-0.5) for n in range(1 if self._is_hot else count)]
        expected = self._expected(count, lambda x, n: dense_linear_bound(x, weights[n % len(weights)]))
        hot = weights[0].numel() * self.problem.itemsize if self._is_hot else 0
        limit = limit_of(dense_cost(self.problem, "linear"), 1, self._setting.ceilings, hot_bytes=hot)
        return Racer(
            DENSE,
            None,
            lambda n: functional.linear(self._x_NTD[n], weights[n % len(weights)]),
            count,
            expected,
            limit,
        )

    def _thin(self, way: Way, rank: int) -> Racer:
        from narrows._cost import thin_cost
        from narrows._oracle import linear_bound

        if way.refusal:
            return refused(way, rank)
        count = self._count(rank)
        plain = self._factors(rank, 1 if self._is_hot else count)
        packed = [way.pack(factors) for factors in plain]
        expected = self._expected(count, lambda x, n: linear_bound(x, *_both(plain[n % len(plain)])))
        hot = packed[0].num_bytes if self._is_hot else 0
        limit = limit_of(thin_cost(self.problem, rank), way.launches, self._setting.ceilings, hot_bytes=hot)
        return Racer(
            way.name,
            rank,
            lambda n: way.run(self._x_NTD[n], packed[n % len(packed)]),
            count,
            expected,
            limit,
            chosen(way, self.problem, rank, mode="graph"),
        )

    def _factors(self, rank: int, count: int) -> list[Factors]:
        device = self._setting.device
        return [make_factors(rank, self.problem, seed=rank + 2 * n, device=device) for n in range(count)]


def _both(factors: Factors) -> tuple[torch.Tensor, torch.Tensor]:
    return factors.a, factors.b
