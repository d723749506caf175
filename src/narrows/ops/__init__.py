"""Public operations: validated once, registered with torch, run by one implementation."""

from narrows.ops._bilinear import bilinear as bilinear
from narrows.ops._bilinear import bilinear_tensors as bilinear_tensors
from narrows.ops._linear import linear as linear
from narrows.ops._linear import linear_tensors as linear_tensors
