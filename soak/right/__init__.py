"""Property tests of the operations on a CPU: every result and gradient within its bound against float64.

python -m soak.right linear --seed 3 --examples 2500      one operation, one process, as a failure names it
"""

from soak.right.part import figures as figures
