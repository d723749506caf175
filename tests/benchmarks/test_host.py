"""The benchmark of the host's part runs without a device, and says so."""

from __future__ import annotations

import json

import pytest
import torch

import host
from narrows.kernels.triton import _driver
from narrows.ops import _ready


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a device the true calls are timed")
def test_it_times_calls_that_are_ready_and_leaves_nothing_pretended(tmp_path, monkeypatch, capsys):
    output = tmp_path / "host.json"
    before = _ready._is_on_device, _driver._driver
    monkeypatch.setattr(_ready, "_ready", {})
    monkeypatch.setattr(_ready, "_seen", {})
    monkeypatch.setattr(host, "FEWEST_SAMPLES", 2)
    monkeypatch.setattr("sys.argv", ["host.py", str(output), "--seconds", "0"])
    assert host.main() == 0
    record = json.loads(output.read_text())
    assert record["is_pretended"]
    times = {row["side"]: row["host_us"] for row in record["rows"]}
    assert {"bilinear triton", "part: replay", "bilinear two", "linear two", "bilinear two, by hand"} <= set(times)
    assert all(time > 0 for time in times.values())
    assert "part: replay" in capsys.readouterr().out
    assert before == (_ready._is_on_device, _driver._driver)
    assert len({ready.run for found in _ready._ready.values() for ready in found}) == 6
