"""The exception tree. A leaf: imports nothing from narrows; anyone may import it.

NarrowsError
├── InputError (ValueError)       an argument is wrong: named, with the values seen and what to do
│   ├── ShapeError                sizes that do not fit together
│   ├── RankError                 a rank outside 1..min(D, E), or factors that cannot be truncated
│   ├── DtypeError (TypeError)    integer, complex or mixed dtypes
│   ├── DeviceError               mixed or unavailable devices
│   └── NonFiniteError            NaN or Inf where a number is needed
├── ImplementationError           a named implementation cannot run this problem, and why
├── FileError                     a file that is missing, truncated, foreign or does not match
├── BudgetError                   the answer is "no": carries the nearest feasible point
├── ConditionsError               two reports that were measured under different conditions
└── ResourceError                 disk, memory, a device or a busy store: could not be done
"""

from __future__ import annotations


class NarrowsError(Exception):
    """Base of every error that narrows raises on purpose."""


class InputError(NarrowsError, ValueError):
    """An argument is wrong; the text names it, shows the values and says what to do."""


class ShapeError(InputError):
    """Sizes that do not fit together."""


class RankError(InputError):
    """A rank outside 1..min(D, E), or factors that cannot be truncated."""


class DtypeError(InputError, TypeError):
    """Integer, complex or mixed dtypes."""


class DeviceError(InputError):
    """Operands on different devices, or a device that is not there."""


class NonFiniteError(InputError):
    """NaN or Inf where a finite number is needed."""


class ImplementationError(NarrowsError):
    """A named implementation cannot run this problem; it never falls back silently."""


class FileError(NarrowsError):
    """A file that is missing, truncated, foreign, or does not match what it claims."""


class BudgetError(NarrowsError):
    """No choice meets the budget.

    Attributes:
        nearest: what comes nearest, as a printable value (None when nothing was measured).
    """

    def __init__(self, message: str, nearest: object = None) -> None:
        super().__init__(message)
        self.nearest = nearest


class ConditionsError(NarrowsError):
    """Two reports were measured under different conditions.

    Attributes:
        differences: the conditions that differ, one sentence each.
    """

    def __init__(self, message: str, differences: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences


class ResourceError(NarrowsError):
    """Disk, memory, a device or a busy store: the work could not be done here."""
