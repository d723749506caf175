"""For users' own kernels and methods: the bounds, exact data, hard matrices and checks that narrows uses.

    from narrows.testing import check_kernel
    check_kernel(MyKernel())          # AssertionError names the case, the tier and the figures

Letters: T tokens, U other tokens, D input, E output features, R rank, H heads.
"""

from narrows._oracle import Arithmetic as Arithmetic
from narrows._oracle import BilinearOracle as BilinearOracle
from narrows._oracle import LinearOracle as LinearOracle
from narrows._oracle import Operands as Operands
from narrows._oracle import Reference as Reference
from narrows._oracle import Statistics as Statistics
from narrows._oracle import bilinear_bound as bilinear_bound
from narrows._oracle import check_kernel as check_kernel
from narrows._oracle import dense_bilinear_bound as dense_bilinear_bound
from narrows._oracle import dense_linear_bound as dense_linear_bound
from narrows._oracle import emulate as emulate
from narrows._oracle import exact_operands as exact_operands
from narrows._oracle import gallery as gallery
from narrows._oracle import linear_bound as linear_bound
from narrows._oracle import normal_operands as normal_operands
from narrows._oracle import optimal_tail as optimal_tail
from narrows._oracle import poisoned as poisoned
from narrows._oracle import statistics as statistics
from narrows._oracle import svd_tolerance as svd_tolerance
from narrows._oracle import worst as worst
