"""Ordered factors of a weight, W ~ B^T A: exact, randomized, of a product that is never formed, or weighted by data.

Letters: D input features, E output features, R rank, K inner size of a product, H heads.
"""

from narrows.decompose._anchored import anchored as anchored
from narrows.decompose._factorize import factorize as factorize
from narrows.decompose._factorize import factorize_product as factorize_product
from narrows.decompose._operands import check_operand as check_operand
from narrows.decompose._pivot import pivot as pivot
from narrows.decompose._query_key import HeadMaps as HeadMaps
from narrows.decompose._query_key import QueryKey as QueryKey
from narrows.decompose._query_key import check_width as check_width
from narrows.decompose._query_key import query_key as query_key
from narrows.decompose._query_key_moments import grouped as grouped
from narrows.decompose._query_key_moments import head_moments as head_moments
from narrows.decompose._rope_rank import HeadFactors as HeadFactors
from narrows.decompose._rope_rank import RotaryRank as RotaryRank
from narrows.decompose._rope_rank import rotary_rank as rotary_rank
from narrows.decompose._rope_width import RotaryQueryKey as RotaryQueryKey
from narrows.decompose._rope_width import rotary_query_key as rotary_query_key
from narrows.decompose._stack import anchored_stack as anchored_stack
from narrows.decompose._stack import weighted_stack as weighted_stack
from narrows.decompose._value_output import ValueMaps as ValueMaps
from narrows.decompose._value_output import ValueOutput as ValueOutput
from narrows.decompose._value_output import mixed_moments as mixed_moments
from narrows.decompose._value_output import value_output as value_output
from narrows.decompose._weighted import weighted as weighted
from narrows.decompose._weighted_value import Weighted as Weighted
