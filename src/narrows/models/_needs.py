"""What only some features of models need, asked for before they take minutes."""

from __future__ import annotations

from importlib.util import find_spec

from narrows.errors import ResourceError


def need_scipy(what: str) -> None:
    """Check that scipy is there.

    Args:
        what: needs it, as a sentence begins.

    Raises:
        ResourceError: it is not installed.
    """
    if find_spec("scipy") is None:
        raise ResourceError(f"{what} needs scipy, which is not installed: pip install 'narrows[models]'.")
