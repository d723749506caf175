"""Ratios with intervals, doubts, laws: pure functions of samples and reports (numpy only)."""

from narrows._stats._comparison import Comparison as Comparison
from narrows._stats._comparison import against as against
from narrows._stats._comparison import compare_rows as compare_rows
from narrows._stats._comparison import conditions as conditions
from narrows._stats._comparison import dense_row as dense_row
from narrows._stats._comparison import fastest as fastest
from narrows._stats._comparison import too_fast as too_fast
from narrows._stats._doubt import DOUBTS as DOUBTS
from narrows._stats._doubt import doubts as doubts
from narrows._stats._doubt import drift as drift
from narrows._stats._doubt import median as median
from narrows._stats._doubt import spread as spread
from narrows._stats._doubt import stalled as stalled
from narrows._stats._fit import Slope as Slope
from narrows._stats._fit import power_law as power_law
from narrows._stats._ratio import CONFIDENCE as CONFIDENCE
from narrows._stats._ratio import FEWEST_ROUNDS as FEWEST_ROUNDS
from narrows._stats._ratio import KNOWN_WIDTH as KNOWN_WIDTH
from narrows._stats._ratio import TIE as TIE
from narrows._stats._ratio import Ratio as Ratio
from narrows._stats._ratio import Verdict as Verdict
from narrows._stats._ratio import median_interval as median_interval
from narrows._stats._ratio import paired_ratio as paired_ratio
from narrows._stats._ratio import unpaired_ratio as unpaired_ratio
