"""Wheel and sdist: built twice from two copies that differ in all but content, and what they hold."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
EPOCH = "1700000000"
PACKAGE = "src/narrows/"
CACHES = ("__pycache__", ".pyc", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", ".DS_Store")
ABOUT = frozenset({"METADATA", "RECORD", "entry_points.txt", "licenses/LICENSE"})
NEEDED = ("narrows/py.typed", "narrows/cli/_main.py", "narrows/__main__.py")


def project_files() -> list[str]:
    """Return every file of the project: of git's, what is tracked or about to be; in an sdist, all there is."""
    words = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        found = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
        names = [name for name in found if not any(cache in name for cache in CACHES) and name != "PKG-INFO"]
    else:
        names = listed.stdout.split("\0")
    return sorted(name for name in names if (ROOT / name).is_file())


def copy_to(folder: Path, names: Sequence[str], *, seconds: int, mode: int) -> Path:
    """Return a copy of the project's files, made in this order, all of one time and one mode."""
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        target.chmod(mode)
        os.utime(target, (seconds, seconds))
    return folder


def built(folder: Path, out: Path, kind: str) -> Path:
    """Return the wheel or sdist that is built from a folder."""
    words = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    subprocess.run(words, cwd=folder, env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH}, capture_output=True, check=True)
    (found,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return found


def copied_twice(work: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """Return two copies of the project that differ in all but content: folder, order, times and modes."""
    first = copy_to(work / "one", names, seconds=1_600_000_000, mode=0o644)
    return first, copy_to(work / "another/below", names[::-1], seconds=1_650_000_001, mode=0o600)


def sha256(path: Path) -> str:
    """Return a file's digest."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names_in(path: Path) -> list[str]:
    """Return the names of the files in a wheel or an sdist (an sdist's without their common folder)."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return sorted(wheel.namelist())
    with tarfile.open(path) as sdist:
        return sorted(one.name.partition("/")[2] for one in sdist if one.isfile())


def faults_of_wheel(names: list[str], project: list[str]) -> list[str]:
    """Return what is wrong with the names in a wheel: it holds src/narrows, all of it, and its metadata.

    Args:
        names: in the wheel.
        project: every file of the project.
    """
    inside = {name for name in names if ".dist-info/" not in name}
    wanted = {name.removeprefix("src/") for name in project if name.startswith(PACKAGE)}
    about = {name.partition(".dist-info/")[2] for name in names}
    return [
        *(f"missing: {name}" for name in sorted((wanted | set(NEEDED)) - inside)),
        *(f"not of the package: {name}" for name in sorted(inside - wanted)),
        *(f"a cache: {name}" for name in names if is_cache(name)),
        *(f"missing: {name}" for name in sorted(ABOUT - about)),
    ]


def faults_of_sdist(names: list[str], project: list[str]) -> list[str]:
    """Return what is wrong with the names in an sdist: it holds the project's files, and those alone."""
    wanted = set(project) | {"PKG-INFO"}
    return [
        *(f"missing: {name}" for name in sorted(wanted - set(names))),
        *(f"not of the project: {name}" for name in sorted(set(names) - wanted)),
    ]


def is_cache(name: str) -> bool:
    """Say whether a name is one of a cache, or of a test."""
    is_test = "/tests/" in f"/{name}" or name.rpartition("/")[2].startswith("test_")
    return is_test or any(cache in name for cache in CACHES)


def metadata(wheel: Path) -> dict[str, list[str]]:
    """Return a wheel's metadata, each name with its values, without the description."""
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (one for one in opened.namelist() if one.endswith(".dist-info/METADATA"))
        parsed = Parser().parsestr(opened.read(name).decode("utf-8"), headersonly=True)
    return {key: parsed.get_all(key, []) for key in parsed}


def faults_of_metadata(found: dict[str, list[str]], *, licence: str) -> list[str]:
    """Return what is wrong with a wheel's metadata: the licence, Python, and hosts of registries."""
    faults = []
    if found.get("License-Expression") != [licence]:
        faults.append(f"License-Expression is {found.get('License-Expression')}, not {licence}")
    if "Requires-Python" not in found:
        faults.append("Requires-Python is missing")
    urls = [value for key in ("Project-URL", "Home-page", "Download-URL") for value in found.get(key, [])]
    hosts = ("pypi" + ".org", "python" + "hosted.org", "download.py" + "torch.org")
    return faults + [f"a registry's host: {url}" for url in urls if any(host in url for host in hosts)]
