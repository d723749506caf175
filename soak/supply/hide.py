"""Hides packages from a Python process and from all that it starts, as if they were not installed.

A copy of this file that is called sitecustomize.py, in a folder on PYTHONPATH, is imported by Python at its start.
NARROWS_SOAK_WITHOUT then names the top-level modules, with commas. What is hidden is found by nothing: not by import,
`find_spec` or metadata.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import DistributionFinder, PathDistribution
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

VARIABLE = "NARROWS_SOAK_WITHOUT"
HIDDEN = frozenset(filter(None, os.environ.get(VARIABLE, "").split(",")))
PACKAGES = {"pynvml": "nvidia-ml-py"}  # where a distribution is not called what its module is
NAMES = frozenset(PACKAGES.get(name, name).replace("_", "-").lower() for name in HIDDEN)
ALL = DistributionFinder.Context()


class Without(PathFinder):
    """Finds what Python's own finder finds, but for the hidden names."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is; None for a hidden one."""
        if fullname.partition(".")[0] in HIDDEN:
            return None
        return super().find_spec(fullname, path, target)

    @classmethod
    def find_distributions(cls, context: DistributionFinder.Context = ALL) -> Iterable[PathDistribution]:
        """Return the distributions that are not hidden."""
        found = PathFinder.find_distributions(context)
        return (one for one in found if one.metadata["Name"].replace("_", "-").lower() not in NAMES)


if HIDDEN:
    sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
