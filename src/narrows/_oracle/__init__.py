"""What a correct result is: derived bounds, exact data, hard matrices, one conformance check.

Three tiers. T1: no element is further from the float64 value than rounding can take it. T2: on
random data the errors are no larger, no less even and no more biased than those of the same chain
rounded at the declared places. T3: on small integers the result is bit-equal.

Letters: T tokens, U other tokens, D input, E output features, R rank, H heads.
"""

from narrows._oracle._arithmetic import Arithmetic as Arithmetic
from narrows._oracle._arithmetic import gamma as gamma
from narrows._oracle._bounds import BilinearOracle as BilinearOracle
from narrows._oracle._bounds import LinearOracle as LinearOracle
from narrows._oracle._bounds import Reference as Reference
from narrows._oracle._bounds import bilinear_bound as bilinear_bound
from narrows._oracle._bounds import linear_bound as linear_bound
from narrows._oracle._bounds import worst as worst
from narrows._oracle._check_kernel import check_kernel as check_kernel
from narrows._oracle._dense import dense_bilinear_bound as dense_bilinear_bound
from narrows._oracle._dense import dense_linear_bound as dense_linear_bound
from narrows._oracle._exact_data import Operands as Operands
from narrows._oracle._exact_data import exact_operands as exact_operands
from narrows._oracle._exact_data import normal_operands as normal_operands
from narrows._oracle._exact_data import poisoned as poisoned
from narrows._oracle._gallery import gallery as gallery
from narrows._oracle._spectrum import optimal_tail as optimal_tail
from narrows._oracle._spectrum import svd_tolerance as svd_tolerance
from narrows._oracle._statistics import Statistics as Statistics
from narrows._oracle._statistics import emulate as emulate
from narrows._oracle._statistics import statistics as statistics
