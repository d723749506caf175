"""Every configuration that is shipped, compiled for sm_90: it fits a multiprocessor and spills nothing."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kernels.triton.compiling import canary, cases

SHARED_BYTES = 227 << 10  # that one program may take on an H100 or H200
PROCESSES = 2
NAMES = [str(case) for case in cases()]

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="not shown: triton is not installed")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[dict]]:
    """Return what the compiler says of each kernel, by chain."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")), "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("compiling.py")
    children = [
        subprocess.Popen(
            [sys.executable, str(script), str(first), str(PROCESSES)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for first in range(PROCESSES)
    ]
    outputs = [(child, *child.communicate(timeout=300)) for child in children]
    rows: dict[str, list[dict]] = {}
    for child, stdout, stderr in outputs:
        assert child.returncode == 0, stderr[-2000:]
        for line in stdout.splitlines():
            row = json.loads(line)
            rows.setdefault(row["case"], []).append(row)
    return rows


def faults(rows: list[dict]) -> list[str]:
    """Return what is wrong with the kernels of one chain."""
    return [
        f"{row['kernel']}: {what}"
        for row in rows
        for what, is_wrong in (
            (f"{row['shared']} bytes of shared memory", row["shared"] > SHARED_BYTES),
            (f"{row['spilled']} bytes spilled, {row['registers']} registers", row["spilled"] > 0),
            ("no wgmma", row["wants_wgmma"] and not row["wgmma"]),
            ("wgmma one after the other", row["serialized"]),
        )
        if is_wrong
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_fits_a_multiprocessor_spills_nothing_and_uses_wgmma(found, name):
    assert faults(found[name]) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("gluon")])
def test_the_shared_memory_that_the_host_counts_is_what_the_compiler_takes(found, name):
    for row in found[name]:
        assert row["counted"] - 16 <= row["shared"] <= row["counted"]


def test_a_tile_that_no_multiprocessor_holds_is_reported(found):
    wrong = faults(found[str(canary())])
    assert any("bytes of shared memory" in fault for fault in wrong)
    assert any("bytes spilled, 255 registers" in fault for fault in wrong)
