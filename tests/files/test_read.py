"""Tensors from whole files come back; every other file gets one clear error."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save, save_file

from narrows._files import read_tensor, tensor_names, tensor_shapes
from narrows._files._read import _bytes
from narrows.errors import FileError, InputError, ShapeError

WEIGHT = torch.arange(16, dtype=torch.float32).view(4, 4)  # square, not symmetric: a swapped layout shows
TENSORS = {"model.q_proj.weight": WEIGHT, "model.k_proj.weight": WEIGHT[:2].bfloat16(), "bias": torch.ones(4)}


@pytest.fixture
def file(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.fixture
def sharded(tmp_path):
    save_file({"a": WEIGHT}, tmp_path / "one.safetensors")
    save_file({"b": WEIGHT + 1}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_a_tensor_comes_back_in_its_own_dtype(file):
    assert torch.equal(read_tensor(file, "model.q_proj.weight"), WEIGHT)
    assert read_tensor(str(file), "model.k_proj.weight").dtype == torch.bfloat16


def test_the_in_out_layout_is_transposed_and_contiguous(file):
    found = read_tensor(file, "model.q_proj.weight", layout="in-out")
    assert torch.equal(found, WEIGHT.t())
    assert not torch.equal(found, WEIGHT)
    assert found.is_contiguous()


def test_an_unknown_layout_is_named(file):
    with pytest.raises(InputError, match="layout='oi' is not known"):
        read_tensor(file, "bias", layout="oi")


def test_names_and_shapes_are_sorted(file):
    assert tensor_names(file) == ("bias", "model.k_proj.weight", "model.q_proj.weight")
    assert tensor_shapes(file)["model.k_proj.weight"] == (2, 4)


def test_a_missing_tensor_is_answered_with_the_nearest_names(file):
    with pytest.raises(FileError, match=r"no tensor 'model.q_prj.weight' among its 3\. Nearest: model.q_proj.weight, "):
        read_tensor(file, "model.q_prj.weight")


def test_a_tensor_that_is_not_a_matrix_is_refused_with_its_shape(file):
    with pytest.raises(ShapeError, match=r"tensor 'bias' of .* has shape \(4,\); a 2-D tensor is needed"):
        read_tensor(file, "bias")


def test_a_model_folder_works_with_one_file_or_with_shards(file, sharded):
    assert torch.equal(read_tensor(sharded, "b"), WEIGHT + 1)
    assert tensor_names(sharded) == ("a", "b")
    with pytest.raises(FileError, match=r"no tensor 'c' among its 2"):
        read_tensor(sharded, "c")
    file.rename(sharded / "model.safetensors")
    assert torch.equal(read_tensor(sharded, "model.q_proj.weight"), WEIGHT)


def test_a_folder_without_a_model_names_what_it_holds(file):
    with pytest.raises(FileError, match=r"neither model.safetensors nor .*it holds w.safetensors\. Give the file"):
        tensor_names(file.parent)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a\\b", "..", "", "x\0y"])
def test_an_index_that_points_outside_its_folder_is_refused(sharded, name):
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(FileError, match="only plain names inside the folder are read"):
        read_tensor(sharded, "a")


def test_a_link_out_of_the_folder_is_refused_but_the_hubs_cache_is_read(tmp_path):
    blob = tmp_path / "hub" / "blobs" / "0123"
    snapshot = tmp_path / "hub" / "snapshots" / "main"
    for folder in (blob.parent, snapshot):
        folder.mkdir(parents=True)
    save_file({"a": WEIGHT}, blob)
    (snapshot / "model.safetensors").symlink_to(blob)
    assert torch.equal(read_tensor(snapshot, "a"), WEIGHT)
    other = tmp_path / "model"
    other.mkdir()
    (other / "model.safetensors").symlink_to(blob)
    with pytest.raises(FileError, match=r"is a link to .*blobs/0123, outside its folder"):
        read_tensor(other, "a")


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"weight_map": 3}', "[" * 100_000])
def test_an_index_that_is_not_one_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(FileError, match="is not a safetensors index"):
        tensor_names(tmp_path)


def test_every_truncation_is_a_file_error(tmp_path):
    whole = save({"a": WEIGHT})
    path = tmp_path / "w.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=rf"\({length} bytes\) is not a complete safetensors file"):
            read_tensor(path, "a")
    path.write_bytes(whole)
    assert torch.equal(read_tensor(path, "a"), WEIGHT)


@given(st.binary(max_size=200), st.booleans())
def test_foreign_bytes_are_a_file_error(tmp_path_factory, data, has_length):
    path = tmp_path_factory.getbasetemp() / "foreign.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data if has_length else data)
    with pytest.raises(FileError):
        read_tensor(path, "a")


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.bfloat16, torch.float8_e4m3fn, torch.int64], ids=str)
def test_the_bytes_of_a_tensor_are_told_from_its_header_in_every_dtype(tmp_path, dtype):
    tensor = torch.zeros(3, 5).to(dtype)
    save_file({"t": tensor}, tmp_path / "t.safetensors")
    with safe_open(tmp_path / "t.safetensors", framework="pt") as opened:
        assert _bytes(opened.get_slice("t")) == tensor.nbytes


def test_a_tensor_that_was_read_survives_the_truncation_of_its_file(file):
    found = read_tensor(file, "model.q_proj.weight")
    os.truncate(file, 10)
    assert torch.equal(found, WEIGHT)


@pytest.mark.parametrize(
    ("told", "error"), [("can't allocate memory", RuntimeError), ("no such dtype", FileError)], ids=["memory", "dtype"]
)
def test_what_torch_says_of_a_file_is_told_from_a_want_of_memory(file, monkeypatch, told, error):
    def refused(*_, **__):
        raise RuntimeError(told)

    monkeypatch.setattr(safetensors, "safe_open", refused)
    with pytest.raises(error, match=told) as found:
        tensor_names(file)
    assert type(found.value) is error


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".PT"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path, suffix):
    with pytest.raises(FileError, match=r"is a pickle .*safetensors.torch.save_file\(torch.load\(FILE"):
        read_tensor(tmp_path / f"model{suffix}", "a")


def test_a_missing_path_and_one_that_is_no_file_are_told_apart(tmp_path):
    with pytest.raises(FileError, match=r"gone\.safetensors does not exist"):
        read_tensor(tmp_path / "gone.safetensors", "a")
    with pytest.raises(FileError, match="/dev/null is not a regular file"):
        read_tensor("/dev/null", "a")


def test_a_numpy_array_is_read_by_its_file_alone(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, WEIGHT.numpy())
    assert torch.equal(read_tensor(path, ""), WEIGHT)
    assert tensor_shapes(path) == {"": (4, 4)}
    with pytest.raises(FileError, match="holds one array without a name, not 'a'"):
        read_tensor(path, "a")


def test_a_numpy_file_that_is_cut_short_or_holds_objects_is_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, WEIGHT.numpy())
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"is not a complete \.npy file of numbers"):
            read_tensor(path, "")
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match=r"is not a complete \.npy file of numbers"):
        read_tensor(path, "")
