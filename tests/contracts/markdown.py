"""Code blocks of Markdown files, for the tests that run them."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def pages(root: Path) -> list[Path]:
    """Return every page that people read."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("benchmarks/*.md")])


def blocks(text: str, language: str) -> list[str]:
    """Return the contents of the fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Return the arguments of every `$ narrows ...` line in console blocks."""
    lines = [line for block in blocks(text, "console") for line in block.splitlines()]
    return [shlex.split(line.removeprefix("$ narrows ")) for line in lines if line.startswith("$ narrows ")]


def links(text: str) -> list[str]:
    """Return the targets of links to files of the project, without anchors."""
    found = re.findall(r"\]\(([^)#\s]+)[^)\s]*\)", text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]
