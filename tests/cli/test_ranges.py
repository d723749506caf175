"""Ranges and sizes as users write them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrows.cli._ranges import parse_bytes, parse_range
from narrows.errors import InputError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("64..4096", (64, 128, 256, 512, 1024, 2048, 4096)),
        ("64", (64,)),
        ("64,100,4096", (64, 100, 4096)),
        ("64..1000", (64, 128, 256, 512)),
        ("64..512, 1000", (64, 128, 256, 512, 1000)),
        ("128,64,64", (64, 128)),
        ("3..3", (3,)),
    ],
)
def test_a_range_doubles_and_commas_list(text, values):
    assert parse_range(text, "--tokens") == values


@pytest.mark.parametrize("text", ["", "0", "4..2", "-1", "1...4", "a", "1.5", "64..", "1,,2", "0..8", "9" * 30])
def test_what_is_no_range_is_refused_with_its_text(text):
    with pytest.raises(InputError, match="--rank=") as refused:
        parse_range(text, "--rank")

    assert repr(text) in str(refused.value)


@given(first=st.integers(1, 1000), factor=st.integers(1, 1000))
def test_a_range_starts_at_a_doubles_and_never_passes_b(first, factor):
    last = first * factor
    values = parse_range(f"{first}..{last}", "--tokens")

    assert values[0] == first
    assert all(b == 2 * a for a, b in pairwise(values))
    assert values[-1] <= last < 2 * values[-1]


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("64MB", 64_000_000), ("64MiB", 64 << 20), ("1.5GB", 1_500_000_000), ("4096", 4096), ("8 kib", 8192), ("7B", 7)],
)
def test_sizes_are_decimal_or_binary_by_their_unit(text, num_bytes):
    assert parse_bytes(text, "--max-bytes") == num_bytes


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "64XB", "0", "0.1", "1e9", "nan"])
def test_what_is_no_size_is_refused_with_its_text(text):
    with pytest.raises(InputError, match="--max-bytes=") as refused:
        parse_bytes(text, "--max-bytes")

    assert repr(text) in str(refused.value)
