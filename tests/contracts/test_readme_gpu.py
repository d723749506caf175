"""What README.md says of a GPU: made from the records, with the error beside every speedup, and what was missed."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from narrows import Report
from narrows.kernels._attention_config import decode_config

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return tools/readme_gpu.py."""
    spec = importlib.util.spec_from_file_location("readme_gpu", ROOT / "tools/readme_gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(name: str) -> dict:
    """Return a recorded file."""
    return json.loads((RESULTS / f"{name}.json").read_bytes())


def found(value: float, low: float | None = None, high: float | None = None) -> dict:
    """Return a ratio as a record holds it."""
    return {"value": value, "low": low or value, "high": high or value, "verdict": "faster"}


def length(best: str = "yes", auto: str = "yes", over_two: str = "yes", eager: str = "yes", aim: str = "yes") -> dict:
    """Return one judged length of 64 tokens, with these verdicts."""
    side = {"rank": 64, "time_us": 4.0, "share": 0.5, "speedup": found(2.5, 2.4, 2.6), "reached_aim": aim}
    return {
        "tokens": 64, "dense_us": 10.0, "must": 3.0, "aim": 4.0,
        "best": {**side, "variant": "gluon", "reached_must": best},
        "auto": {**side, "variant": "auto", "reached_must": auto},
        "over_two": [{"rank": 128, "auto": found(1.4), "must": 1.5, "reached_must": over_two}],
        "eager": {"auto_us": 20.0, "rank": 64, "speedup": found(1.2), "must": 1.3, "reached_must": eager},
    }  # fmt: skip


def chain(eager_two_us: float = 30.0, **verdicts: str) -> dict:
    """Return a record of that one length."""
    rows = [
        {"tokens": 64, "mode": "graph", "variant": "two", "rank": 64, "time_us": 8.0, "chosen": ""},
        {"tokens": 64, "mode": "graph", "variant": "auto", "rank": 64, "time_us": 4.0, "chosen": "triton Config()"},
        {"tokens": 64, "mode": "eager", "variant": "two", "rank": 64, "time_us": eager_two_us, "chosen": ""},
    ]
    return {"judged": [length(**verdicts)], "rows": rows}


def test_a_line_has_times_the_speedup_and_the_error_of_the_same_rank(made: ModuleType) -> None:
    report = Report.from_json((RESULTS / "bench-h200.json").read_bytes(), source="bench")
    judged = chain()
    line = made.score_cells(judged, judged["judged"][0], report, ["gaussian"])
    assert line == [
        "64", "10.0 us", "rank 64, 4.00 us (triton)", "2.50x (2.40 to 2.60)", "50%", "8.00 us", "1.20x (1.20 to 1.20)",
        "0.98",
    ]  # fmt: skip


def test_nothing_is_missed_where_every_target_was_met(made: ModuleType) -> None:
    assert made.missed(chain()) == "**Not reached.**\n\n- Nothing: every target was met."


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        ({"best": "no", "auto": "no"}, "64 tokens: 2.50x (2.40 to 2.60) by `gluon` (`auto` 2.50x); the target was 3x."),
        (
            {"auto": "about"},
            "64 tokens: 2.50x (2.40 to 2.60) by `auto`; the target was 3x (which the interval holds).",
        ),
        (
            {"over_two": "no"},
            "Rank 128 at 64 tokens: 1.40x (1.40 to 1.40) over two cuBLAS matmuls; the target was 1.5x.",
        ),
        ({"eager": "no"}, "Eager, over dense: 1.20x at 64 tokens; the target was 1.3x."),
        ({"aim": "no"}, "The higher aims: 4x at 64 tokens."),
    ],
)
def test_a_missed_target_is_said_with_its_figure(made: ModuleType, verdicts: dict[str, str], line: str) -> None:
    assert made.missed(chain(**verdicts)) == f"**Not reached.**\n\n- {line}"


def test_an_eager_call_slower_than_by_hand_is_said(made: ModuleType) -> None:
    assert "called directly: 20.0 us against 15.0 us at 64 tokens." in made.missed(chain(eager_two_us=15.0))


def test_a_missing_record_says_how_to_make_one(made: ModuleType, tmp_path: Path) -> None:
    assert made.section(tmp_path) == made.UNRECORDED
    for name in (made.CHAIN, made.LINEAR, made.ERRORS):
        shutil.copy(RESULTS / f"{name}.json", tmp_path)
    assert made.section(tmp_path) == made.UNRECORDED


def test_every_record_and_every_missed_target_is_in_the_readme(made: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert made.section(RESULTS) in text
    missed = [each["tokens"] for each in record(made.CHAIN)["judged"] if each["best"]["reached_must"] == "no"]
    assert missed
    assert all(f"\n- {tokens} tokens: " in text for tokens in missed)


def test_the_readme_says_what_a_gaussian_weight_loses(made: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (weight,) = (each for each in record(made.ERRORS)["weights"] if each["name"] == "gaussian")
    assert f"rank 64 of 4096 loses about {weight['factor_errors']['64'] * 100:.0f} %" in text


def test_the_swept_sizes_of_the_decode_table_are_those_of_the_formula(made: ModuleType) -> None:
    swept = record(made.ATTENTION)["sweep"]
    for widths in {(row["rank"], row["width"]) for row in swept}:
        best = min((row for row in swept if (row["rank"], row["width"]) == widths), key=lambda row: row["time_us"])
        pairs, rows = best["batch"] * best["groups"], best["heads"] // best["groups"]
        formula = decode_config(
            pairs, best["keys"], rows=rows, rank=widths[0], width=widths[1], itemsize=2, multiprocessors=132
        )
        assert {name: getattr(formula, name) for name in best["config"]} == best["config"], widths
