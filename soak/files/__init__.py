"""Files: mutated ones are refused or mean the same; nothing they hold is run; what they name is shown as text."""

from soak.files.part import figures as figures
