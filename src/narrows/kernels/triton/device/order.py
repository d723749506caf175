"""When a kernel of a chain begins to touch memory, and when the next one may begin to start."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def after(OVERLAP: tl.constexpr):
    """Wait for the kernel before, and let the one after start: "" neither, "wait" in this order, "early" the other.

    Early, the next kernel's programs take their places while this one still waits; they wait in turn, so
    nothing is read before it is written. Whether it pays depends on the sizes.
    """
    if OVERLAP == "early":
        gdc_launch_dependents()
        gdc_wait()
    elif OVERLAP == "wait":
        gdc_wait()
        gdc_launch_dependents()
