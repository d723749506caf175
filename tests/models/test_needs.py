"""What is not installed is told before anything takes minutes."""

from __future__ import annotations

import pytest

from narrows import check, compress_
from narrows.errors import ResourceError
from narrows.models import _needs, compress

CALLS = {
    "narrows check": lambda: check("none", "none"),  # it ended in "a fault in narrows"
    "narrows.compress_": lambda: compress_(None, None),  # it calibrated first
    "narrows compress": lambda: compress("none", "none", None, texts="none"),
}


@pytest.mark.parametrize("what", CALLS)
def test_without_scipy_it_is_said_at_once_what_to_install(what, monkeypatch):
    monkeypatch.setattr(_needs, "find_spec", lambda name: None)

    with pytest.raises(ResourceError) as told:
        CALLS[what]()

    assert str(told.value) == f"{what} needs scipy, which is not installed: pip install 'narrows[models]'."


def test_with_scipy_nothing_is_said():
    _needs.need_scipy("a test")
