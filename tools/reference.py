"""Write docs/reference/ from the code: api.md from docstrings, cli.md from the command's own help.

python tools/reference.py           write both pages
python tools/reference.py --check   exit 1 when a page differs from what would be written
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import narrows
from narrows import errors
from narrows.cli import VERBS, command

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
MADE = "<!-- Made by tools/reference.py (`make docs`). Edit the docstrings, not this page. -->\n"
WIDTH = 100


def pages() -> dict[Path, str]:
    """Return every page's path and text."""
    return {FOLDER / "api.md": api_page(), FOLDER / "cli.md": cli_page()}


def api_page() -> str:
    """Return the page of `narrows.__all__`."""
    names = [name for name in narrows.__all__ if not name.startswith("__")]
    parts = [MADE, "# Python reference\n", "Everything here is imported from `narrows`.\n"]
    parts += [section(f"narrows.{name}", getattr(narrows, name)) for name in names]
    parts += ["## Errors\n", "In `narrows.errors`:\n", f"```text\n{error_tree()}\n```\n"]
    return "\n".join(parts)


def error_tree() -> str:
    """Return the tree that errors.py draws."""
    return inspect.cleandoc(errors.__doc__ or "").partition("\n\n")[2]


def section(title: str, thing: object) -> str:
    """Return one public name's section, with its methods and properties."""
    parts = [f"## {title}\n", signature(title.rpartition(".")[2], thing), described(thing)]
    if inspect.isclass(thing):
        parts += [member(name, value) for name, value in members(thing)]
    return "\n".join(part for part in parts if part)


def members(kind: type) -> Iterator[tuple[str, object]]:
    """Yield the public methods and properties that narrows itself defines, in order of definition."""
    found: dict[str, object] = {}
    for base in kind.__mro__:
        if base.__module__.startswith("narrows"):
            found = {**found, **{name: value for name, value in vars(base).items() if name not in found}}
    for name, value in found.items():
        function = value.__func__ if isinstance(value, classmethod) else value
        if not name.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
            yield name, value


def member(name: str, value: object) -> str:
    """Return a method's or property's paragraph."""
    function = value.__func__ if isinstance(value, classmethod) else value
    is_property = isinstance(function, property)
    head = f"#### `.{name}`\n" if is_property else f"#### `.{name}{parameters(function)}`\n"
    return f"{head}\n{described(function)}"


def signature(name: str, thing: object) -> str:
    """Return a code block with the call; empty for what cannot be called with keywords."""
    return f"```python\n{name}{parameters(thing)}\n```\n"


class Dots:
    """A default that cannot be written down."""

    def __repr__(self) -> str:
        return "..."


def parameters(thing: object) -> str:
    """Return "(weight, *, rank=None)": the shapes and types are told by the docstring."""
    plain = [
        parameter.replace(
            annotation=parameter.empty,
            default=Dots() if inspect.isfunction(parameter.default) else parameter.default,
        )
        for name, parameter in inspect.signature(thing).parameters.items()  # type: ignore[arg-type]
        if name not in {"self", "cls"}
    ]
    return str(inspect.Signature(plain))


def described(thing: object) -> str:
    """Return a docstring as Markdown: its sections (Args, Raises, ...) become lists."""
    lines = inspect.cleandoc(thing.__doc__ or "").splitlines()
    written: list[str] = []
    for line in lines:
        title = re.fullmatch(r"(Args|Attributes|Returns|Raises|Example|Yields):", line)
        entry = re.fullmatch(r" {4}(\*{0,2}\w[\w ,*.]*): (.*)", line)
        if title:
            written.append(f"**{title[1]}**\n")
        elif entry:
            written.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            written.append(line.removeprefix("    "))
    return "\n".join(written).rstrip() + "\n"


def cli_page() -> str:
    """Return the page of the command's helps."""
    parts = [MADE, "# Command reference\n", help_block("narrows", command)]
    for verb in VERBS:
        found = command.get_command(click.Context(command), verb)
        if found is not None:
            parts += [f"## narrows {verb}\n", help_block(f"narrows {verb}", found)]
    return "\n".join(parts)


def help_block(name: str, described_command: click.Command) -> str:
    """Return one help as the terminal shows it, always equally wide."""
    context = click.Context(described_command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    context.help_option_names = ["-h", "--help"]
    text = "\n".join(line.rstrip() for line in described_command.get_help(context).splitlines())
    return f"```text\n{text}\n```\n"


def write_or_check(texts: dict[Path, str], arguments: list[str]) -> int:
    """Write the texts, or with --check say which files differ (exit code 1)."""
    if arguments not in ([], ["--check"]):
        print("usage: python tools/reference.py [--check]", file=sys.stderr)
        return 2
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if arguments:
            print(f"{path} is out of date: run `make docs`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
            print(f"wrote {path}")
    return 1 if arguments and stale else 0


if __name__ == "__main__":
    sys.exit(write_or_check(pages(), sys.argv[1:]))
