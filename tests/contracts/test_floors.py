"""Each floor imports only from below, and the check that says so can fail."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the tree in `folder`."""
    return subprocess.run(
        [LINT, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def copy_of(root: Path, folder: Path) -> Path:
    """Return a copy of the tree that can be spoiled."""
    shutil.copytree(root / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", folder)
    return folder


def test_every_floor_imports_only_from_below(root: Path) -> None:
    result = lint(root)
    assert result.returncode == 0, result.stdout


def test_an_import_from_above_is_reported_with_its_line(root: Path, tmp_path: Path) -> None:
    tree = copy_of(root, tmp_path)
    with (tree / "src/narrows/errors.py").open("a", encoding="utf-8") as file:
        file.write("\nfrom narrows import planning\n")
    result = lint(tree)
    assert result.returncode == 1
    assert "narrows.errors -> narrows.planning" in result.stdout


def test_torch_in_planning_is_reported(root: Path, tmp_path: Path) -> None:
    tree = copy_of(root, tmp_path)
    with (tree / "src/narrows/planning/__init__.py").open("a", encoding="utf-8") as file:
        file.write("\nimport torch\n")
    result = lint(tree)
    assert result.returncode == 1
    assert "narrows.planning -> torch" in result.stdout


def names_taken_from_the_top(folder: Path) -> set[tuple[str, str]]:
    """Return (file, name) of every `from narrows import name` below the top that names no module and no version.

    import-linter cannot see through them: the top resolves public names on first use.
    """
    modules = {path.stem for path in folder.iterdir()} | {"__version__"}
    return {
        (str(path.relative_to(folder)), alias.name)
        for path in folder.rglob("*.py")
        if path.parent != folder
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "narrows"
        for alias in node.names
        if alias.name not in modules
    }


def test_no_floor_takes_public_names_from_the_top(root: Path) -> None:
    assert not names_taken_from_the_top(root / "src/narrows")


def test_a_public_name_taken_from_the_top_is_found(tmp_path: Path) -> None:
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops/_linear.py").write_text("from narrows import __version__, measure, ops\n", encoding="utf-8")
    assert names_taken_from_the_top(tmp_path) == {("ops/_linear.py", "measure")}
