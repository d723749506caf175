"""Write .ci/requirements.txt: what continuous integration installs, with hashes, for this Python and system.

python tools/lock.py

pip chooses: the versions of constraints.txt, wheels only. PyTorch is left out: which build of one version is served
(CPU, CUDA) depends on the index, so no hash fits everywhere; its version is pinned in constraints.txt.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
LOCK, PINS = ROOT / ".ci" / "requirements.txt", ROOT / "constraints.txt"
WITHOUT = ("torch", "narrows")
BUILDING = ("editables",)  # hatchling's, for an installation that follows the sources
HEAD = """\
# What continuous integration installs beside PyTorch, each wheel with its SHA-256: see CONTRIBUTING.md.
# Made by tools/lock.py for Python {python} on {system}. PyTorch is not in it: its build differs by index.
"""


def wanted() -> list[str]:
    """Return what the project asks for, its development tools and its build included."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = told["project"]
    development = project["optional-dependencies"]["dev"]
    return [*told["build-system"]["requires"], *BUILDING, *project["dependencies"], *development]


def resolved(requirements: Sequence[str]) -> list[dict[str, Any]]:
    """Return pip's report of what it would install into an empty environment: name, version and hash of each file."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = [
            "--dry-run",
            "--ignore-installed",
            "--only-binary",
            ":all:",
            "--report",
            str(report),
            "-c",
            str(PINS),
        ]
        subprocess.run([*pip, "install", *options, *requirements], check=True)
        found: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [one for one in found if one["metadata"]["name"].lower() not in WITHOUT]


def locked(files: Sequence[dict[str, Any]]) -> str:
    """Return the list of these files."""
    lines = sorted(map(line, files), key=str.lower)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return HEAD.format(python=python, system=f"{platform.system()} {platform.machine()}") + "".join(lines)


def line(one: dict[str, Any]) -> str:
    """Return a requirement with its hash."""
    digest = one["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{one['metadata']['name']}=={one['metadata']['version']} \\\n    --hash=sha256:{digest}\n"


if __name__ == "__main__":
    LOCK.write_text(locked(resolved(wanted())), encoding="utf-8")
