"""The public face: every name resolves, is found by type checkers, and hides no folder."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import narrows

SOURCE = Path(narrows.__file__)


def type_checking_names() -> dict[str, str]:
    """Return public name -> module, as the TYPE_CHECKING block tells type checkers."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {
        alias.asname or alias.name: statement.module.removeprefix("narrows.")
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module is not None
        for alias in statement.names
    }


@pytest.mark.parametrize("name", narrows.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(narrows, name) is not None


def test_type_checkers_see_the_names_that_resolve_at_run_time() -> None:
    assert type_checking_names() == narrows._HOME


def test_no_public_name_equals_a_folder_or_module() -> None:
    # `from narrows import bench` gives the module, whatever narrows.bench was meant to be.
    taken = {path.stem for path in SOURCE.parent.iterdir() if path.suffix in {"", ".py"}}
    assert not taken & set(narrows.__all__)


def test_a_public_name_is_listed_by_dir() -> None:
    assert set(narrows.__all__) <= set(dir(narrows))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'factorise'; it has AttentionWidths, Budget, .*factorize"):
        _ = narrows.factorise
