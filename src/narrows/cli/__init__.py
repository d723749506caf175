"""The `narrows` command: parses, calls, prints and exits; every verb is a module of this folder.

A verb's module holds `command` (a click command) and imports what is heavy (numpy, torch, rich)
inside its functions, so that every help answers at once.
"""

from narrows.cli._main import VERBS as VERBS
from narrows.cli._main import command as command
from narrows.cli._main import main as main
