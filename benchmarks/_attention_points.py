"""Points of the attention benchmark: operands, racers and float64 references of a decode step and of a prefill.

Scores have a standard deviation of 3: with an even softmax the values would average away, and a result of
zeros would be near enough. Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a
value, N calls, K sampled rows.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import product
from typing import TYPE_CHECKING

from _material import checked_calls, normal
from _race import Expected, Racer, race
from _rows import Row, row_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from _setting import Setting
    from narrows._oracle import Reference
    from narrows.kernels import DecodeConfig

    Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

SPREAD = 3.0
SAMPLED = 16  # rows of each head that a prefill is checked at
BLOCKS, STAGES, PER_MULTIPROCESSOR = (64, 128), (3, 4), (2, 4, 8)
TUNED = "triton tuned"


@dataclass(frozen=True)
class Sizes:
    """B, H, G, T, U, R and F of one point."""

    batch: int
    heads: int
    groups: int
    queries: int
    keys: int
    rank: int
    width: int
    causal: bool = False

    @property
    def num_bytes(self) -> int:
        """Bytes of q, k, v and the result in 16 bits."""
        per_query, per_key = self.rank + self.width, self.rank + self.width
        return 2 * self.batch * (self.heads * self.queries * per_query + self.groups * self.keys * per_key)

    @property
    def flops(self) -> float:
        """2 per multiply-add; causal: half of the scores."""
        full = 2 * self.batch * self.heads * self.queries * self.keys * (self.rank + self.width)
        return full / 2 if self.causal else full


class Point:
    """Operands of N calls, and what sampled rows of the first and the last must be."""

    def __init__(self, sizes: Sizes, setting: Setting) -> None:
        self.sizes, self.setting = sizes, setting
        self.count = setting.calls(sizes.num_bytes)
        self.scale = SPREAD * sizes.rank**-0.5
        self.calls = [self._operands(number) for number in range(self.count)]

    def _operands(self, number: int) -> Triple:
        import torch

        s = self.sizes
        make = partial(normal, device=self.setting.device, dtype=getattr(torch, self.setting.dtype))
        return (
            make(s.batch, s.heads, s.queries, s.rank, seed=3 * number),
            make(s.batch, s.groups, s.keys, s.rank, seed=3 * number + 1),
            make(s.batch, s.groups, s.keys, s.width, seed=3 * number + 2),
        )

    @cached_property
    def expected(self) -> dict[int, tuple[Expected, ...]]:
        """By number of a call, the float64 value and bound of sampled rows."""
        import torch

        step = max(1, self.sizes.queries // SAMPLED)
        rows = torch.arange(self.sizes.queries - 1, -1, -step, device=self.setting.device)
        return {n: (Expected(rows, self._reference(self.calls[n], rows)),) for n in checked_calls(self.count)}

    def _reference(self, operands: Triple, rows: torch.Tensor) -> Reference:
        """Return value and bound, one batch element after the other: in float64 all keys together are large."""
        import torch

        from narrows._oracle import Reference
        from narrows._oracle._attention import attention_bound

        mask = None
        if self.sizes.causal:
            ends = self.sizes.keys - self.sizes.queries + rows
            mask = (torch.arange(self.sizes.keys, device=rows.device) <= ends[:, None])[None, None]
        parts = [
            attention_bound(q[None].index_select(-2, rows), k[None], v[None], scale=self.scale, mask=mask)
            for q, k, v in zip(*operands, strict=True)
        ]
        return Reference(torch.cat([p.value for p in parts]), torch.cat([p.bound for p in parts]))

    def racer(self, variant: str, run: Callable[..., torch.Tensor], *, refusal: str = "") -> Racer:
        """Return a racer of `run(q, k, v, scale=, causal=)`, its limit the bytes or the FLOPs."""
        s, ceilings = self.sizes, self.setting.ceilings
        limit = max(s.num_bytes / ceilings.read_bytes_per_s, s.flops / ceilings.flops_per_s) * 1e9

        def call(number: int) -> torch.Tensor:
            return run(*self.calls[number], scale=self.scale, causal=s.causal)

        if refusal:
            return Racer(variant, s.rank, call, 0, {}, status="refused", reason=refusal)
        return Racer(variant, s.rank, call, self.count, self.expected, limit_ns=limit)


def decode_rows(
    all_sizes: list[Sizes], tuned: dict[tuple[int, int], DecodeConfig], setting: Setting, *, end: float
) -> list[Row]:
    """Return the rows of one length: every pair of widths, own kernels and torch's, raced together."""
    from narrows.kernels import ATTENTION_SDPA, ATTENTION_TRITON, AttentionProblem

    pairs = []
    for sizes in all_sizes:
        point = Point(sizes, setting)
        refusal = ATTENTION_TRITON.refuses(AttentionProblem.of(*point.calls[0]))
        pairs += [(sizes, point.racer("triton", ATTENTION_TRITON.run, refusal=refusal))]
        config = tuned.get((sizes.rank, sizes.width))
        if config is not None:
            pairs += [(sizes, point.racer(TUNED, partial(ATTENTION_TRITON.run_with, config), refusal=refusal))]
        pairs += [(sizes, point.racer("sdpa", ATTENTION_SDPA.run))]
    race([racer for _, racer in pairs], setting.graph, end=end, clock=setting.clock)
    return [row_of(racer, kind="decode", **asdict(sizes), bytes=sizes.num_bytes) for sizes, racer in pairs]


