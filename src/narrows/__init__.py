"""narrows: measure, choose and run low-rank matrix multiplication, W ~ B^T A.

The public names below are resolved on first use (PEP 562): `import narrows` and the command's
help do not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from narrows._machine import machine as machine
    from narrows._values import Budget as Budget
    from narrows._values import Experiment as Experiment
    from narrows._values import Factors as Factors
    from narrows._values import ModelBudget as ModelBudget
    from narrows._values import ModelPlan as ModelPlan
    from narrows._values import Plan as Plan
    from narrows._values import Problem as Problem
    from narrows._values import Report as Report
    from narrows._values import WeightSource as WeightSource
    from narrows._values import Workload as Workload
    from narrows.bench import measure as measure
    from narrows.bench import tune as tune
    from narrows.decompose import factorize as factorize
    from narrows.models import AttentionWidths as AttentionWidths
    from narrows.models import Recipe as Recipe
    from narrows.models import check as check
    from narrows.models import compress_ as compress_
    from narrows.models import load as load
    from narrows.models import narrow_attention_ as narrow_attention_
    from narrows.models import save as save
    from narrows.nn import LowRankAttention as LowRankAttention
    from narrows.nn import LowRankBilinear as LowRankBilinear
    from narrows.nn import LowRankLinear as LowRankLinear
    from narrows.ops import attend as attend
    from narrows.ops import attention as attention
    from narrows.ops import bilinear as bilinear
    from narrows.ops import gated_linear as gated_linear
    from narrows.ops import linear as linear
    from narrows.ops import linear_group as linear_group
    from narrows.ops import stack as stack
    from narrows.planning import choose as choose
    from narrows.planning import compare as compare

__version__ = "0.1.0"

_HOME = {
    "Budget": "_values",
    "Experiment": "_values",
    "Factors": "_values",
    "ModelBudget": "_values",
    "ModelPlan": "_values",
    "Plan": "_values",
    "Problem": "_values",
    "Report": "_values",
    "WeightSource": "_values",
    "Workload": "_values",
    "AttentionWidths": "models",
    "Recipe": "models",
    "check": "models",
    "compress_": "models",
    "load": "models",
    "narrow_attention_": "models",
    "save": "models",
    "LowRankAttention": "nn",
    "LowRankBilinear": "nn",
    "LowRankLinear": "nn",
    "attend": "ops",
    "attention": "ops",
    "bilinear": "ops",
    "choose": "planning",
    "compare": "planning",
    "factorize": "decompose",
    "gated_linear": "ops",
    "linear": "ops",
    "linear_group": "ops",
    "machine": "_machine",
    "measure": "bench",
    "tune": "bench",
    "stack": "ops",
}

__all__ = [*sorted(_HOME), "__version__"]  # noqa: PLE0604 (every name is a literal above)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'narrows' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f"narrows.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
