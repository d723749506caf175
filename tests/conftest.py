"""What every test shares: no writes outside tmp, one thread a worker, GPU tests only where a GPU is."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# Deadlines measure the machine's load, not the code.
settings.register_profile("narrows", deadline=None, max_examples=50)
settings.load_profile("narrows")

ROOT = Path(__file__).parents[1]


def pytest_configure() -> None:
    """Let Ctrl-C reach child processes; give each of two workers one thread: two each fight over two cores."""
    # A shell starts background jobs with SIGINT ignored, and what they start inherits that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch

    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported: the kernels then run on a CPU


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say "not shown" for tests that need a GPU where there is none."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="not shown: no CUDA device"))


@pytest.fixture(autouse=True, scope="session")
def _caches_in_tmp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what narrows stores for its user out of the user's home, also in child processes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def narrows_command() -> list[str]:
    """Return the command line that runs narrows from this source tree."""
    return [sys.executable, "-m", "narrows"]
