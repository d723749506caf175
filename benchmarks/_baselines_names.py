"""The methods of the quality benchmark, and what is wanted of ours."""

from __future__ import annotations

from typing import Any

OURS: dict[str, dict[str, Any]] = {  # what differs from the default recipe
    "ours": {},
    "ours-low-rank": {"forms": ("low-rank",)},  # numbers counted as the baselines' are
    "ours-not-anchored": {"is_anchored": False},
}
LEMS = {"lems-0.1": 0.1, "lems-0.5": 0.5}  # share of the break-even rank where layers are probed
UNIFORM = ("plain", "asvd", "svd-llm", "two-sided")
BASELINES = (*UNIFORM, "svd-llm-v2", *LEMS)
METHODS = (*BASELINES, *OURS)
TARGETS = {0.9: 1.08, 0.8: 1.35}  # perplexity over dense's, at most, without training
