"""The one refusal that every implementation shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from narrows._values import Problem
    from narrows.kernels._protocol import Kernel


def wrong_kind(kernel: Kernel, problem: Problem) -> str:
    """Return why a kernel cannot run a problem of the other kind; empty when the kinds agree."""
    if kernel.kind == problem.kind:
        return ""
    return f"{kernel.name} runs {kernel.kind} chains; this problem is {problem.kind}"
