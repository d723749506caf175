"""Ordered factors of a weight, W ~ B^T A: exact, randomized, or of a product that is never formed.

Letters: D input features, E output features, R rank, K inner size of a product, H heads.
"""

from narrows.decompose._factorize import factorize as factorize
from narrows.decompose._factorize import factorize_product as factorize_product
from narrows.decompose._operands import check_operand as check_operand
