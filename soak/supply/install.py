"""The wheel installed where nothing else of this folder is, and tests of the sdist run against it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soak._figure import Status

ROOT = Path(__file__).parents[2]
PIP = ("--disable-pip-version-check", "--no-input", "-q")
# Words of pip where the registry, and not the package, is why nothing was installed.
OUT_OF_REACH = ("No matching distribution found for torch", "connection", "Connection", "timed out", "resolve host")
# Tests of own kernels need Triton's interpreter: a development dependency of 640 MB.
WITHOUT_TRITON = "not triton and not own_kernels and not own_backward and not own_implementation"
WHERE = "import narrows, sys; sys.exit(None if narrows.__file__.startswith(sys.prefix) else narrows.__file__)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of an installation and its tests.

    Attributes:
        status: "ok", "failed" or "not shown" (the registry is out of reach).
        told: how many tests passed, or why not.
        failures: the tests that failed.
    """

    status: Status
    told: str
    failures: tuple[str, ...] = ()


def beside(wheel: Path, sdist: Path, work: Path, tests: Sequence[str], jobs: int) -> Done:
    """Return how tests end in a new environment that holds the wheel, and finds all else among what is here."""
    python = environment(work / "beside")
    rest = Path(site_packages(python)) / "rest.pth"  # .pth files of the folder named in it are not read: no source tree
    rest.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    done = ran(sys.executable, "-m", "pip", *PIP, "--python", str(python), "install", "--no-deps", str(wheel))
    if done.returncode:
        return Done(status="failed", told=last_line(done))
    return tested(python, sdist, work / "beside-sdist", [*tests, *(("-n", str(jobs)) if jobs > 1 else ())])


def from_registry(wheel: Path, sdist: Path, work: Path, tests: Sequence[str], jobs: int) -> Done:
    """Return how tests end in a new environment into which pip installs the wheel and what it says it needs.

    Only the build of PyTorch that is installed here will do: another can be gigabytes larger.
    """
    del jobs  # pytest alone is installed there
    python = environment(work / "registry")
    torch = f"torch=={importlib.metadata.version('torch')}"
    wanted = [str(wheel), torch, "pytest", "hypothesis"]
    pins = ["-c", str(ROOT / "constraints.txt")]
    done = ran(sys.executable, "-m", "pip", *PIP, "--python", str(python), "install", *pins, *wanted)
    if done.returncode:
        is_registry = any(word in done.stderr for word in OUT_OF_REACH)
        return Done(status="not shown" if is_registry else "failed", told=last_line(done))
    return tested(python, sdist, work / "registry-sdist", [*tests, "-k", WITHOUT_TRITON])


def environment(folder: Path) -> Path:
    """Return the Python of a new environment without packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def site_packages(python: Path) -> str:
    """Return where an environment keeps its packages."""
    return ran(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()


def tested(python: Path, sdist: Path, folder: Path, arguments: Sequence[str]) -> Done:
    """Return how the sdist's tests end under a Python, after a look that narrows is the wheel's there."""
    with tarfile.open(sdist) as packed:
        packed.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    looked = ran(str(python), "-c", WHERE, cwd=root)
    if looked.returncode:
        return Done(status="failed", told=f"narrows is not the wheel's: {last_line(looked)}")
    words = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = ran(*words, cwd=root)
    failures = tuple(line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR ")))
    return Done(status="failed" if done.returncode else "ok", told=last_line(done), failures=failures)


def ran(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Return what a command did; no source folder is on its path."""
    own = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTEST_ADDOPTS"}}
    return subprocess.run(words, cwd=cwd, env=own, capture_output=True, text=True, check=False)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a command printed."""
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[-1].strip("= ") if lines else f"exit {done.returncode}"
