"""`narrows spectrum`: errors of known spectra, selections, files written, bad input."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from narrows._machine import _memory
from narrows.cli.spectrum import command
from narrows.errors import FileError, InputError, NonFiniteError, ResourceError

SIGMA = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5, 0.25], dtype=torch.float64)


def known_weight(out_features: int, in_features: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    u, _ = torch.linalg.qr(torch.randn(out_features, 6, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(in_features, 6, generator=generator, dtype=torch.float64))
    return (u * SIGMA) @ v.T


def known_error(rank: int) -> float:
    return float((SIGMA[rank:] ** 2).sum().sqrt() / (SIGMA**2).sum().sqrt())


@pytest.fixture
def file(tmp_path):
    tensors = {
        "h.0.q_proj.weight": known_weight(24, 40),
        "h.1.q_proj.weight": known_weight(6, 40),
        "h.1.norm": torch.ones(4),
        "positions": torch.arange(8).view(1, 8),
        "embed": torch.randn(8, 4),
    }
    save_file(tensors, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def run(*args, **options):
    return CliRunner().invoke(command, [str(arg) for arg in args], catch_exceptions=False, **options)


def rows(*args, table="errors"):
    found = run(*args, "--json")
    return {row["layer"]: row for row in json.loads(found.stdout)[table]["rows"]}


def test_errors_are_those_of_the_spectrum_and_ranks_are_the_smallest_that_reach_them(file):
    first = rows(file, "--layer", "re:q_proj", "--rank", "1,2,4")["h.0.q_proj.weight"]
    # Singular values carry a float64 SVD's error, about 1e-15 of the largest.
    for rank in (1, 2, 4):
        assert first[f"error_at_rank_{rank}"] == pytest.approx(known_error(rank), rel=1e-12)
    needed = rows(file, "--layer", "re:q_proj", table="ranks")["h.0.q_proj.weight"]
    for percent in (50, 25, 10, 5, 1):
        rank = needed[f"rank_for_{percent}_percent"]
        assert known_error(rank) <= percent / 100 < known_error(rank - 1)
    assert needed["break_even_rank"] == pytest.approx(24 * 40 / 64)


def test_without_a_choice_every_floating_matrix_is_shown_and_the_rest_is_named(file):
    found = run(file, "--json")
    names = [row["layer"] for row in json.loads(found.stdout)["errors"]["rows"]]
    assert names == ["embed", "h.0.q_proj.weight", "h.1.q_proj.weight"]
    assert "passed over positions: torch.int64" in found.stderr


def test_default_ranks_double_up_to_the_largest_and_smaller_layers_have_no_number_beyond(file):
    found = rows(file)
    assert "error_at_rank_16" in found["embed"]
    assert found["embed"]["error_at_rank_16"] is None
    assert found["h.0.q_proj.weight"]["error_at_rank_16"] == pytest.approx(0, abs=1e-14)


def test_the_layout_swaps_input_and_output_features(file):
    swapped = rows(file, "--layer", "h.0.q_proj.weight", "--layout", "in-out")["h.0.q_proj.weight"]
    assert (swapped["out_features"], swapped["in_features"]) == (40, 24)


def test_csv_is_one_table_with_ranks_and_errors(file):
    text = run(file, "--layer", "re:h.0", "--csv", "--rank", "2").stdout
    (row,) = csv.DictReader(io.StringIO(text))
    assert float(row["error_at_rank_2"]) == pytest.approx(known_error(2))
    assert int(row["rank_for_50_percent"]) >= 1


def test_a_rank_at_or_above_break_even_stands_in_brackets(file):
    table = run(file, "--layer", "re:h.1").stdout.split("Rank needed")[1]
    assert re.search(r"h\.1\.q_proj\.weight +6 +40 +5\.2 +2 +3 +5 +5 +\(6\)", table)


def test_arrays_hold_every_rank_of_every_layer(file, tmp_path):
    run(file, "--layer", "re:q_proj", "--rank", "1,8", "--npz", tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as arrays:
        assert list(arrays["names"]) == ["h.0.q_proj.weight", "h.1.q_proj.weight"]
        assert arrays["shapes"].tolist() == [[24, 40], [6, 40]]
        assert arrays["errors"].shape == (2, 2)
        assert np.isnan(arrays["errors"][1, 1])
        assert arrays["errors_0"].shape == (25,)
        assert arrays["errors_0"][0] == pytest.approx(1)
        np.testing.assert_allclose(arrays["singular_values_1"], SIGMA.numpy(), rtol=1e-12)


def test_the_page_is_self_contained_escaped_and_holds_every_value(tmp_path):
    save_file({"<script>alert(1)</script>": known_weight(8, 8)}, tmp_path / "w.safetensors")
    run(tmp_path / "w.safetensors", "--html", tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(src|href)=\"?(https?:)?//", page)
    assert "prefers-color-scheme: dark" in page
    assert f"Rank: 2\nError: {known_error(2):.1%}" in page


def test_a_numpy_file_goes_by_its_own_name(tmp_path):
    np.save(tmp_path / "wq.npy", known_weight(8, 8).numpy())
    assert list(rows(tmp_path / "wq.npy", "--rank", "1")) == ["wq"]


@pytest.mark.parametrize("layer", ["re:k_proj", "h.0.q_proj"])
def test_a_choice_that_matches_nothing_names_the_nearest(file, layer):
    with pytest.raises(InputError, match=r"has no 2-D tensor '[^']*' among its 4\. Nearest: .*q_proj\.weight"):
        run(file, "--layer", layer)


def test_a_bad_expression_rank_or_folder_is_named(file, tmp_path):
    with pytest.raises(InputError, match=r"--layer='re:\(' is not a regular expression"):
        run(file, "--layer", "re:(")
    with pytest.raises(InputError, match=r"--rank: 512 is above 24, the largest rank"):
        run(file, "--rank", "512..1024")
    with pytest.raises(InputError, match=r"--html=.*no/s\.html: its folder does not exist"):
        run(file, "--html", tmp_path / "no" / "s.html")


def test_among_several_what_cannot_be_factorised_is_passed_over_aloud(tmp_path):
    tensors = {"good": known_weight(8, 8), "bad": torch.full((4, 4), float("nan")), "ids": torch.ones(2, 2).long()}
    save_file(tensors, tmp_path / "w.safetensors")
    result = CliRunner().invoke(command, [str(tmp_path / "w.safetensors"), "--rank", "1"])
    assert result.exit_code == 0
    assert "passed over bad: weight (4, 4) holds 16 NaN" in result.stderr.replace("\n", " ")
    assert "passed over ids: torch.int64" in result.stderr
    assert "good" in result.stdout
    tensors.pop("good")
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(FileError, match="none of 2 2-D tensors could be factorised"):
        run(tmp_path / "w.safetensors")


@pytest.mark.parametrize("where", ["reading", "factorising"])
def test_a_layer_that_does_not_fit_the_memory_is_passed_over_aloud(tmp_path, monkeypatch, where):
    save_file({"small": known_weight(8, 8), "giant": torch.ones(64, 64)}, tmp_path / "w.safetensors")
    monkeypatch.setattr(_memory, "LEAST_LOOK", 0)
    monkeypatch.setattr(_memory, "available_bytes", lambda _: 4 * 64 * 64 - (where == "reading"))
    result = CliRunner().invoke(command, [str(tmp_path / "w.safetensors"), "--rank", "1"])
    assert result.exit_code == 0
    what = "tensor 'giant' of " if where == "reading" else "factorising a weight (64, 64) in float64 takes"
    assert f"passed over giant: {what}" in result.stderr
    assert "GiB are free" in result.stderr
    assert "small" in result.stdout
    with pytest.raises(ResourceError, match=r"^giant: "):
        run(tmp_path / "w.safetensors", "--layer", "giant")


def test_an_integer_tensor_asked_for_by_name_and_a_file_without_weights_are_errors(file, tmp_path):
    with pytest.raises(InputError, match=r"positions: weight is torch\.int64"):
        run(file, "--layer", "positions")
    with pytest.raises(InputError, match=r"positions: weight is torch\.int64"):
        run(file, "--layer", "re:posi")  # the only one that matches
    save_file({"bias": torch.ones(3)}, tmp_path / "b.safetensors")
    with pytest.raises(FileError, match=r"b\.safetensors holds no 2-D tensor, so no weight to factorise"):
        run(tmp_path / "b.safetensors")


def test_a_weight_with_nan_names_its_layer(tmp_path):
    save_file({"bad": torch.tensor([[1.0, float("nan")]])}, tmp_path / "w.safetensors")
    with pytest.raises(NonFiniteError, match=r"^bad: "):
        run(tmp_path / "w.safetensors")
