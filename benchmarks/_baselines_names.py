"""The methods of the quality benchmark, and what is wanted of ours."""

from __future__ import annotations

from typing import Any

OURS: dict[str, dict[str, Any]] = {  # what differs from the default recipe
    "ours": {},
    "ours-low-rank": {"forms": ("low-rank",)},  # numbers counted as the baselines' are
    "ours-shared": {"forms": ("low-rank", "pivot", "shared")},  # gate and up may have one projection
    "ours-not-anchored": {"is_anchored": False},
    "ours-recovered": {"recovery_seconds": 100.0},
}
LEMS = {"lems-0.1": 0.1, "lems-0.5": 0.5}  # share of the break-even rank where layers are probed
UNIFORM = ("plain", "asvd", "svd-llm", "two-sided")
BASELINES = (*UNIFORM, "svd-llm-v2", *LEMS)
METHODS = (*BASELINES, *OURS)
TARGETS = {  # perplexity over dense's, at most, by share of the numbers that is kept
    "ours": {0.9: 1.08, 0.8: 1.35},
    "ours-recovered": {0.9: 1.04, 0.8: 1.20},
}
