"""`narrows doctor` and `narrows spectrum`: one true run, and the tables on records made here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from narrows._machine import DtypeProbe
from narrows._values import Ceilings, Machine
from narrows.cli import doctor
from narrows.errors import DeviceError, InputError
from narrows.reporting import table_text
from narrows.reporting._doctor import KernelCheck, ceilings_table, dtypes_table, kernels_table, machine_table


@pytest.fixture(scope="module")
def report():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "CEILING_SECONDS", 0.1)
        found = CliRunner().invoke(doctor.command, ["--json"], catch_exceptions=False)
    return json.loads(found.stdout)


def test_it_says_what_the_machine_is(report):
    facts = {row["what"]: row["value"] for row in report["machine"]["rows"]}
    assert facts["device"] == "cpu"
    assert facts["threads"] == torch.get_num_threads()
    assert facts["torch"] == torch.__version__
    assert facts["memory free now"] <= facts["memory"]
    assert len(facts["fingerprint"]) == 16


def test_it_says_what_the_machine_reaches(report):
    (ceilings,) = report["ceilings"]["rows"]
    assert ceilings["dtype"] == "float32"
    assert ceilings["read_bytes_per_s"] > 0
    assert [row["dtype"] for row in report["dtypes"]["rows"]] == ["float32", "bfloat16", "float16", "float64"]


def test_every_implementation_is_asked_about_every_form_of_its_kind(report):
    from narrows.kernels import kernels_for

    rows = report["implementations"]["rows"]
    assert len(rows) == len(kernels_for("linear")) + 2 * len(kernels_for("bilinear"))
    assert {row["problem"] for row in rows} == {
        "linear, float32",
        "bilinear, Y = X, float32",
        "bilinear, Y of its own, float32",
    }
    assert all(row["runs"] == (row["reason"] == "") for row in rows)
    assert any(row["runs"] for row in rows)


def test_a_missing_device_or_an_unknown_dtype_is_named():
    with pytest.raises(DeviceError, match="device='tpu' is not known"):
        CliRunner().invoke(doctor.command, ["--device", "tpu"], catch_exceptions=False)
    with pytest.raises(InputError, match="dtype=int8 is not supported"):
        CliRunner().invoke(doctor.command, ["--dtype", "fp32,int8"], catch_exceptions=False)


GPU = Machine(
    fingerprint="0123456789abcdef",
    device="cuda",
    name="NVIDIA H200",
    cores=16,
    threads=16,
    caches={"L2": 62914560},
    features=("sm_90",),
    memory_bytes=141 << 30,
    num_multiprocessors=132,
    software={"driver": "580.1"},
)


def test_a_gpu_is_shown_with_its_multiprocessors_versions_and_conditions():
    text = table_text(machine_table(GPU, 100 << 30, {"GPU held back by": "power cap"}))
    for part in ("NVIDIA H200", "132", "sm_90", "60.0 MiB", "100 GiB", "580.1", "power cap"):
        assert part in text


def test_ceilings_show_rates_with_prefixes_and_the_launch_in_a_graph():
    found = Ceilings("bfloat16", 4.2e12, 3.36e12, 8e12, 5e12, 3.9e12, 788e12, (8192, 8192, 8192), 8500, 1200, 62914560)
    text = table_text(ceilings_table([found]))
    for part in ("788 T", "8192x8192x8192", "4.20 T", "3.36 T", "8.50 us", "1.20 us"):
        assert part in text


def test_a_slow_dtype_and_a_refusal_say_no():
    assert "0.0023x  no" in table_text(dtypes_table([DtypeProbe("float16", 1e9, 0.0023, is_fast=False)]))
    (row,) = kernels_table([KernelCheck("two", "linear", "needs a GPU")]).rows
    assert [cell.text for cell in row] == ["two", "linear", "no", "needs a GPU"]


@pytest.mark.parametrize("verb", ["doctor", "spectrum"])
def test_help_shows_an_example_and_imports_neither_torch_nor_numpy(verb):
    code = (
        "import sys; from click.testing import CliRunner; "
        f"from narrows.cli.{verb} import command; print(CliRunner().invoke(command, ['--help']).output); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'rich')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"\n    narrows {verb} " in done.stdout
