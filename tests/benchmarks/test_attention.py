"""The attention benchmark on a small CPU: which rows it makes, what they are judged by, what it does without a GPU."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import benchmark_fakes as fakes
import pytest
import torch

import attention
from _attention_points import Point, Sizes, best_config, decode_rows, prefill_rows, sweep_configs, sweep_rows
from narrows.kernels import ATTENTION_MATH, ATTENTION_TRITON, DecodeConfig

SMALL = Sizes(2, 4, 2, 1, 40, 8, 12)
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # the interpreter's loops


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


def test_without_a_gpu_it_says_so_and_exits_3(root):
    if torch.cuda.is_available():
        pytest.skip("not shown: there is a GPU")
    done = subprocess.run(
        [sys.executable, root / "benchmarks" / "attention.py", "-"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1


def test_a_decode_length_has_own_kernels_and_torchs():
    tuned = {(8, 12): DecodeConfig(16, 2)}
    rows = decode_rows([SMALL], tuned, fakes.setting(), end=0.0)
    assert [row["variant"] for row in rows] == ["triton", "triton tuned", "sdpa"]
    assert {row["status"] for row in rows} == {"ok"}
    # q and result: 2 * 4 * 20 elements, k and v: 2 * 2 * 40 * 20, of 2 bytes; 1e12 bytes a second; 1 us measured.
    assert rows[0]["limit_us"] == pytest.approx((160 + 3200) * 2 / 1e12 * 1e6)
    assert rows[0]["share"] == pytest.approx(rows[0]["limit_us"])


def test_a_wrong_kernel_has_no_time(monkeypatch):
    monkeypatch.setattr(
        type(ATTENTION_TRITON), "run", lambda _, *tensors, **asked: ATTENTION_MATH.run(*tensors, **asked) * 1.05
    )
    rows = decode_rows([SMALL], {}, fakes.setting(), end=0.0)
    assert {row["variant"]: row["status"] for row in rows} == {"triton": "wrong result", "sdpa": "ok"}
    assert rows[0]["time_us"] is None


@pytest.mark.parametrize("causal", [False, True])
def test_a_prefill_names_the_backends_that_refuse(causal):
    rows = prefill_rows([Sizes(1, 2, 2, 24, 24, 8, 12, causal)], fakes.setting(), end=0.0)
    status = {row["variant"]: row["status"] for row in rows}
    assert status == {"cudnn": "refused", "flash": "refused", "efficient": "refused", "sdpa": "ok"}


def test_a_sweep_starts_with_the_formula_and_keeps_the_fastest(monkeypatch):
    configs = sweep_configs(Sizes(8, 32, 8, 1, 16384, 64, 64), 132)
    assert configs[0] == DecodeConfig(128, splits=4)
    assert configs[1] == DecodeConfig(128, splits=4, overlap=False)
    assert len(configs) == 13  # the formula is one of the twelve
    monkeypatch.setattr("_attention_points.BLOCKS", (16,))
    monkeypatch.setattr("_attention_points.STAGES", (3,))
    times = iter(range(1000, 0, -1))

    class Faster(fakes.HostCalls):
        def sample(self):
            return float(next(times))

    rows = sweep_rows(SMALL, fakes.setting(graph=Faster), 1, end=0.0)
    assert {row["status"] for row in rows} == {"ok"}
    assert best_config(rows) == DecodeConfig(**min(rows, key=lambda row: row["time_us"])["config"])
    assert best_config([{**row, "time_us": None} for row in rows]) is None


def test_a_reference_sees_one_result_of_zeros():
    point = Point(SMALL, fakes.setting())
    racer = point.racer("zeros", lambda q, k, v, **_: q.new_zeros(*q.shape[:3], v.shape[-1]))
    racer.start(fakes.HostCalls)
    assert racer.status == "wrong result"


def row(variant, rank, width, us, keys=16384, share=0.9):
    at = {"kind": "decode", "keys": keys, "rank": rank, "width": width, "variant": variant}
    return {**at, "status": "ok", "reason": "", "time_us": us, "samples_ns": [us * 1e3] * 12, "share": share}


def test_a_decode_step_is_judged_by_its_share_and_against_the_dense_cache():
    rows = [row("sdpa", 128, 128, 300.0), row("triton", 128, 128, 200.0), row("sdpa", 64, 64, 150.0),
            row("triton", 64, 64, 120.0, share=0.75), row("triton tuned", 64, 64, 100.0, share=0.81)]  # fmt: skip
    dense, narrow = attention.judge(rows)
    assert dense["reached"] is None
    assert (narrow["fastest"], narrow["reached"]) == ("triton tuned", True)
    assert narrow["over_dense"]["value"] == pytest.approx(2.0)
    assert narrow["over_sdpa"]["value"] == pytest.approx(1.5)
    assert [r["reached"] for r in attention.judge([row("triton", 64, 64, 9.0, share=0.79)])] == [False]
    assert [r["reached"] for r in attention.judge([row("triton", 64, 64, 9.0, keys=8192, share=0.1)])] == [None]


def test_both_tables_are_printed():
    prefill = prefill_rows([Sizes(1, 2, 2, 24, 24, 8, 12)], fakes.setting(), end=0.0)
    text = attention.report([row("triton", 64, 64, 100.0), *prefill])
    assert "16384" in text
    assert "cudnn" in text
    swept = {**row("formula", 64, 64, 100.0), "config": asdict(DecodeConfig(splits=77))}
    assert "77" in attention.sweep_table([swept])
