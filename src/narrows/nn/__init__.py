"""Modules that hold factors in place of a dense weight."""

from narrows.nn._attention import LowRankAttention as LowRankAttention
from narrows.nn._attention_cache import KeyValueCache as KeyValueCache
from narrows.nn._attention_dense import DenseAttention as DenseAttention
from narrows.nn._attention_dense import Projection as Projection
from narrows.nn._bilinear import LowRankBilinear as LowRankBilinear
from narrows.nn._linear import LowRankLinear as LowRankLinear
from narrows.nn._pivot import PivotLinear as PivotLinear
