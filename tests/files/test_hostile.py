"""What strangers may put in a file's place, or into it: each ends in one line that names the file."""

from __future__ import annotations

import json
import os
import socket
import struct

import pytest
import torch
from safetensors.torch import save_file

from narrows._files import missing_name, read_file, read_tensor, read_text, tensor_names
from narrows.errors import FileError

WEIGHT = torch.arange(6, dtype=torch.float32).view(2, 3)


@pytest.fixture
def sharded(tmp_path):
    save_file({"a": WEIGHT}, tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    return tmp_path


def test_a_file_is_read_whole_and_a_link_to_it_too(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 70_000)
    (tmp_path / "b").symlink_to("a")

    assert read_file(tmp_path / "b") == b"x" * 70_000


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(FileError, match=r"pipe is not a regular file\. Give another one\.$"):
        read_file(tmp_path / "pipe", advice="Give another one.")


@pytest.mark.parametrize(
    ("path", "text"),
    [("/dev/zero", "/dev/zero is not a regular file"), (".", "cannot be read: Is a directory"), ("no", "No such file")],
)
def test_a_device_a_folder_and_nothing_are_named(path, text):
    with pytest.raises(FileError, match=text):
        read_file(path)


def test_a_socket_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s")
        with pytest.raises(FileError, match=r"^s cannot be read: No such device or address\.$"):
            read_file("s")


def test_text_loses_its_byte_order_mark_and_the_line_ends_of_windows(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffa\r\nb\rc\n".encode())

    assert read_text(tmp_path / "a.txt") == "a\nb\nc\n"


def test_a_link_that_leads_to_itself_is_named(sharded):
    (sharded / "one.safetensors").unlink()
    (sharded / "one.safetensors").symlink_to("one.safetensors")

    with pytest.raises(FileError, match=r"one\.safetensors cannot be read: Too many levels of symbolic links"):
        tensor_names(sharded)


@pytest.mark.parametrize("name", ["x" * 65536, "\x1b[31m.safetensors", "\ud800.safetensors", "a\nb"])
def test_a_name_that_cannot_be_shown_is_no_name_of_a_file(sharded, name):
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))

    with pytest.raises(FileError, match="only plain names inside the folder are read") as told:
        tensor_names(sharded)
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 600


def test_an_index_with_a_key_twice_is_refused(sharded):
    text = '{"weight_map": {"a": "one.safetensors"}, "weight_map": {"a": "two.safetensors"}}'
    (sharded / "model.safetensors.index.json").write_text(text)

    with pytest.raises(FileError, match="is not a safetensors index"):
        tensor_names(sharded)


def test_a_dtype_that_torch_cannot_read_is_named(tmp_path):
    header = json.dumps({"a": {"dtype": "F4", "shape": [2, 4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))

    with pytest.raises(FileError, match=r"x\.safetensors holds numbers that this torch cannot read: shape '\[2, 4\]'"):
        read_tensor(tmp_path / "x.safetensors", "a")


def test_long_names_and_many_of_them_do_not_delay_the_answer():
    names = ("x" * 65536, *(f"layers.{i}" for i in range(200_000)))

    assert missing_name("tensor", "layers.12.", names, "f").endswith("Nearest: layers.12, layers.912, layers.812.")
    assert len(missing_name("tensor", "y" * 65536, names, "f")) < 600
