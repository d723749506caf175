"""Modules that hold factors in place of a dense weight."""

from narrows.nn._bilinear import LowRankBilinear as LowRankBilinear
from narrows.nn._linear import LowRankLinear as LowRankLinear
