"""The index of calibration's sums: sealed, with digests, and names nothing outside of its folder."""

from __future__ import annotations

import json
import random

import pytest
import torch

from narrows._values._json import sealed
from narrows.errors import FileError
from narrows.models._moments_index import SumsIndex
from narrows.models._moments_store import MomentsStore

SETTINGS = {"seed": 0, "text": "t" * 64}
SUMS = {"inputs/a/0": torch.arange(9.0, dtype=torch.float64).view(3, 3), "totals/a": torch.ones(1, 3)}


@pytest.fixture
def folder(tmp_path):
    with MomentsStore(tmp_path, SETTINGS) as store:
        store.save(0, 3, SUMS, {"a": 96, "": 96})
    return tmp_path


def held(folder):
    with MomentsStore(folder, SETTINGS) as store:
        return store.counts(0), {name: store.tensor(0, name) for name in store.names(0)}


def fields(folder):
    found = json.loads((folder / "moments.json").read_bytes())
    del found["sha256"]
    return found


def test_sums_come_back_as_they_were_kept(folder):
    counts, sums = held(folder)

    assert counts == (3, {"a": 96, "": 96})
    assert sums.keys() == SUMS.keys()
    assert all(torch.equal(sums[name], SUMS[name]) for name in SUMS)


def test_every_flipped_bit_of_a_sum_is_named(folder):
    (shard,) = folder.glob("moments-*/*.safetensors")
    data = shard.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for bit in random.Random(0).sample(range(8 * start, 8 * len(data)), 60):  # noqa: S311 (no secret)
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(changed)
        with pytest.raises(FileError, match=r"000\.safetensors: .* is not what was saved \(SHA-256\): delete"):
            held(folder)


def test_every_flipped_bit_of_the_index_is_refused(folder):
    data = (folder / "moments.json").read_bytes()
    for bit in random.Random(0).sample(range(8 * len(data)), 300):  # noqa: S311 (no secret)
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        (folder / "moments.json").write_bytes(changed)
        with pytest.raises(FileError, match=r"moments\.json is not an index of calibration sums: delete .*\(.*\)$"):
            held(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "moments-0-3/../../x.safetensors",
        "moments-0-3",
        "",
        "moments-1-1/000.txt",
    ],
)
def test_a_name_that_leads_elsewhere_is_not_followed(folder, name):
    index = fields(folder)
    index["passes"]["0"]["files"]["totals/a"] = name
    (folder / "moments.json").write_text(sealed(index))

    with pytest.raises(FileError, match="which is none of its own"):
        held(folder)


def test_a_link_in_the_place_of_a_state_or_of_the_index_is_not_followed(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    for name in ("moments-0-3", "moments.json"):
        (folder / name).rename(outside / name)
        (folder / name).symlink_to(outside / name)
        with pytest.raises(FileError, match=r"which is none of its own|moments\.json is a link"):
            held(folder)
        (folder / name).unlink()
        (outside / name).rename(folder / name)


def test_a_folder_of_the_first_version_is_read_and_gets_digests_with_its_next_state(folder):
    index = fields(folder) | {"schema": 1}
    del index["passes"]["0"]["sha256"]
    (folder / "moments.json").write_text(json.dumps(index))

    counts, sums = held(folder)
    assert counts == (3, {"a": 96, "": 96})
    with MomentsStore(folder, SETTINGS) as store:
        store.save(0, 4, sums, counts[1])
    kept = fields(folder)
    assert kept["schema"] == SumsIndex.__dataclass_fields__["schema"].default == 2
    assert kept["passes"]["0"]["sha256"].keys() == SUMS.keys()
