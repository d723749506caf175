"""Public operations: validated once, registered with torch, run by one implementation."""

from narrows.kernels import stack as stack
from narrows.ops._attention import attend as attend
from narrows.ops._attention import attention as attention
from narrows.ops._bilinear import bilinear as bilinear
from narrows.ops._bilinear import bilinear_tensors as bilinear_tensors
from narrows.ops._group import gated_linear as gated_linear
from narrows.ops._group import linear_group as linear_group
from narrows.ops._linear import linear as linear
from narrows.ops._linear import linear_tensors as linear_tensors
from narrows.ops._pivot import pivot_linear as pivot_linear
from narrows.ops._planned import bilinear_planned as bilinear_planned
from narrows.ops._planned import linear_planned as linear_planned
