"""What a new process imports: helps answer without torch, numpy or rich."""

from __future__ import annotations

import subprocess
import sys

import pytest

from narrows.cli import VERBS

HEAVY = ("numpy", "pydantic", "rich", "torch")
REPORT = f"\nimport sys\nprint('imported:', *sorted({HEAVY!r} & sys.modules.keys()))".replace(
    f"{HEAVY!r}", f"set({HEAVY!r})"
)


def imported_by(code: str) -> str:
    """Return which heavy packages a new process has imported after `code`."""
    result = subprocess.run([sys.executable, "-c", code + REPORT], capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[-1].removeprefix("imported:").strip()


def help_of(*verb: str) -> str:
    """Return code that prints a help as the command does, without leaving the process."""
    arguments = [*verb, "--help"]
    return f"from narrows.cli import command\ncommand.main({arguments!r}, prog_name='narrows', standalone_mode=False)"


def test_importing_narrows_imports_nothing_heavy() -> None:
    assert imported_by("import narrows") == ""


def test_the_help_imports_nothing_heavy() -> None:
    assert imported_by(help_of()) == ""


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_imports_nothing_heavy(verb: str) -> None:
    assert imported_by(help_of(verb)) == ""


def test_the_check_sees_an_import() -> None:
    assert imported_by("import narrows\nnarrows.Report\nnarrows.linear") == "numpy torch"
