"""Memory that runs out: what does not fit is refused before it is tried, or survived, and the rest goes on.

python -m soak resources [--seed S] [--scale X] [--jobs N]
python -m soak.resources NUMBER [--seed S]     one sweep of it again
"""

from soak.resources.part import figures as figures
