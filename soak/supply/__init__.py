"""Supply: what narrows brings along, what it is built into, and what it does without what is optional."""

from soak.supply.part import figures as figures
