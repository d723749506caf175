"""What a compression takes and can gain, foreseen from configuration and headers."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tiny_models
from narrows import ModelBudget, Recipe, Workload
from narrows.errors import FileError, InputError
from narrows.models import _foresee, foreseen
from narrows.models._match import targets
from narrows.reporting._foreseen import foreseen_table

PREFILL = Workload("prefill", 64)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(_foresee, "PROBE_SECONDS", 0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.folder(tiny_models.llama(), tmp_path_factory.mktemp("foresee") / "llama")


@pytest.mark.parametrize("make", [tiny_models.llama, tiny_models.gpt2, tiny_models.gemma3, tiny_models.bert])
def test_layers_and_numbers_are_those_of_the_loaded_model(make, tmp_path):
    model = make()
    path = tiny_models.folder(model, tmp_path / "model")

    found = foreseen(path, ModelBudget(keep=0.8))

    layers = targets(model)
    assert found.layers == len(layers)
    assert found.numbers == sum(one.in_features * one.out_features for one in layers)
    assert found.peak_bytes > sum(one.nbytes for one in model.parameters())
    assert found.gains == ((0.8, pytest.approx(1 / 0.8)),)
    assert found.trials == 1


def test_the_share_that_a_speedup_needs_gives_that_speedup(folder):
    found = foreseen(folder, ModelBudget(speedup=1.3), workloads=[PREFILL])
    again = foreseen(folder, ModelBudget(keep=found.needed_kept), workloads=[PREFILL])

    assert 0 < found.needed_kept < 1
    assert again.gains[0][1] == pytest.approx(1.3)
    assert foreseen(folder, ModelBudget(speedup=99.0), workloads=[PREFILL]).needed_kept < 0


def test_more_text_takes_longer_and_no_backward_pass_takes_less(folder):
    few, many, forward = (
        foreseen(folder, ModelBudget(keep=0.8), recipe=recipe)
        for recipe in (
            Recipe(),
            Recipe(calibration_tokens=327680),
            Recipe(calibration_tokens=327680, method="one-sided"),
        )
    )

    # The rates are measured anew each time: FLOPs tell, not seconds.
    seconds = [one.calibration_seconds * one.flops_per_s for one in (few, many, forward)]
    assert seconds[1] > 3 * seconds[0]
    assert seconds[2] < seconds[1]


def test_only_layers_that_are_asked_for_count(folder):
    found = foreseen(folder, ModelBudget(keep=0.8), patterns=["re:.*up_proj"])

    assert (found.layers, found.numbers) == (2, 2 * 32 * 64)


def test_what_is_no_model_and_what_cannot_be_is_refused(folder, tmp_path):
    with pytest.raises(FileError, match="is not a model's folder on this machine"):
        foreseen(tmp_path, ModelBudget(keep=0.8))
    with pytest.raises(InputError, match=r"speedup=1\.2 needs a workload"):
        foreseen(folder, ModelBudget(speedup=1.2))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(FileError, match="safetensors"):
        foreseen(tmp_path, ModelBudget(keep=0.8))


def test_the_table_says_what_cannot_be_had(folder):
    found = foreseen(folder, ModelBudget(speedup=99.0), workloads=[PREFILL])

    rows = {row[0].text: row[1].text for row in foreseen_table(found, budget="99x").rows}
    assert rows["numbers kept for the speedup asked for"] == "cannot be had by this"
    assert rows["timing single layers, about"] == "60.0 s"
    assert "recovery, at most" not in rows
    trained = foreseen_table(replace(found, recovery_seconds=90.0, needed_kept=0.5), budget="99x")
    rows = {row[0].text: row[1].text for row in trained.rows}
    assert rows["recovery, at most"] == "90.0 s"
    assert rows["numbers kept for the speedup asked for"] == "50.0 % at most"