def sweep_rows(sizes: Sizes, setting: Setting, multiprocessors: int, *, end: float) -> list[Row]:
    """Return one row a launch size, those by formula first."""
    from narrows.kernels import ATTENTION_TRITON

    point = Point(sizes, setting)
    configs = sweep_configs(sizes, multiprocessors)
    racers = [point.racer(str(config), partial(ATTENTION_TRITON.run_with, config)) for config in configs]
    race(racers, setting.graph, end=end, clock=setting.clock)
    return [
        row_of(racer, kind="sweep", **asdict(sizes), config=asdict(config))
        for racer, config in zip(racers, configs, strict=True)
    ]


def sweep_configs(sizes: Sizes, multiprocessors: int) -> list[DecodeConfig]:
    """Return the sizes by formula, the same without overlap, and twelve others."""
    from narrows.kernels import DecodeConfig
    from narrows.kernels._attention_config import decode_config

    pairs = sizes.batch * sizes.groups
    rows = sizes.queries * sizes.heads // sizes.groups
    formula = decode_config(
        pairs, sizes.keys, rows=rows, rank=sizes.rank, width=sizes.width, itemsize=2, multiprocessors=multiprocessors
    )
    others = [
        DecodeConfig(block, max(1, per * multiprocessors // pairs), stages=stages)
        for block, stages, per in product(BLOCKS, STAGES, PER_MULTIPROCESSOR)
    ]
    return list(dict.fromkeys([formula, replace(formula, overlap=False), *others]))


def best_config(rows: list[Row]) -> DecodeConfig | None:
    """Return the sizes of the fastest row; None where none has a time."""
    from narrows.kernels import DecodeConfig

    timed = [row for row in rows if row["time_us"] is not None]
    return DecodeConfig(**min(timed, key=lambda row: row["time_us"])["config"]) if timed else None


def prefill_rows(all_sizes: list[Sizes], setting: Setting, *, end: float) -> list[Row]:
    """Return the rows of one length: every pair of widths and each of torch's backends, raced together."""
    pairs = []
    for sizes in all_sizes:
        point = Point(sizes, setting)
        pairs += [(sizes, racer) for racer in backend_racers(point)]
    race([racer for _, racer in pairs], setting.graph, end=end, clock=setting.clock)
    return [row_of(racer, kind="prefill", **asdict(sizes)) for sizes, racer in pairs]


def backend_racers(point: Point) -> list[Racer]:
    """Return one racer for each fused kernel of torch, and narrows' own choice among them."""
    from torch.backends.cuda import SDPAParams
    from torch.nn.attention import sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    from narrows.kernels import ATTENTION_SDPA
    from narrows.kernels._attention_sdpa import FUSED

    def pinned(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float, causal: bool, backend: object
    ) -> torch.Tensor:
        with sdpa_kernel(backend) if q.is_cuda else nullcontext():
            return scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)

    racers = []
    for backend, takes in FUSED.items():
        is_taken = takes(SDPAParams(*point.calls[0], None, 0.0, point.sizes.causal, False))
        name = backend.name.removesuffix("_ATTENTION").lower()
        refusal = "" if is_taken else f"torch's {name} kernel does not take these widths or this device"
        racers.append(point.racer(name, partial(pinned, backend=backend), refusal=refusal))
    return [*racers, point.racer("sdpa", ATTENTION_SDPA.run)]
