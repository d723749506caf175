"""Frozen records that cross floors. torch is imported for types only."""

from narrows._values._budget import Budget as Budget
from narrows._values._certificate import Certificate as Certificate
from narrows._values._certificate import Method as Method
from narrows._values._experiment import Experiment as Experiment
from narrows._values._experiment import WeightSource as WeightSource
from narrows._values._factors import Factors as Factors
from narrows._values._json import load_value as load_value
from narrows._values._machine import CACHES as CACHES
from narrows._values._machine import MODES as MODES
from narrows._values._machine import Cache as Cache
from narrows._values._machine import Ceilings as Ceilings
from narrows._values._machine import Machine as Machine
from narrows._values._machine import Mode as Mode
from narrows._values._plan import Choice as Choice
from narrows._values._plan import Plan as Plan
from narrows._values._problem import DTYPE_BYTES as DTYPE_BYTES
from narrows._values._problem import KINDS as KINDS
from narrows._values._problem import Kind as Kind
from narrows._values._problem import Problem as Problem
from narrows._values._problem import dtype_name as dtype_name
from narrows._values._report import OutputError as OutputError
from narrows._values._report import Report as Report
from narrows._values._report import Row as Row
from narrows._values._report import WeightRecord as WeightRecord
