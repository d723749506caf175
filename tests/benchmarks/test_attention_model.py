"""The benchmark of narrow heads in whole models, on tiny ones: it ends, says where dense wins, records what it says."""

from __future__ import annotations

import json
import sys

import pytest

import attention_model
import tiny_models
from narrows.models import _speed


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    for name, maker in (("llama", tiny_models.llama), ("bert", tiny_models.bert)):
        tiny_models.folder(maker(), place / name)
    lines = [json.dumps({"text": text}) for text in tiny_models.texts(40)]
    (place / "texts.jsonl").write_text("\n".join(lines))
    return place


def run(monkeypatch, folders, tmp_path, model, workloads, *more):
    monkeypatch.setattr(_speed, "MOST_ROUNDS", 8)
    monkeypatch.setattr(_speed, "SAMPLE_NS", 1e5)
    monkeypatch.setattr(attention_model, "CALIBRATED", 2)
    output = tmp_path / "record.json"
    words = ["attention_model.py", "--model", folders / model, "--texts", folders / "texts.jsonl", "--output", output]
    words += ["--workloads", workloads, "--tokens", 512, *more]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    attention_model.main()
    return json.loads(output.read_text())


def test_a_causal_model_has_times_cache_bytes_and_perplexity(monkeypatch, folders, tmp_path, capsys):
    record = run(monkeypatch, folders, tmp_path, "llama", "prefill:32x2,decode:64x2", "--widths", "4:8,4:4")
    assert [(row["workload"], row["variant"]) for row in record["speed"]] == [
        (workload, variant) for workload in ("prefill:32x2", "decode:64x2") for variant in ("dense", "4:8", "4:4")
    ]
    assert all(row["ms"] > 0 and row["speedup"]["num_rounds"] == 8 for row in record["speed"])
    # A token, 2 layers, 2 key heads: keys and values of 8 float32 each; narrow ones of 4 and 8, or 4 and 4.
    held = {row["variant"]: row["cache_bytes"] for row in record["speed"] if "cache_bytes" in row}
    assert held == {"dense": 64 * 2 * 2 * 16 * 4, "4:8": 64 * 2 * 2 * 12 * 4, "4:4": 64 * 2 * 2 * 8 * 4}
    dense, *narrow = record["quality"]
    assert (dense["variant"], dense["windows"], dense["length"]) == ("dense", 16, 32)
    assert "ratio" not in dense
    assert all(row["divergence"]["value"] > 0 and row["ratio"]["value"] != 1 for row in narrow)
    assert set(record["expected_errors"]["4:8"]) == {"scores"}
    assert set(record["expected_errors"]["4:4"]) == {"scores", "values"}
    assert record["dense_attention"] == "sdpa"
    assert str(folders) not in json.dumps(record)
    said = capsys.readouterr().out
    assert all(row["workload"] in said for row in record["speed"])
    assert "nan" not in said


def test_an_encoder_has_times_and_cosines_by_default_at_shares_of_its_heads(monkeypatch, folders, tmp_path):
    record = run(monkeypatch, folders, tmp_path, "bert", "prefill:16x4,prefill:48x2")
    assert [row["variant"] for row in record["speed"][:4]] == ["dense", "4:8", "6:6", "4:4"]
    assert [(row["length"], row["variant"]) for row in record["quality"][:3]] == [(16, "4:8"), (16, "6:6"), (16, "4:4")]
    assert all(0.5 < row["similarity"]["value"] <= 1 + 1e-6 for row in record["quality"])
    assert not any("cache_bytes" in row for row in record["speed"])


def speed(workload, variant, value, verdict):
    return {"workload": workload, "variant": variant, "speedup": {"value": value}, "verdict": verdict}


def test_where_dense_wins_it_says_so():
    rows = [
        speed("a", "dense", 1.0, "tie"),
        speed("a", "32:64", 1.3, "faster"),
        speed("a", "48:64", 1.1, "faster"),
        speed("b", "dense", 1.0, "tie"),
        speed("b", "32:64", 1.01, "tie"),
        speed("b", "48:64", 0.8, "slower"),
    ]
    assert attention_model.verdicts(rows) == [
        "a: 32:64 is fastest, 1.30x dense",
        "b: dense; nothing is faster beyond a tie",
    ]


def test_a_missing_model_is_said_in_one_sentence(monkeypatch, folders, tmp_path):
    with pytest.raises(SystemExit, match="none or .*texts.jsonl is missing: run `make models`"):
        run(monkeypatch, folders, tmp_path, "none", "prefill:16")
