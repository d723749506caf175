"""Source code that would let a file run code: read off the syntax tree, nothing is run."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULES = frozenset({"pickle", "_pickle", "shelve", "marshal", "dill", "joblib", "cloudpickle", "yaml", "jsonpickle"})
CALLS = frozenset(
    {
        "torch.load",
        "torch.jit.load",
        "torch.hub.load",
        "torch.package.PackageImporter",
        "pandas.read_pickle",
        "eval",
        "exec",
        "compile",
        "__import__",
        "os.system",
        "runpy.run_path",
    }
)
ARRAYS = "numpy.load"


@dataclass(frozen=True, slots=True)
class Finding:
    """One place in the source."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


def findings(folder: Path) -> list[Finding]:
    """Return every place below a folder that could run what a file holds."""
    return [
        Finding(str(file.relative_to(folder)), line, what)
        for file in sorted(folder.rglob("*.py"))
        for line, what in _in_source(file.read_text(encoding="utf-8"))
    ]


def _in_source(text: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(text)
    names = _names(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((node.lineno, f"imports {one}") for one in _imported(node) if one.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, what) for what in _in_call(node, names))


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    return [node.module or ""]


def _names(tree: ast.AST) -> dict[str, str]:
    """Return what each imported name of a module stands for."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                one.asname or one.name.split(".")[0]: one.name if one.asname else one.name.split(".")[0]
                for one in node.names
            }
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return found


def _in_call(node: ast.Call, names: dict[str, str]) -> Iterator[str]:
    called = _dotted(node.func, names)
    given = {word.arg: word.value for word in node.keywords}
    if called in CALLS:
        yield f"calls {called}"
    if called == ARRAYS and not _is_false(given.get("allow_pickle")):
        yield "calls numpy.load without allow_pickle=False"
    yield from (
        f"{word} is not False"
        for word in ("trust_remote_code", "allow_pickle")
        if word in given and not _is_false(given[word])
    )
    if "weights_only" in given:
        yield "asks for weights_only: torch.load is not for files of strangers"


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return ""


def _is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False
