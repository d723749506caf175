"""Which implementations there are, and one of them by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from narrows.errors import ImplementationError
from narrows.kernels._reference import BilinearThree, LinearTwo
from narrows.kernels._stacked import BilinearTwo
from narrows.kernels.triton._bilinear import BilinearTriton
from narrows.kernels.triton._linear import LinearTriton
from narrows.kernels.triton._persistent import BilinearPersistent

if TYPE_CHECKING:
    from narrows._values import Kind, Problem
    from narrows.kernels._protocol import Kernel, LinearKernel

LINEAR_TWO = LinearTwo()
BILINEAR_THREE = BilinearThree()
BILINEAR_TWO = BilinearTwo()
BILINEAR_TRITON = BilinearTriton()
BILINEAR_PERSISTENT = BilinearPersistent(own=BILINEAR_TRITON)
LINEAR_TRITON = LinearTriton()
_LINEAR: tuple[LinearKernel, ...] = (LINEAR_TWO, LINEAR_TRITON)
_BILINEAR: tuple[Kernel, ...] = (BILINEAR_THREE, BILINEAR_TWO, BILINEAR_TRITON, BILINEAR_PERSISTENT)
KERNELS: tuple[Kernel, ...] = (*_LINEAR, *_BILINEAR)
# Own kernels: they take their sizes from `kernels.tuned` and compute the epilogue themselves.
OWN_BILINEAR: dict[str, BilinearTriton | BilinearPersistent] = {
    each.name: each for each in (BILINEAR_TRITON, BILINEAR_PERSISTENT)
}


def kernels_for(kind: Kind) -> tuple[Kernel, ...]:
    """Return the implementations of one kind, the specification first."""
    return _LINEAR if kind == "linear" else _BILINEAR


@overload
def kernel(kind: Literal["linear"], name: str, problem: Problem | None = None) -> LinearKernel: ...
@overload
def kernel(kind: Kind, name: str, problem: Problem | None = None) -> Kernel: ...
def kernel(kind: Kind, name: str, problem: Problem | None = None) -> Kernel:
    """Return the implementation of this kind and name.

    Args:
        kind: "linear" or "bilinear".
        name: as in `kernels_for(kind)`.
        problem: where given, the implementation must be able to run it.

    Raises:
        ImplementationError: no such name, or it refuses `problem`; the text has the reason and
            the names that would do.
    """
    known = kernels_for(kind)
    for candidate in known:
        if candidate.name == name:
            if problem is not None and (reason := candidate.refuses(problem)):
                raise ImplementationError(f"impl={name!r} cannot run this: {reason}. {_usable(known, problem)}")
            return candidate
    raise ImplementationError(f"impl={name!r} is not an implementation of {kind}. {_usable(known, problem)}")


def _usable(known: tuple[Kernel, ...], problem: Problem | None) -> str:
    names = [k.name for k in known if problem is None or not k.refuses(problem)]
    return f"Use auto or one of: {', '.join(names)}."
