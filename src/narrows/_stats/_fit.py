"""Laws: the exponent k of y ~ x^k, with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Slope:
    """y ~ x^value over `num_points` points; a 95 % interval of the exponent."""

    value: float
    low: float
    high: float
    num_points: int


# Two-sided 95 % quantiles of Student's t for 1..10 degrees of freedom; beyond, the normal's 1.96 is within 13 %.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def power_law(x: Sequence[float], y: Sequence[float]) -> Slope | None:
    """Return the exponent of y ~ c x^k by least squares on logarithms; None below 3 points.

    The interval is the ordinary one of a regression slope (Student's t, n - 2 degrees of freedom).
    """
    if len(x) != len(y) or len(x) < 3 or min(*x, *y) <= 0:
        return None
    log_x, log_y = np.log(np.asarray(x, dtype=np.float64)), np.log(np.asarray(y, dtype=np.float64))
    centred = log_x - log_x.mean()
    value = float(centred @ log_y / (centred @ centred))
    residual = log_y - log_y.mean() - value * centred
    freedom = len(x) - 2
    error = float(np.sqrt(residual @ residual / freedom / (centred @ centred)))
    t = _T95[freedom - 1] if freedom <= len(_T95) else 1.96
    return Slope(value, value - t * error, value + t * error, len(x))
