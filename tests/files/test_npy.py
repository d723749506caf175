"""Arrays from .npy files: whole ones come back, and no header makes numpy evaluate, allocate or unpack anything."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch

from narrows._files import read_tensor
from narrows.errors import FileError

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def written(array=ARRAY):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def with_header(text, version=b"\x01\x00"):
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text.encode() + ARRAY.tobytes()


def header(descr="'<f4'", order="False", shape="(3, 4)", more=""):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, {more}}}\n"


@pytest.mark.parametrize(
    "array",
    [
        ARRAY,
        np.asfortranarray(ARRAY),
        ARRAY.astype(np.float16),
        ARRAY.astype(np.int64),
        ARRAY > 3,
        np.zeros((0, 4)),
        ARRAY.astype(np.complex64),
    ],
    ids=lambda one: f"{one.dtype} {one.shape} {'C' if one.flags.c_contiguous else 'F'}",
)
def test_an_array_comes_back_as_numpy_reads_it(tmp_path, array):
    path = tmp_path / "x.npy"
    path.write_bytes(written(array))

    assert torch.equal(read_tensor(path, ""), torch.from_numpy(np.load(path)))


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x03\x00"])
def test_every_version_of_the_header_is_read(tmp_path, version):
    (tmp_path / "x.npy").write_bytes(with_header(header(), version))

    assert torch.equal(read_tensor(tmp_path / "x.npy", ""), torch.from_numpy(ARRAY))


WRONG = {
    "a zip": (b"PK\x03\x04" + written(), "it does not begin as one"),
    "a pickle": (b"\x80\x04N.", "it does not begin as one"),
    "another version": (with_header(header(), b"\x09\x00"), "it does not begin as one"),
    "an endless header": (b"\x93NUMPY\x02\x00\xf0\xff\xff\xff" + written(), "tells of 4294967280 bytes of itself"),
    "a huge shape": (with_header(header(shape=f"({1 << 62},)")), "tells of 18446744073709551616 bytes, 48 are there"),
    "a large shape": (with_header(header(shape="(4294967296, 2)")), "tells of 34359738368 bytes, 48 are there"),
    "bytes at the end": (written() + b"x", "tells of 48 bytes, 49 are there"),
    "code": (with_header(header(shape="__import__('os').getpid()")), "none of plain numbers"),
    "deep brackets": (with_header(header(shape="(" * 900 + ")" * 900)), "none of plain numbers"),
    "minus signs": (with_header(header(shape="-" * 5000 + "1")), "none of plain numbers"),
    "an open bracket": (with_header(header(shape="(3, 4")), "none of plain numbers"),
    "a negative size": (with_header(header(shape="(-3, -4)")), "none of plain numbers"),
    "objects": (with_header(header(descr="'|O'")), "none of plain numbers"),
    "texts": (with_header(header(descr="'<U3'")), "none of plain numbers"),
    "fields": (with_header(header(descr="[('a', '<f4')]")), "none of plain numbers"),
    "one key more": (with_header(header(more="'x': 1, ")), "none of plain numbers"),
    "one key twice": (with_header(header(more="'shape': (12,), ")), "none of plain numbers"),
    "another order": (with_header(header(order="7")), "none of plain numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_no_array_of_numbers_is_refused_with_why(tmp_path, case):
    data, text = WRONG[case]
    (tmp_path / "x.npy").write_bytes(data)

    with pytest.raises(FileError, match=rf"x\.npy is not a complete \.npy file of numbers: .*{text}"):
        read_tensor(tmp_path / "x.npy", "")


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00"])
def test_a_header_of_ten_thousand_bytes_is_read_and_a_longer_one_is_not(tmp_path, version):
    path = tmp_path / "x.npy"
    path.write_bytes(with_header(header()[:-1].ljust(9_999) + "\n", version))
    assert torch.equal(read_tensor(path, ""), torch.from_numpy(ARRAY))
    path.write_bytes(with_header(header()[:-1].ljust(10_000) + "\n", version))
    with pytest.raises(FileError, match="its header tells of 10001 bytes of itself"):
        read_tensor(path, "")
