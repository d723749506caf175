"""What is imported, declared, pinned, hashed and licensed: lists that must agree."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from soak._figure import Status

ROOT = Path(__file__).parents[2]
LOCK = ROOT / ".ci" / "requirements.txt"
# Imported where it is found, in no extra: a second opinion in `check`, Triton with PyTorch's CUDA builds.
FOUND_ONLY = frozenset({"torchao", "triton"})
PARTS = {"pydantic-core": "pydantic"}  # what another package pins to one version and documents as a part of itself
OWN_HASH = "torch"  # which build an index serves differs, so no hash fits everywhere


def tool(name: str) -> ModuleType:
    """Return a script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def declared() -> set[str]:
    """Return the packages that narrows and its extras for users declare."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for extra in optional if extra != "dev" for text in optional[extra])]
    return {canonicalize_name(Requirement(text).name) for text in texts}


def imports(folder: Path = ROOT / "src") -> dict[str, str]:
    """Return every foreign top-level module that the sources import, with one file that does."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
            if name not in sys.stdlib_module_names and name != "narrows":
                found.setdefault(name, str(path.relative_to(folder)))
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level name of every import in a module, `import_module("name")` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(one.value).partition(".")[0] for one in node.args if isinstance(one, ast.Constant))


def faults_of_imports(found: dict[str, str], wanted: set[str]) -> list[str]:
    """Return which imports no dependency declares, and which dependencies nothing imports."""
    owners = {**packages_distributions(), "pynvml": ["nvidia-ml-py"]}
    by_owner = {canonicalize_name(owner): name for name in found for owner in owners.get(name, [name])}
    by_package = {PARTS.get(owner, owner): name for owner, name in by_owner.items()}
    undeclared = sorted(by_package.keys() - wanted - FOUND_ONLY)
    return [
        *(f"{found[by_package[name]]} imports {by_package[name]}, which nothing declares" for name in undeclared),
        *(f"{name} is declared, and nothing imports it" for name in sorted(wanted - by_package.keys())),
    ]


def pins() -> dict[str, str]:
    """Return the version of each package that constraints.txt holds."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


def locked(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return (version, hashes) of each package of a hashed list."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"^([\w.-]+)==(\S+)((?: +--hash=sha256:[0-9a-f]{64})*) *$", joined, re.MULTILINE)
    return {canonicalize_name(name): (version, tuple(hashes.split())) for name, version, hashes in found}


def faults_of_lock(text: str, wanted: set[str]) -> list[str]:
    """Return what is wrong with a hashed list: it holds what is wanted, as pinned, each with a hash, and no host."""
    found, pinned = locked(text), pins()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    return [
        *([f"{len(lines) - len(found)} lines cannot be read"] if len(lines) != len(found) else []),
        *(f"{name} is not in it" for name in sorted(wanted - found.keys() - {OWN_HASH})),
        *(f"{name} has no hash" for name, (_, hashes) in found.items() if not hashes),
        *(
            f"{name}=={version}: {pinned.get(name)} is pinned"
            for name, (version, _) in found.items()
            if pinned.get(name) != version
        ),
        *(["a host is in it"] if "://" in text else []),
    ]


def is_installed_by(script: str) -> bool:
    """Say whether a script installs by the hashed list, and only by it."""
    joined = script.replace("\\\n", " ")
    return any("--require-hashes" in line and str(LOCK.relative_to(ROOT)) in line for line in joined.splitlines())


def audit() -> tuple[Status, str]:
    """Return (status, what pip-audit says of what is installed here)."""
    if importlib.util.find_spec("pip_audit") is None:
        return "not shown", "pip-audit is not installed (it needs a service of known vulnerabilities)"
    words = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--skip-editable", "--format", "json"]
    done: subprocess.CompletedProcess[str] = subprocess.run(words, capture_output=True, text=True, check=False)
    return read_audit(done.returncode, done.stdout, done.stderr)


def read_audit(code: int, out: str, err: str) -> tuple[Status, str]:
    """Return (status, text) of what pip-audit printed: it exits 1 both for what it found and where it cannot ask."""
    import json

    try:
        told: dict[str, Any] = json.loads(out)
    except ValueError:
        return "not shown", f"pip-audit could not ask: {(err.strip().splitlines() or [f'exit {code}'])[-1][:200]}"
    known = [
        f"{one['name']} {one['version']}: {fault['id']}"
        for one in told["dependencies"]
        for fault in one.get("vulns", [])
    ]
    return ("failed", "; ".join(known)) if known else ("ok", f"nothing known of {len(told['dependencies'])} packages")
