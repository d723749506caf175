"""Benchmarks are scripts that import their neighbours: their folder is on the path, as when Python runs one."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1] / "benchmarks"), str(HERE)]
