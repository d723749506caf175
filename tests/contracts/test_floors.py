"""Each floor imports only from below, and the check that says so can fail."""

from __future__ import annotations

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
