"""Many processes on one store, one cache and one folder at once; and disks that are read-only, gone or broken.

python -m soak concurrency [--seed S] [--scale X] [--jobs N]
python -m soak.concurrency WHAT NUMBER [--seed S]     one round of it again
"""

from soak.concurrency.part import figures as figures
