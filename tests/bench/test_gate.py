"""A variant whose output is wrong has no time: the check against float64, and canaries for it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from bench.experiments import PRODUCT, small
from narrows import kernels
from narrows.bench import _session
from narrows.bench._facts import thin_variants
from narrows.bench._point import Point
from narrows.bench._session import Session
from narrows.kernels.triton import _persistent


def _session_of(tmp_path, **changes):
    session = Session(small(**changes), tmp_path)
    session.prepare(0)
    return session


def _points(session, tokens=32, rank=16):
    names = session.describe()["thin"]
    thin = [Point(tokens, rank, name, "eager", "hot") for name in names]
    dense = kernels.dense_associations(session.experiment.problem(tokens))
    return thin + [Point(tokens, None, name, "eager", "hot") for name in dense]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["linear", "bilinear"])
def test_every_implementation_is_right_in_every_dtype(tmp_path, kind, dtype):
    session = _session_of(tmp_path, kind=kind, dtype=dtype)
    checks = {point.variant: session.check(point) for point in _points(session)}
    assert all(check.status == "ok" for check in checks.values()), checks


def test_what_runs_nowhere_on_a_device_has_no_rows_there(tmp_path):
    assert _session_of(tmp_path).describe()["thin"] == ["three", "two"]
    assert thin_variants("linear", "cpu") == ["two"]


@pytest.mark.parametrize("kind", ["linear", "bilinear"])
def test_no_implementation_is_left_out_for_its_sizes(monkeypatch, kind):
    """On "meta" nothing is refused for the device, so that only sizes and dtype could leave one out."""
    monkeypatch.setattr(_persistent, "refuses_device", _persistent.refuses_device.__wrapped__)  # without its cache
    assert thin_variants(kind, "meta") == [kernel.name for kernel in kernels.kernels_for(kind)]


def test_a_product_as_given_and_its_heads_are_right(tmp_path):
    session = _session_of(tmp_path, weights=(PRODUCT,))
    assert session.check(Point(32, None, "given", "eager", "hot")).status == "ok"


def test_a_refused_variant_says_why_and_is_not_run(tmp_path):
    session = _session_of(tmp_path, other_tokens=24)
    check = session.check(Point(32, 4, "two", "eager", "hot"))
    assert check.status == "refused"
    assert "U=24" in check.reason


def test_a_row_that_does_not_fit_says_how_much_is_missing(tmp_path, monkeypatch):
    session = _session_of(tmp_path)
    monkeypatch.setattr("narrows.bench._facts.available_bytes", lambda _: 1024)
    check = session.check(Point(32, 4, "three", "eager", "hot"))
    assert (check.status, check.reason) == ("does not fit", "needs 0.00 GiB, 0.00 GiB are free")


@dataclass(frozen=True)
class _Wrong:
    """A kernel with a planted fault."""

    fault: str
    name: str = "three"
    kind: str = "bilinear"

    def refuses(self, problem):
        return ""

    def launches(self, problem):
        return 3

    def pack(self, factors):
        return factors

    def run(self, x, factors, y=None, *, out=None):
        a, b = factors.a, factors.b
        if self.fault == "last feature dropped":
            x = torch.cat([x[:, :-1], torch.zeros_like(x[:, -1:])], dim=1)
        if self.fault == "swapped factors":
            a, b = b, a
        s = (x @ a.T) @ (x @ b.T).T
        if self.fault == "scaled":
            s = s * (1 + 2**-8)
        if self.fault == "one NaN":
            s[3, 5] = float("nan")
        return s


@pytest.mark.parametrize("fault", ["last feature dropped", "swapped factors", "scaled", "one NaN"])
def test_a_wrong_kernel_has_no_time(tmp_path, monkeypatch, fault):
    session = _session_of(tmp_path)
    real = _session.kernel_of
    monkeypatch.setattr(_session, "kernel_of", lambda p, q: _Wrong(fault) if p.variant == "three" else real(p, q))
    check = session.check(Point(32, 16, "three", "eager", "hot"))
    assert check.status == "wrong result"
    assert not check.can_be_timed
    assert "times its derived error bound" in check.reason
    assert session.check(Point(32, 16, "two", "eager", "hot")).status == "ok"


def test_every_working_set_of_a_cold_row_is_memory_of_its_own(tmp_path):
    session = _session_of(tmp_path)
    session.check(Point(32, 4, "three", "eager", "cold"))
    ring = session._ring(Point(32, 4, "three", "eager", "cold"))
    places = {call.args[0].data_ptr() for call in ring.calls}
    assert len(places) == len(ring) >= 2
