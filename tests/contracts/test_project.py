"""Small promises of the project's files: words, licence, changelog, error tree, make and CI."""

from __future__ import annotations

import inspect
import re
import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest

import narrows
from narrows import errors

if TYPE_CHECKING:
    from pathlib import Path

# Nothing in the project may speak of the machine or the workplace it was written on. Each is written in
# two parts so that this file does not contain it.
FORBIDDEN = tuple(
    first + second
    for first, second in (
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("sha", "red/"),
        ("hel", "per"),
        ("pypi", ".org"),
        ("files.python", "hosted.org"),
        ("registry.npm", "js.org"),
        ("download.py", "torch.org"),
        ("issue", " #"),
    )
)


def project_files(root: Path) -> list[Path]:
    """Return every text file that belongs to the project: tracked or about to be."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [root / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix not in {".png", ".ico", ".safetensors"}]


def forbidden_words(path: Path) -> list[str]:
    """Return which forbidden words a file holds."""
    text = path.read_text(encoding="utf-8")
    return [word for word in FORBIDDEN if word in text]


def test_no_file_speaks_of_the_place_it_was_written_at(root: Path) -> None:
    found = {str(path.relative_to(root)): words for path in project_files(root) if (words := forbidden_words(path))}
    assert not found


def test_the_search_for_words_finds_one(tmp_path: Path) -> None:
    spoiled = tmp_path / "notes.md"
    spoiled.write_text(f"see {FORBIDDEN[0]}main", encoding="utf-8")
    assert forbidden_words(spoiled) == [FORBIDDEN[0]]


def exception_classes() -> list[type]:
    """Return every exception that errors.py defines."""
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", exception_classes(), ids=lambda kind: kind.__name__)
def test_every_exception_is_drawn_below_its_parent(kind: type) -> None:
    lines = (errors.__doc__ or "").splitlines()
    depth = {match[0]: match.start() for line in lines if (match := re.search(r"\b[A-Z]\w+Error\b", line))}
    assert kind.__name__ in depth, f"draw {kind.__name__} in the docstring of errors.py"
    if kind is not errors.NarrowsError:
        parent = next(base for base in kind.__bases__ if base.__module__ == errors.__name__)
        assert depth[kind.__name__] > depth[parent.__name__]


def test_the_exception_tree_is_not_empty() -> None:
    assert errors.ShapeError in exception_classes()


def test_the_changelog_has_the_current_version(root: Path) -> None:
    headings = re.findall(r"^## (\S+)", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == narrows.__version__


def test_the_package_and_the_library_agree_on_the_version(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == narrows.__version__


def test_the_licence_is_apache_2(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (root / "LICENSE").read_text(encoding="utf-8")
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_every_dependency_is_pinned(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {re.split(r"[^A-Za-z0-9_.-]", name)[0].lower() for name in wanted}
    pinned = re.findall(r"^([A-Za-z0-9_.-]+)==", (root / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert names <= {name.lower() for name in pinned}


def test_continuous_integration_runs_what_a_contributor_runs(root: Path) -> None:
    script = (root / ".ci/run").read_text(encoding="utf-8")
    commands = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert commands[-1] == "exec make test"
    assert (root / ".ci/run").stat().st_mode & 0o111


def test_an_old_python_is_refused_with_its_version(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2" && exit 0\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    result = subprocess.run(
        ["make", "test", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert f"narrows needs Python 3.11 or newer; {old} is Python 3.9.2." in result.stdout


def test_every_script_that_make_calls_is_there(root: Path) -> None:
    named = re.findall(r"(?:tools|docs|benchmarks)/\w+\.(?:py|sh|txt)", (root / "Makefile").read_text(encoding="utf-8"))
    assert not [name for name in named if not (root / name).exists()]
