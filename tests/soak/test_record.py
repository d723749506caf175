"""The record of long runs holds the last run of every part."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from soak._figure import Figure

from soak import __main__ as soak

if TYPE_CHECKING:
    from pathlib import Path


def figure(part, name="a figure"):
    return Figure(part=part, name=name, asked="all", reached="all", status="ok")


def saved(path: Path, *figures):
    soak.save(path, argparse.Namespace(seed=0, scale=0.1, jobs=2), figures, 1.0)
    return [[(one["part"], one["name"]) for one in run["figures"]] for run in json.loads(path.read_text())["runs"]]


def test_a_part_that_is_run_again_replaces_its_figures_and_no_others(tmp_path):
    path = tmp_path / "new" / "soak.json"

    assert saved(path, figure("right"), figure("files")) == [[("right", "a figure"), ("files", "a figure")]]
    assert saved(path, figure("files", "another")) == [[("right", "a figure")], [("files", "another")]]
    assert saved(path, figure("right"), figure("files")) == [[("right", "a figure"), ("files", "a figure")]]
