"""Which implementations of attention there are, one of them by name, and which one "auto" means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows._values import DTYPE_BYTES
from narrows.errors import ImplementationError
from narrows.kernels._attention_math import AttentionMath
from narrows.kernels._attention_sdpa import AttentionSdpa
from narrows.kernels.triton._support import unsupported

if TYPE_CHECKING:
    from torch import Tensor

    from narrows.kernels._attention_config import DecodeConfig
    from narrows.kernels._attention_problem import AttentionKernel, AttentionProblem

MOST_QUERIES = 16
# Of one key head, by bytes of an element: float32 has no matrix instruction of its own precision, and compiled
# for sm_90 its tiles of 64 rows spill 6 KB a thread (Triton 3.6).
MOST_ROWS = {2: 64, 4: 16}
MOST_WIDTH = {2: 512, 4: 256}


@dataclass(frozen=True, slots=True)
class AttentionTriton:
    """A decode step by own kernels: the keys are split among programs, and each key and value is read once."""

    name: str = "triton"

    def refuses(self, problem: AttentionProblem) -> str:
        """Return why it cannot run this problem; empty when it can."""
        return unsupported(problem.dtype, problem.device) or _refuses_sizes(problem)

    def run(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        mask: Tensor | None = None,
        causal: bool = False,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Return softmax(q k^T scale + mask) v, (B, H, T, F); what lies beyond `lengths` is not read."""
        return self.run_with(None, q, k, v, scale=scale, mask=mask, causal=causal, lengths=lengths)

    def run_with(
        self,
        config: DecodeConfig | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        mask: Tensor | None = None,
        causal: bool = False,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Run with these sizes; None: those by formula."""
        from narrows.kernels.triton._attention import decode

        return decode(q, k, v, scale=scale, mask=mask, causal=causal, lengths=lengths, config=config)


def _refuses_sizes(problem: AttentionProblem) -> str:
    itemsize = DTYPE_BYTES[problem.dtype]
    if problem.queries > MOST_QUERIES:
        return f"triton decodes up to T={MOST_QUERIES} query rows; here T={problem.queries}"
    if problem.rows > MOST_ROWS[itemsize]:
        return (
            f"triton takes up to {MOST_ROWS[itemsize]} rows T H / G for one key head in {problem.dtype}; here "
            f"T={problem.queries}, H={problem.heads}, G={problem.groups} give {problem.rows}"
        )
    if max(problem.rank, problem.width) > MOST_WIDTH[itemsize]:
        return (
            f"triton takes widths up to {MOST_WIDTH[itemsize]} in {problem.dtype}; here R={problem.rank}, "
            f"F={problem.width}"
        )
    if not problem.is_row_major:
        return "triton reads rows of q, k and v as they lie: their last dimension must have stride 1"
    return ""


ATTENTION_MATH = AttentionMath()
ATTENTION_SDPA = AttentionSdpa()
ATTENTION_TRITON = AttentionTriton()
ATTENTIONS: tuple[AttentionKernel, ...] = (ATTENTION_MATH, ATTENTION_SDPA, ATTENTION_TRITON)


def auto_attention(problem: AttentionProblem) -> AttentionKernel:
    """Return the implementation that "auto" means.

    Few query rows against a cache: time is the bytes of the cache, which "triton" reads once, each width as
    it is. More rows: time is matmuls and exponentials, where torch's fused kernels lead. A CPU has these only.
    """
    if problem.device.startswith("cuda") and not ATTENTION_TRITON.refuses(problem):
        return ATTENTION_TRITON
    return ATTENTION_SDPA


def attention_kernel(name: str, problem: AttentionProblem) -> AttentionKernel:
    """Return the implementation of this name, able to run this problem.

    Raises:
        ImplementationError: no such name, or it refuses; the text has the reason and the names that would do.
    """
    usable = ", ".join(kernel.name for kernel in ATTENTIONS if not kernel.refuses(problem))
    for kernel in ATTENTIONS:
        if kernel.name != name:
            continue
        if reason := kernel.refuses(problem):
            raise ImplementationError(f"impl={name!r} cannot run this: {reason}. Use auto or one of: {usable}.")
        return kernel
    raise ImplementationError(f"impl={name!r} is not an implementation of attention. Use auto or one of: {usable}.")
