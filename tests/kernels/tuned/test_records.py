"""Choices as records: what is read from a file is checked, who wins, what is stale."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kernels.tuned.records import CONFIG, OTHER, SILICON, SOFTWARE, candidate, entry, signature
from narrows.errors import FileError, InputError
from narrows.kernels import tuned
from narrows.kernels.tuned import Candidate, Config, Tiles, Tuning, _device, _known


def document(**changes):
    """Return an export of the first schema, which has no seal, as plain values with changes."""
    plain = json.loads(Tuning(SILICON, (entry(), entry(tokens=128)), "0.1.0").to_json())
    del plain["sha256"]
    return plain | {"schema": 1} | changes


def test_an_export_comes_back_equal_and_holds_an_entry_a_line():
    tuning = Tuning(SILICON, (entry(), entry(kind="linear", mode="eager")), "0.1.0")
    text = tuning.to_json()
    assert Tuning.from_json(text) == tuning
    assert sum('"candidates"' in line for line in text.splitlines()) == 2
    assert Tuning.from_json(Tuning(SILICON, (), "0.1.0").to_json()).entries == ()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schema": 9}, "choices.json has schema 9; this version of narrows reads up to 2"),
        ({"extra": 1}, "Unexpected keyword argument at extra"),
        ({"entries": "x"}, "at entries"),
    ],
)
def test_a_document_that_is_not_an_export_is_refused_with_its_place(change, text):
    with pytest.raises(FileError, match=text):
        Tuning.from_json(json.dumps(document(**change)), source="choices.json")


@pytest.mark.parametrize(
    ("part", "name", "value", "text"),
    [
        ("project", "m", 48, r"project\.m=48 must be a power of two within 16\.\.512"),
        ("second", "n", 1024, r"second\.n=1024 must be a power of two within 16\.\.512"),
        ("project", "split", 0, r"project\.split=0 must be within 1\.\.256"),
        ("second", "warps", 3, r"second\.warps=3 must be one of 1, 2, 4, 8, 16, stages=3 within 1\.\.8"),
        ("second", "stages", 99, "stages=99 within 1..8"),
    ],
)
def test_sizes_that_no_kernel_should_be_launched_with_are_refused(part, name, value, text):
    plain = document()
    plain["entries"][1]["candidates"]["triton"]["config"][part][name] = value
    with pytest.raises(FileError, match=f"{text}.*at entries.1.candidates.triton"):
        Tuning.from_json(json.dumps(plain))


def test_an_entry_without_a_time_of_cublas_is_refused():
    with pytest.raises(InputError, match=r"candidates=\['triton'\] must hold a time of 'two', the cuBLAS one"):
        replace(entry(), candidates={"triton": candidate()})
    with pytest.raises(InputError, match=r"\(64, 4096, 4096, 0, 1\) must be at least 1"):
        entry(rank=0)


def test_a_wrong_result_has_no_time():
    with pytest.raises(InputError, match=r"median_ns=5\.0, checked=False"):
        candidate(median_ns=5.0, checked=False)
    with pytest.raises(InputError, match=r"median_ns=0\.0, checked=True"):
        candidate(median_ns=0.0)
    assert Candidate(None, None, 0.0, 0.0, 0.0, 0, 0.0, checked=False, reason="wrong").reason == "wrong"


@pytest.mark.parametrize(
    ("own", "winner"),
    [
        (candidate(1.5), "triton"),
        (candidate(1.5, low=1.019), "two"),  # a tie: 2 %
        (candidate(0.5), "two"),
        (candidate(3.0, rounds=7), "two"),  # too few rounds for a 99 % interval
        (candidate(1.0, median_ns=None, checked=False, reason="wrong"), "two"),
    ],
)
def test_an_own_kernel_wins_only_beyond_a_tie(own, winner):
    assert entry(own=None, more={"triton": own}).winner == winner


def test_of_two_own_kernels_the_faster_wins():
    assert entry(own=1.5, more={"gluon": candidate(1.6)}).winner == "gluon"


def test_what_differs_between_versions_is_named():
    assert SOFTWARE.differences(SOFTWARE) == ()
    assert SOFTWARE.differences(OTHER)[0] == "torch 2.11.0 (now 2.12.0)"
    assert replace(SOFTWARE, driver="").differences(SOFTWARE) == ("driver - (now 580.1)",)


def test_the_hash_of_the_kernels_changes_with_their_content_and_names(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    first = _device.source_hash(tmp_path)
    (tmp_path / "a.py").write_text("x = 2")
    second = _device.source_hash(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, _device.source_hash(tmp_path)}) == 3
    assert list(_device.DEVICE_CODE.glob("*.py"))


def test_every_shipped_file_is_valid_and_one_silicon():
    files = sorted(_known.DEFAULTS.glob("*.json"))
    silicons = [Tuning.from_json(path.read_bytes(), source=path.name).silicon for path in files]
    assert len(set(silicons)) == len(silicons)


def test_shipped_choices_are_those_of_the_silicon(tmp_path):
    (tmp_path / "test.json").write_text(Tuning(SILICON, (entry(),), "0.1.0").to_json())
    assert _known.shipped(SILICON, tmp_path) == (entry(),)
    assert _known.shipped(replace(SILICON, is_mig=True), tmp_path) == ()


def test_a_config_of_a_record_is_the_one_that_was_written():
    config = Config(Tiles(128, 128, 128, split=2, warps=8, stages=4), Tiles(64, 128, 64), overlap="last")
    tuning = Tuning(SILICON, (entry(own=None, more={"triton": candidate(config=config)}),), "0.1.0")
    assert Tuning.from_json(tuning.to_json()).entries[0].candidates["triton"].config == config
    assert config != CONFIG


def test_by_formula_programs_fill_the_device_and_tiles_fit_its_memory():
    for tokens in (1, 64, 100, 512, 4096):
        for dtype, size in (("bfloat16", 2), ("float32", 4)):
            for found in (tuned.Limits(), tuned.Limits(108, 164 << 10), tuned.Limits(46, 99 << 10)):
                config = tuned.analytic_config(signature(tokens=tokens, dtype=dtype), found)
                for tiles in (config.project, config.second):
                    assert 2 * (tiles.m + tiles.n) * tiles.k * size <= found.shared_bytes
                    assert tiles.k >= 16
                steps = 4096 // (config.project.k * config.project.split)
                assert steps >= 2
                programs = -(-tokens // config.project.m) * -(-128 // config.project.n) * config.project.split
                assert config.project.split == 1 or programs <= found.num_multiprocessors


@pytest.mark.parametrize(
    ("tokens", "split", "second"), [(64, 16, (16, 32)), (512, 8, (64, 32)), (1024, 4, (128, 64)), (4096, 2, (128, 128))]
)
def test_by_formula_an_h200_gets_about_128_programs(tokens, split, second):
    config = tuned.analytic_config(signature(tokens=tokens), tuned.Limits())
    assert config.project.split == split
    assert (config.second.m, config.second.n) == second
