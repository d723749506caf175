"""The linear chain's kernels at the sizes of the formula, compiled for sm_90: they fit and spill nothing."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kernels.triton.test_compiled import faults

CASES = [
    f"{form},{sizes}"
    for form in ("linear", "gated", "group")
    for sizes in ("16,64,bfloat16", "1024,256,float16", "1024,64,float32")
]

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="not shown: triton is not installed")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what the compiler says of each kernel, by case; in a process of its own, without the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")), "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("compile_linear.py")
    command = [sys.executable, script, *CASES]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {}
    for line in done.stdout.splitlines():
        row = json.loads(line)
        rows.setdefault(row["case"], []).append(row)
    return rows


@pytest.mark.parametrize("case", CASES)
def test_the_last_kernel_fits_a_multiprocessor_spills_nothing_and_uses_wgmma(found, case):
    *others, last = found[case]
    assert last["kernel"] == {"linear": "outer_kernel", "gated": "gated_kernel"}.get(
        case.split(",")[0], "grouped_kernel"
    )
    assert faults([last]) == []
    if "float32" not in case:
        assert faults(others) == []
