"""The small changes to a module that mutation tests make: one operator, number, call or statement at a time.

What is left alone: docstrings, annotations, decorators, imports for types, f-strings, asserts (they state invariants
that never fail), the texts of errors, __repr__ and __str__.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
EXTREMES = {
    "min": "max", "amin": "amax", "argmin": "argmax", "minimum": "maximum",
    "floor": "ceil", "any": "all",
}  # fmt: skip
EXTREMES |= {new: old for old, new in EXTREMES.items()}
SYMMETRIC = frozenset({"min", "max", "minimum", "maximum", "gcd"})  # calls whose arguments may change places
LARGE = 100  # whole numbers from here on are limits that are chosen, which double or halve
UNTOUCHED = frozenset({"__repr__", "__str__"})


@dataclass(frozen=True, slots=True)
class Edit:
    """One stretch of a source that is replaced.

    Attributes:
        kind: of change, in a word.
        start, stop: bytes of the source.
        text: what takes their place.
        lines: first and last line of the statement, or of a compound statement's head, that runs the change; None:
            it runs when the module is imported.
        scope: the function around it, dotted; "" outside of functions.
    """

    kind: str
    start: int
    stop: int
    text: str
    lines: tuple[int, int] | None
    scope: str


def edits(source: bytes) -> list[Edit]:
    """Return every change that can be made to a module, in the order of the text."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda edit: (edit.start, edit.stop, edit.text))


class _Finder(ast.NodeVisitor):
    def __init__(self, source: bytes) -> None:
        self.found: list[Edit] = []
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._names: list[str] = []
        self._lines: tuple[int, int] | None = None
        self._is_inside = False  # of a function

    # Where things are.

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _stop(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr | ast.stmt) -> str:
        return self._source[self._start(node) : self._stop(node)].decode()

    def _add(self, kind: str, start: int, stop: int, text: str) -> None:
        lines = self._lines if self._is_inside else None
        self.found.append(Edit(kind, start, stop, text, lines, ".".join(self._names)))

    def _replace(self, kind: str, node: ast.expr | ast.stmt, text: str) -> None:
        self._add(kind, self._start(node), self._stop(node), text)

    def _between(self, kind: str, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        """Replace the operator between two operands."""
        start, stop = self._stop(left), self._start(right)
        at = self._source.find(old.encode(), start, stop)
        if at >= 0:  # "not  in" with two spaces would not be found
            self._add(kind, at, at + len(old), new)

    # Statements.

    def visit(self, node: ast.AST) -> None:
        before = self._lines
        if isinstance(node, ast.stmt):
            self._lines = _head(node)
        super().visit(node)
        self._lines = before

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        # Defaults belong to the import, the body to calls.
        if node.name in UNTOUCHED:
            return
        for default in (*node.args.defaults, *(one for one in node.args.kw_defaults if one)):
            self.visit(default)
        outer, self._is_inside = self._is_inside, True
        self._block(node.name, node.body)
        self._is_inside = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._block(node.name, node.body)

    def _block(self, name: str, body: Sequence[ast.stmt]) -> None:
        self._names.append(name)
        for statement in body:
            self.visit(statement)
        self._names.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace("raise removed", node, "pass")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self._replace("call removed", node, "pass")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not isinstance(node.value, ast.Constant):
            self._replace("return emptied", node.value, "None")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._turn(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._turn(node.test)
        self.generic_visit(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace("continue to break", node, "break")

    def visit_Break(self, node: ast.Break) -> None:
        self._replace("break to continue", node, "continue")

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in ARITHMETIC:
            old, new = ARITHMETIC[type(node.op)]
            self._between("arithmetic", node.target, node.value, f"{old}=", f"{new}=")
        self.generic_visit(node)

    # Expressions.

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._turn(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._turn(test)
        self.generic_visit(node)

    def _turn(self, test: ast.expr) -> None:
        """Turn a condition round where no other change does it."""
        is_turned_elsewhere = isinstance(test, ast.Compare) and len(test.ops) == 1
        if not is_turned_elsewhere and not isinstance(test, ast.Constant | ast.UnaryOp):
            self._replace("condition", test, f"not ({self._text(test)})")

    def visit_Compare(self, node: ast.Compare) -> None:
        for (left, right), op in zip(pairwise([node.left, *node.comparators]), node.ops, strict=True):
            old, news = COMPARISONS[type(op)]
            for new in news:
                self._between("comparison", left, right, old, new)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC:
            self._between("arithmetic", node.left, node.right, *ARITHMETIC[type(node.op)])
        elif isinstance(node.op, ast.MatMult):
            self._replace("operands swapped", node, f"(({self._text(node.right)}) @ ({self._text(node.left)}))")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in pairwise(node.values):
            self._between("and, or", left, right, old, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            self._replace("sign or not removed", node, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        for text in _others(node.value):
            self._replace("constant", node, text)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in EXTREMES:
            stop = self._stop(node.func)
            self._add("extreme", stop - len(name), stop, EXTREMES[name])
        if name == "zip":  # its `strict` is an assert
            node.keywords.clear()
        is_plain = len(node.args) > 1 and not any(isinstance(one, ast.Starred) for one in node.args[:2])
        if is_plain and name not in SYMMETRIC:
            self._swap(*node.args[:2])
        self.generic_visit(node)

    def _swap(self, first: ast.expr, second: ast.expr) -> None:
        if ast.dump(first) != ast.dump(second):
            middle = self._source[self._stop(first) : self._start(second)].decode()
            text = f"{self._text(second)}{middle}{self._text(first)}"
            self._add("arguments swapped", self._start(first), self._stop(second), text)


def _others(value: object) -> Iterator[str]:
    """Yield what takes a constant's place."""
    if isinstance(value, bool):
        yield str(not value)
    elif isinstance(value, int):
        yield from (str(value + 1), str(value - 1)) if value < LARGE else (str(2 * value), str(value // 2))
    elif isinstance(value, float):
        yield repr(2 * value) if value else "1.0"


def _head(node: ast.stmt) -> tuple[int, int]:
    """Return first and last line of a statement, of a compound one without what it holds."""
    last = node.end_lineno or node.lineno
    body = getattr(node, "body", None)
    if isinstance(body, list) and body:
        last = max(node.lineno, body[0].lineno - 1)
    return node.lineno, last
