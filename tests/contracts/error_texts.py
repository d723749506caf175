"""Where narrows raises its errors, and which tests match their texts, read from the sources.

A text is literal parts with holes between them, in which values stand. A test matches a text where one of its
strings holds enough of a literal part, and its values where it goes on, or begins, with something that stands in a
hole. Regular expressions are read as plain text: escapes are taken away, and what matches anything becomes a gap.
"""

from __future__ import annotations

import ast
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

HOLE = "\x00"  # a value in an error's text, or in an f-string of a test
GAP = "\x01"  # where a test's pattern matches anything
LEAST = 8  # characters of an error's own words that a test must repeat
WINDOW = 6  # characters in a row that they must share to be compared at all
LONGEST_VALUE = 80
LONGEST = 250  # characters of a test's pattern: what is longer is a document
# \d+, [^)]*, .*?, (one|two): what a pattern leaves open.
OPEN = re.compile(r"\\[dwsDWS][*+?]*|(?<!\\)\[[^\]]*\][*+?]*|(?<!\\)\.[*+?]+|(?<!\\)\.|\{\d+(?:,\d*)?\}")
ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Site:
    """Attributes:
    place: file and line.
    kind: class of the error.
    text: literal parts with HOLE between them; empty: not written where it is raised.
    """

    place: str
    kind: str
    text: str

    @property
    def parts(self) -> list[str]:
        """Literal parts in order."""
        return self.text.split(HOLE)


def sites(paths: Iterable[Path], root: Path, kinds: Iterable[str]) -> Iterator[Site]:
    """Yield every call of an error's class, one for each text that it can have."""
    names = set(kinds)
    for path in paths:
        for function, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            kind = called(call)
            if kind in names:
                place = f"{path.relative_to(root)}:{call.lineno}"
                texts = written(call.args[0], function) if call.args else [""]
                yield from (Site(place, kind, text) for text in texts)


def calls(tree: ast.AST, function: ast.AST | None = None) -> Iterator[tuple[ast.AST | None, ast.Call]]:
    """Yield every call with the function that it stands in."""
    for node in ast.iter_child_nodes(tree):
        inside = node if isinstance(node, ast.FunctionDef) else function
        if isinstance(node, ast.Call):
            yield function, node
        yield from calls(node, inside)


def called(call: ast.Call) -> str:
    """Return the last name of what is called."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def written(node: ast.expr, function: ast.AST | None) -> list[str]:
    """Return the texts that an expression can be; "" where it is not written in this function."""
    if isinstance(node, ast.IfExp):
        return [*written(node.body, function), *written(node.orelse, function)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [[text or HOLE for text in written(side, function)] for side in (node.left, node.right)]
        return ["".join(both) for both in itertools.product(*sides)]
    if isinstance(node, ast.Name):
        return assigned(node.id, function) or [""]
    if isinstance(node, ast.JoinedStr):
        return ["".join(parts) for parts in itertools.product(*(pieces(value, function) for value in node.values))]
    return [literal(node)]


def pieces(node: ast.expr, function: ast.AST | None) -> list[str]:
    """Return what a part of an f-string can be: words where it is a name for some, else HOLE."""
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        words = assigned(node.value.id, function)
        return words if words and all(text and HOLE not in text for text in words) else [HOLE]
    return [literal(node) or HOLE]


def assigned(name: str, function: ast.AST | None) -> list[str]:
    """Return the texts that a name is given in a function."""
    found: list[str] = []
    for node in ast.walk(function) if function else ():
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == name for target in node.targets):
            found += written(node.value, None)
    return found


def literal(node: ast.expr) -> str:
    """Return a string's text with HOLE for its values; "" for what is no string."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(value) or HOLE for value in node.values)
    return ""


def strings(paths: Iterable[Path]) -> list[str]:
    """Return every string of these tests as plain text."""
    found: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Constant, ast.JoinedStr)):
                found.update(plain(literal(node)).split("|"))
    return sorted(text for text in found if LEAST <= len(text) <= LONGEST and "\n" not in text)


def plain(pattern: str) -> str:
    """Return a pattern as text: GAP where it matches anything, escapes taken away."""
    return ESCAPE.sub(r"\1", OPEN.sub(GAP, pattern))


@dataclass(frozen=True)
class Match:
    """Attributes:
    literal: characters of the error's own words that a test's string repeats.
    has_value: it shows something in the place of a value.
    """

    literal: int
    has_value: bool


def match(site: Site, test: str) -> Match | None:
    """Return how a test's string fits into a text; None where a piece of it does not, or it repeats too little."""
    if test.count(" ") + len(test) // 12 < 2:  # a word or two are no sentence's own
        return None
    pieces = [piece for piece in test.split(GAP) if len(piece.strip()) > 2]
    found = [fit(site.parts, piece.strip()) for piece in pieces]
    if not found or None in found:
        return None
    literal = sum(one.literal for one in found if one)
    enough = min(LEAST, max(map(len, site.parts)))
    return Match(literal, any(one.has_value for one in found if one)) if literal >= enough else None


def fit(parts: list[str], piece: str) -> Match | None:
    """Return the best way to find a piece in a text whose holes hold any value."""
    ways = [after_hole(parts, i, piece) for i in range(len(parts) - 1)]
    for i, part in enumerate(parts):
        for start in places(part, piece[0]):
            if part.startswith(piece, start):
                ways.append(Match(len(piece), has_value=False))
            elif i + 1 < len(parts) and piece.startswith(part[start:]):
                ways.append(added(len(part) - start, after_hole(parts, i, piece[len(part) - start :])))
    return max((way for way in ways if way), key=lambda way: way.literal, default=None)


def after_hole(parts: list[str], i: int, rest: str) -> Match | None:
    """Return the best way to find a rest that begins within the hole behind part i."""
    ways: list[Match | None] = [Match(0, has_value=bool(rest.strip()))] if len(rest) <= LONGEST_VALUE else []
    following = parts[i + 1]
    for end in places(rest[: LONGEST_VALUE + 1], following[:1]):
        if end and following.startswith(rest[end:]):
            ways.append(Match(len(rest) - end, has_value=True))
        elif end and i + 2 < len(parts) and rest.startswith(following, end):
            ways.append(added(len(following), after_hole(parts, i + 1, rest[end + len(following) :])))
    return max((way for way in ways if way), key=lambda way: way.literal, default=None)


def places(text: str, character: str) -> list[int]:
    """Return where a character stands in a text; nowhere for no character."""
    return [i for i, one in enumerate(text) if one == character]


def added(literal: int, way: Match | None) -> Match | None:
    """Return the way with so many literal characters before it."""
    return way and Match(literal + way.literal, way.has_value)


def matches(every: Iterable[Site], tests: Iterable[str]) -> dict[Site, list[Match]]:
    """Return for each text the strings that match it, and no other text better."""
    known = list(every)
    found: dict[Site, list[Match]] = {site: [] for site in known}
    holders: dict[str, set[Site]] = {}
    for site in known:
        for window in windows(site.text):
            holders.setdefault(window, set()).add(site)
    for test in tests:
        near = {site for window in windows(test) for site in holders.get(window, ())}
        ways = {site: way for site in near if (way := match(site, test))}
        best = max((way.literal for way in ways.values()), default=0)
        for site, way in ways.items():
            if way.literal == best:
                found[site].append(way)
    return found


def windows(text: str) -> set[str]:
    """Return every WINDOW characters in a row without a hole or a gap."""
    parts = re.split(f"[{HOLE}{GAP}]", text)
    return {part[i : i + WINDOW] for part in parts for i in range(len(part) - WINDOW + 1)}
