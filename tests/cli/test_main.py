"""The command's frame: help at once, one message for an error, one meaning for an exit code."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from narrows import errors
from narrows.cli import VERBS, command
from narrows.cli._interrupt import importing
from narrows.cli._main import exit_code

HEAVY = ("torch", "numpy", "rich", "pydantic", "safetensors")
PROBE = f"""
import sys
from click.testing import CliRunner
from narrows.cli import command
result = CliRunner().invoke(command, sys.argv[1:])
print(result.exit_code, [name for name in {HEAVY!r} if name in sys.modules])
"""


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "0 []", done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_of_itself(verb):
    text = CliRunner().invoke(command, [verb, "--help"]).output

    assert f"narrows {verb}" in text.split("Example:")[1]
    assert "--json" in text


def test_the_groups_help_names_every_verb_and_every_exit_code():
    text = CliRunner().invoke(command, ["--help"]).output

    assert [verb for verb in VERBS if f"\n  {verb} " not in text] == []
    assert "0 done or yes, 1 the answer is no, 2 usage, 3 could not be done" in " ".join(text.split())


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (errors.BudgetError("no"), 1),
        (errors.RankError("rank=0"), 2),
        (errors.FileError("x"), 2),
        (errors.ConditionsError("x"), 2),
        (errors.ResourceError("disk"), 3),
        (errors.ImplementationError("x"), 3),
        (MemoryError(), 3),
        (OSError(28, "No space left on device"), 3),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(), 141),
    ],
)
def test_every_error_has_its_exit_code(fault, code):
    assert exit_code(fault) == code


@pytest.fixture
def failing(monkeypatch):
    """Return a function that lets `narrows doctor` raise, and its result."""

    def run(fault: BaseException, *arguments: str):
        @click.command()
        def doctor() -> None:
            raise fault

        monkeypatch.setattr("narrows.cli.doctor.command", doctor)
        return CliRunner().invoke(command, ["doctor", *arguments])

    return run


def test_an_error_is_one_message_on_stderr_without_a_traceback(failing):
    result = failing(errors.RankError("rank=300 is outside 1..256."))

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: rank=300 is outside 1..256.\n"


def test_an_error_text_cannot_drive_the_terminal(failing):
    assert "\x1b" not in failing(errors.FileError("evil\x1b[2Jname")).stderr


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback_before_and_after_the_verb(failing, place):
    fault = errors.RankError("rank=300")
    result = failing(fault, "--debug")
    if place == "before":
        result = CliRunner().invoke(command, ["--debug", "doctor"])

    assert result.exception is fault


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (MemoryError(), "error: out of memory. Free some, or ask for smaller sizes.\n"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nmore"),
            "error: out of memory (DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.)",
        ),
    ],
)
def test_memory_that_ran_out_is_no_fault_in_narrows(failing, fault, text):
    result = failing(fault)

    assert result.exit_code == 3
    assert result.stderr.startswith(text)


def test_what_was_not_foreseen_says_so(failing):
    result = failing(ZeroDivisionError("division by zero"))

    assert result.exit_code == 3
    assert "unexpected ZeroDivisionError: division by zero. This is a fault in narrows: --debug" in result.stderr


def test_a_full_disk_names_the_file(failing):
    result = failing(OSError(28, "No space left on device", "out.json"))

    assert (result.exit_code, result.stderr) == (3, "error: No space left on device: out.json\n")


def test_ctrl_c_is_130(failing):
    result = failing(KeyboardInterrupt())

    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_an_unknown_verb_is_usage():
    assert CliRunner().invoke(command, ["bogus"]).exit_code == 2


def test_the_module_runs_the_command(narrows_command):
    done = subprocess.run([*narrows_command, "--version"], capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert done.stdout.startswith("narrows, version ")


def test_a_reader_that_goes_away_is_quiet(tmp_path):
    script = (
        "import sys, click, narrows.cli.doctor as d\n"
        "d.command = click.Command('doctor', callback=lambda: [click.echo('x' * 99) for _ in range(10_000)])\n"
        "from narrows.cli import main\nsys.argv = ['narrows', 'doctor']\nmain()\n"
    )
    path = tmp_path / "run.py"
    path.write_text(script)
    with subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.read(1)
        run.stdout.close()
        errors_seen = run.stderr.read()
        code = run.wait()

    assert (code, errors_seen) == (141, b"")


def test_ctrl_c_while_libraries_are_imported_is_heard_behind_that():
    reached = []

    def imported():
        with importing():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(1)

    with pytest.raises(KeyboardInterrupt):
        imported()

    assert reached == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_a_library_prints_to_stdout_leaves_the_json_whole(tmp_path):
    script = (
        "import os, sys, click, narrows.cli.doctor as d\n"
        "def work():\n    os.write(1, b'WARNING of a library in C\\n')\n    click.echo('{\"rows\": \"\u00e9\"}')\n"
        "d.command = click.Command('doctor', callback=work)\n"
        "from narrows.cli import main\nsys.argv = ['narrows', 'doctor']\nmain()\n"
    )
    path = tmp_path / "run.py"
    path.write_text(script, encoding="utf-8")

    done = subprocess.run([sys.executable, path], capture_output=True, check=True)

    assert json.loads(done.stdout) == {"rows": "\u00e9"}
    assert done.stderr == b"WARNING of a library in C\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_changes_nothing_of_the_answer(closed, narrows_command):
    words = shlex.join([*narrows_command, "--version"])

    done = subprocess.run(["sh", "-c", f"{words} {closed}"], capture_output=True, text=True, check=False)

    assert "Traceback" not in done.stderr
    assert closed == ">&-" or done.stdout.startswith("narrows, version ")


def test_json_output_is_valid_where_a_number_is_not_finite():
    from narrows.cli._output import as_data
    from narrows.reporting import Cell, Column, Table

    table = Table("t", "T", (Column("a", "A"),), ((Cell(float("inf"), "inf"),),))

    assert json.loads(json.dumps(as_data(table), allow_nan=False))["rows"] == [{"a": None}]
