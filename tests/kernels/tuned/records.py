"""Made choices, and kernels that stand in for own ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from narrows import kernels
from narrows.kernels.tuned import Candidate, Config, Entry, Signature, Silicon, Software, Tiles, cublas

SILICON = Silicon("Test GPU", "sm_90", 132, 60 << 20, 140)
SOFTWARE = Software("2.11.0", "3.6.0", "13.0", "580.1", "0123456789abcdef")
OTHER = replace(SOFTWARE, torch="2.12.0", kernels="fedcba9876543210")
CONFIG = Config(Tiles(16, 64, 64, split=4), Tiles(16, 32, 64))


def signature(**changes):
    """Return a bilinear signature, Y = X, with changes."""
    base = Signature("bilinear", 64, 0, 4096, 4096, 64, 1, "bfloat16", "graph", 0)
    return base._replace(**changes)


def candidate(speedup=2.0, config=CONFIG, **changes):
    """Return a candidate whose interval is 1 % wide."""
    values = {"median_ns": 1e4 / speedup, "speedup": speedup, "low": speedup * 0.995, "high": speedup * 1.005}
    return Candidate(**{"config": config, **values, "rounds": 8, "error": 0.5, "checked": True} | changes)


def entry(software=SOFTWARE, own=2.0, more=None, **changes):
    """Return an entry in which "triton" is `own` times as fast as cuBLAS; None: there is only cuBLAS."""
    where = signature(**changes)
    candidates = {cublas(where): candidate(1.0, config=None), **(more or {})}
    if own is not None:
        candidates["triton"] = candidate(own)
    fields = where._asdict()
    del fields["device"]
    return Entry(**fields, candidates=candidates, software=software, measured="2026-11-22T12:00:00Z")


@dataclass
class FakeKernel:
    """The chain by two matmuls or three, under another name; `spoil` changes its result."""

    kind: str = "bilinear"
    name: str = "triton"
    spoil: object = None
    refusal: str = ""
    runs: list = field(default_factory=list)

    def refuses(self, problem):
        return self.refusal or ("wrong kind" if problem.kind != self.kind else "")

    def pack(self, factors):
        return factors

    def run_with(self, config, x, factors, y=None, *, out=None):
        self.runs.append((config, x.shape))
        reference = kernels.kernel(self.kind, "two" if self.kind == "linear" else "three")
        result = reference.run(x, factors, y, out=out)
        if callable(self.spoil):
            self.spoil(config, result)
        return result


def one_element(config, result):
    """Change one element by one unit of its size: what a miscompiled tile does."""
    result.view(-1)[-1] += 1


def nothing_written(config, result):
    """Leave one row as it was before: NaN."""
    result[-1] = torch.nan
