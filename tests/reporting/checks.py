"""Checks for tests of what is made from them: figures are given, not measured."""

from __future__ import annotations

from dataclasses import replace

from narrows._values import Workload
from narrows._values._check import Check, CheckedSide, Estimate, LanguageQuality, TextUsed, Timing

PREFILL, DECODE = Workload.parse("prefill:2048x1"), Workload.parse("decode:512x1")
DENSE_NS = (100.0, 101.0, 99.0, 100.0, 100.5, 99.5, 100.2, 99.8)


def timing(workload, side, speedup):
    """Return eight samples that are `speedup` times as fast as dense's."""
    return Timing(workload, side, tuple(ns / speedup for ns in DENSE_NS), 10_000)


def make_check(kept=0.9, ratio=1.05, speedup=1.1, *, folder=None, **changes):
    """Return a check of a model of 1000 numbers, dense, int8 and compressed, at two workloads."""
    text = TextUsed("texts.jsonl", "0" * 64, "check", 40, 64, 512, 0)
    quality = Estimate(ratio, ratio - 0.01, ratio + 0.01)
    tiny, whole = Estimate(0.01, 0.009, 0.011), Estimate(0.9, 0.89, 0.91)
    numbers = round(1000 * kept)
    made = Check(
        model="model",
        folder=folder or f"keep-{kept}",
        kind="causal",
        dtype="float32",
        device_name="a device",
        fingerprint="f",
        version="1",
        text=text,
        sides=(
            CheckedSide("dense", "", 1000, 4000, 5000, 5000, LanguageQuality(20.0)),
            CheckedSide(
                "narrows", "", numbers, 4 * numbers, 5000, 4000, LanguageQuality(20 * ratio, quality, tiny, whole)
            ),
            CheckedSide(
                "int8",
                "",
                1000,
                1000,
                2000,
                None,
                LanguageQuality(20.1, Estimate(1.005, 1.003, 1.007), tiny, whole),
            ),
            CheckedSide("naive", "not asked for"),
        ),
        timings=tuple(
            timing(load, side, factor)
            for load in (PREFILL, DECODE)
            for side, factor in (("dense", 1.0), ("narrows", speedup), ("int8", 0.8))
        ),
        sample=None,
        budget=None,
        judgements=(),
        memory_source="counted",
    )
    return replace(made, **changes)
