"""Implementations of the thin chain, and the dense chain they are compared with."""

from narrows.kernels._dense import dense_associations as dense_associations
from narrows.kernels._dense import dense_launches as dense_launches
from narrows.kernels._dense import dense_run as dense_run
from narrows.kernels._given import Given as Given
from narrows.kernels._matmul import project as project
from narrows.kernels._protocol import Kernel as Kernel
from narrows.kernels._protocol import LinearKernel as LinearKernel
from narrows.kernels._registry import BILINEAR_THREE as BILINEAR_THREE
from narrows.kernels._registry import BILINEAR_TWO as BILINEAR_TWO
from narrows.kernels._registry import KERNELS as KERNELS
from narrows.kernels._registry import LINEAR_TWO as LINEAR_TWO
from narrows.kernels._registry import kernel as kernel
from narrows.kernels._registry import kernels_for as kernels_for
