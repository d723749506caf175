"""The command's frame: verbs imported on use, one message for an error, one meaning for an exit code."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from narrows import errors
from narrows.cli._interrupt import INTERRUPTED, end_at_ctrl_c, said
from narrows.cli._streams import drop_stdout, own_stdout

# Verb -> module that holds its `command`.
VERBS = {
    "measure": "narrows.cli.measure",
    "show": "narrows.cli.show",
    "compare": "narrows.cli.compare",
    "choose": "narrows.cli.choose",
    "spectrum": "narrows.cli.spectrum",
    "compress": "narrows.cli.compress",
    "check": "narrows.cli.check",
    "tune": "narrows.cli.tune",
    "doctor": "narrows.cli.doctor",
}

NO, USAGE, NOT_DONE, BROKEN_PIPE = 1, 2, 3, 141


def exit_code(fault: BaseException) -> int:
    """Return what the command exits with for this fault.

    1: the answer is no. 2: usage or a bad input file. 3: could not be done. 130: Ctrl-C.
    141 (128 + SIGPIPE, as a shell would show): the reader of the output went away.
    """
    if isinstance(fault, errors.BudgetError):
        return NO
    if isinstance(fault, (errors.InputError, errors.FileError, errors.ConditionsError)):
        return USAGE
    if isinstance(fault, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    if isinstance(fault, BrokenPipeError):
        return BROKEN_PIPE
    return NOT_DONE


def _message(fault: BaseException) -> str:
    """Return one printable message; what was not foreseen says so."""
    if isinstance(fault, (KeyboardInterrupt, click.Abort)):
        return "interrupted"
    if isinstance(fault, errors.NarrowsError):
        text = f"error: {fault}"
    elif isinstance(fault, OSError):
        text = f"error: {fault.strerror or fault}" + (f": {fault.filename}" if fault.filename else "")
    elif _is_shortage(fault):
        first = str(fault).strip().partition("\n")[0]
        text = f"error: out of memory{f' ({first})' if first else ''}. Free some, or ask for smaller sizes."
    else:
        text = f"error: unexpected {type(fault).__name__}: {fault}. This is a fault in narrows: --debug shows where."
    return "".join(c for c in text if c.isprintable() or c == "\n")


def _is_shortage(fault: BaseException) -> bool:
    from narrows._machine import is_shortage

    return is_shortage(fault)


class _Verbs(click.Group):
    """A group whose verbs are imported when they are used, and whose errors are one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in VERBS:
            return None
        found = import_module(VERBS[cmd_name]).command
        assert isinstance(found, click.Command)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = args[: args.index("--")] if "--" in args else args
        if "--debug" in own:  # also after the verb
            args = ["--debug", *(a for a in own if a != "--debug"), *args[len(own) :]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (Exception, KeyboardInterrupt) as fault:  # the last door: one message for all
            if ctx.params.get("debug"):
                raise
            ctx.exit(_report(fault))
        return result


def _report(fault: BaseException) -> int:
    """Print one message on stderr (none for a broken pipe) and return the exit code."""
    if isinstance(fault, BrokenPipeError):
        drop_stdout()
    else:
        click.echo(_message(fault), err=True)
    if exit_code(fault) == INTERRUPTED:
        said()
    return exit_code(fault)


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done or yes, 1 the answer is no, 2 usage, 3 could not be done, 130 Ctrl-C.",
)
@click.version_option(package_name="narrows", prog_name="narrows")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def command(*, debug: bool) -> None:
    """Measure what a low-rank factorisation buys and costs on this machine, and choose the rank.

    \b
    Example:
      narrows measure -o report.json
      narrows show report.json
      narrows choose report.json --tokens 1024 --error 0.05
    """
    del debug


def main() -> None:
    """Run the command and exit."""
    end_at_ctrl_c()
    own_stdout()
    command()
