"""FLOPs, bytes, memory and the limit of a chain: arithmetic on (Problem, rank), each operand read once.

Letters: T tokens, U other tokens, D input, E output features, R rank, H heads. No torch.
"""

from narrows._cost._chain import Cost as Cost
from narrows._cost._chain import dense_cost as dense_cost
from narrows._cost._chain import thin_cost as thin_cost
from narrows._cost._limit import limit_ns as limit_ns
from narrows._cost._model import ModelEstimate as ModelEstimate
from narrows._cost._model import estimate as estimate
from narrows._cost._model import other_flops as other_flops
from narrows._cost._model import workspace_bytes as workspace_bytes
