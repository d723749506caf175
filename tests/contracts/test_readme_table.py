"""The README's measured parts: made from recorded data, with the error beside every speedup."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from narrows import Experiment, Report, WeightSource
from narrows._values import Machine, OutputError, Row

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


@pytest.fixture
def readme(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return tools/readme.py."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tools/readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(rank: int | None, variant: str, time_ns: float) -> Row:
    """Return a row of nine steady samples."""
    return Row(
        tokens=64,
        rank=rank,
        variant=variant,
        mode="eager",
        cache="hot",
        status="ok",
        samples_ns=(time_ns,) * 9,
        flops=1,
        rounds=tuple(range(9)),
        limit_ns=5e5,
    )


def report(thin_ns: float) -> Report:
    """Return a report of one length: dense takes 4 ms (left) and 2 ms (right), rank 8 `thin_ns`."""
    return Report(
        experiment=Experiment(
            kind="bilinear",
            in_features=32,
            out_features=32,
            tokens=(64,),
            ranks=(8,),
            weights=(WeightSource("gaussian", "gaussian"),),
        ),
        machine=Machine("f", "cpu", "Example CPU", 2, 2, {"L2": 1 << 20}, (), 1 << 33, software={"torch": "2.13.0"}),
        ceilings=None,
        weights=(),
        errors=(OutputError("gaussian", 64, 8, 0.9, 0.0, 0.9, 0.91),),
        rows=(row(None, "left", 4e6), row(None, "right", 2e6), row(8, "two", thin_ns)),
        created="2026-01-02T03:04:05Z",
        version="0.1.0",
    )


def test_the_table_sets_the_fastest_dense_side_beside_the_error(readme: ModuleType) -> None:
    line = readme.table(report(1e6)).splitlines()[-1]
    assert line == "| 64 | 2.00 ms | rank 8, 1.00 ms | 2.00x (2.00 to 2.00) | 50% | 0.91 |"


def test_the_table_says_stay_dense_where_nothing_is_gained(readme: ModuleType) -> None:
    assert "1.00x (1.00 to 1.00), tie: stay dense" in readme.table(report(2e6))
    assert "0.50x (0.50 to 0.50), slower: stay dense" in readme.table(report(4e6))


def test_the_caption_names_machine_date_and_version(readme: ModuleType) -> None:
    caption = readme.caption(report(1e6))
    assert "Example CPU (2 threads, torch 2.13.0), 2026-01-02, narrows 0.1.0" in caption


def test_without_a_recorded_run_the_readme_says_how_to_make_one(readme: ModuleType, tmp_path: Path) -> None:
    text = readme.readme((ROOT / "README.md").read_text(encoding="utf-8"), tmp_path)
    assert text.count("No run is recorded in this checkout. `make bench` measures one") == 2


def test_a_readme_without_markers_is_refused(readme: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"needs exactly one pair of markers <!-- table"):
        readme.between("# narrows", "table", "new")
