"""The self-check finds wrong sizes before their first use, and looks once."""

from __future__ import annotations

import pytest
import torch

from kernels.tuned.records import CONFIG, FakeKernel, nothing_written, one_element, signature
from narrows.kernels.tuned import Config, Tiles, _verify, verified

# Small, so that a check takes milliseconds: whole tiles are 32, the inner period is 64.
SMALL = Config(Tiles(16, 32, 32, split=2), Tiles(16, 32, 16))


def small(**changes):
    return signature(
        **{"tokens": 64, "in_features": 200, "out_features": 200, "rank": 20, "dtype": "float32"} | changes
    )


@pytest.fixture(autouse=True)
def _fresh():
    _verify.forget()
    yield
    _verify.forget()


CALLS = {
    "bilinear, Y = X": small(),
    "bilinear, Y of its own": small(other_tokens=9, out_features=72),
    "bilinear with heads": small(heads=3),
    "linear": small(kind="linear", out_features=96),
    "linear with heads": small(kind="linear", heads=2),
    "bfloat16": small(dtype="bfloat16"),
    "float16": small(dtype="float16"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_right_kernel_passes(call):
    kernel = FakeKernel(call.kind)
    assert _verify.failure(kernel, SMALL, call) == ""
    assert verified(kernel, SMALL, call)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("spoil", [one_element, nothing_written])
def test_a_wrong_element_fails_with_its_size(call, spoil):
    kernel = FakeKernel(call.kind, spoil=spoil)
    reason = _verify.failure(kernel, SMALL, call)
    assert "elements of an exact result are wrong at T=32" in reason
    assert not verified(kernel, SMALL, call)


def test_a_kernel_that_is_wrong_on_the_last_ragged_tile_only_fails():
    def ragged(config, result):
        if result.shape[-1] % 16:
            result[-1, -1] = 0.5

    assert "1 elements of an exact result are wrong at T=49, U=49" in _verify.failure(
        FakeKernel(spoil=ragged), SMALL, small(tokens=65)
    )


def test_a_kernel_that_needs_multiples_of_tokens_is_ragged_in_them():
    kernel = FakeKernel()
    kernel.granule = 8
    assert verified(kernel, SMALL, small(tokens=72))
    few = _verify.PERSISTENT_TOKENS + 8
    assert [tuple(shape) for _, shape in kernel.runs] == [(few, 136), (32, 136), (56, 136)]


def test_what_a_compiler_raises_is_the_reason_and_not_an_error():
    def out_of_resources(config, result):
        raise RuntimeError("out of resource: shared memory, Required: 300000\nmore")

    reason = _verify.failure(FakeKernel(spoil=out_of_resources), SMALL, small())
    assert reason == "RuntimeError: out of resource: shared memory, Required: 300000"


def test_missing_memory_is_no_verdict_about_the_kernel():
    def full(config, result):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        _verify.failure(FakeKernel(spoil=full), SMALL, small())
    assert not _verify.is_known(FakeKernel(), SMALL, small())


def test_the_check_runs_once_for_all_numbers_of_tokens_that_compile_to_the_same_code():
    kernel = FakeKernel()
    for tokens in (64, 4096, 16):
        assert verified(kernel, SMALL, small(tokens=tokens))
    assert [tuple(shape) for _, shape in kernel.runs] == [(32, 136), (48, 136)]
    for tokens in (1, 63, 1000):
        assert verified(kernel, SMALL, small(tokens=tokens))
    assert [tuple(shape) for _, shape in kernel.runs[2:]] == [(32, 136), (49, 136)]


@pytest.mark.parametrize(
    "change", [{"rank": 24}, {"dtype": "float16"}, {"in_features": 328, "out_features": 328}, {"device": 1}]
)
def test_another_rank_dtype_feature_count_or_device_is_checked_again(change):
    kernel = FakeKernel()
    verified(kernel, SMALL, small())
    assert not _verify.is_known(kernel, SMALL, small(**change))
    assert not _verify.is_known(kernel, CONFIG, small())


def test_features_shrink_to_few_periods_and_keep_their_divisibility():
    for features in (4096, 4104, 200, 129, 1):
        few = _verify._small(features, 64)
        assert few <= min(features, 3 * 64)
        assert (few % 64 == 0) == (features % 64 == 0)
        assert few % 16 == features % 16


def test_exact_operands_are_made_where_the_default_device_is_another_one():
    with torch.device("meta"):
        assert verified(FakeKernel(), SMALL, small(rank=28))
