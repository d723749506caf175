"""Measures: a sweep of rows in a child process, kept in a store, to a report; and tunes choices for this device."""

from narrows.bench._layers import layer_times as layer_times
from narrows.bench._layers_grid import rank_step as rank_step
from narrows.bench._layers_record import LayerTime as LayerTime
from narrows.bench._layers_record import LayerTimes as LayerTimes
from narrows.bench._measure import DEFAULT_MINUTES as DEFAULT_MINUTES
from narrows.bench._measure import default_store as default_store
from narrows.bench._measure import measure as measure
from narrows.bench._measure import origin_experiment as origin_experiment
from narrows.bench._measure import run_experiment as run_experiment
from narrows.bench._shapes import file_shapes as file_shapes
from narrows.bench._sweep import Progress as Progress
from narrows.bench._tune import ORIGIN_RANKS as ORIGIN_RANKS
from narrows.bench._tune import ORIGIN_SHAPES as ORIGIN_SHAPES
from narrows.bench._tune import ORIGIN_TOKENS as ORIGIN_TOKENS
from narrows.bench._tune import TUNE_MINUTES as TUNE_MINUTES
from narrows.bench._tune import device_index as device_index
from narrows.bench._tune import tune as tune
