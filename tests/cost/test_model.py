"""What a compression takes and can gain, against figures worked out by hand."""

from __future__ import annotations

import pytest

from narrows._cost import estimate, other_flops
from narrows._values import Workload
from narrows.errors import InputError

BLOCK = ((576, 576), (576, 192), (576, 192), (576, 576), (576, 1536), (576, 1536), (1536, 576))
SMALL_LLAMA = BLOCK * 30


def test_one_small_layer_by_hand():
    found = estimate([(4, 2)], tokens=10, itemsize=2, window=3, vocabulary=5)
    assert found.pass_flops == 6 * 8 * 10
    assert found.moment_flops == 2 * (16 + 4) * 10
    assert found.decomposition_flops == 10 * 2 * 2 * 4 + 9 * (64 + 8)
    activations, workspace = 2 * 3 * (6 + 10), 3 * 8 * (16 + 4 + 8)
    assert found.peak_bytes == 2 * 8 + 8 * (20 + 4) + max(activations, workspace)
    assert (found.calibration_seconds, found.decomposition_seconds) == (None, None)


def test_without_gradients_there_is_no_backward_pass_and_one_root():
    found = estimate([(4, 2)], tokens=10, itemsize=2, has_gradients=False)
    assert found.pass_flops == 2 * 8 * 10
    assert found.moment_flops == 2 * 16 * 10
    assert found.decomposition_flops == 10 * 2 * 2 * 4 + 9 * 64


def test_the_whole_models_parameters_pass_and_only_the_layers_are_decomposed():
    alone, whole = (estimate([(4, 2)], tokens=10, itemsize=2, parameters=p) for p in (None, 100))
    assert whole.pass_flops == 6 * 100 * 10
    assert whole.decomposition_flops == alone.decomposition_flops
    assert whole.peak_bytes - alone.peak_bytes == 2 * (100 - 8)


def test_anchoring_holds_every_tokens_states_and_the_moments_of_x_in_both_models():
    plain, anchored = (estimate([(4, 2)], tokens=1000, itemsize=2, anchored_features=n) for n in (0, 7))
    workspace = 3 * 8 * (16 + 4 + 8)
    activations = 2 * 512 * 6
    assert plain.peak_bytes - anchored.peak_bytes == activations - (workspace + 2 * 8 * 16 + 2 * 1000 * 7)


def test_long_windows_and_large_vocabularies_take_memory():
    small, long = (estimate([(4, 2)], tokens=10, itemsize=2, window=w) for w in (1, 1000))
    assert long.peak_bytes - small.peak_bytes == 2 * 1000 * 6 - 3 * 8 * 28


def test_seconds_are_flops_over_rates():
    found = estimate([(4, 2)], tokens=10, itemsize=2, flops_per_s=240.0, float64_flops_per_s=100.0)
    assert found.calibration_seconds == 480 / 240 + 400 / 100
    assert found.decomposition_seconds == 808 / 100
    assert estimate([(4, 2)], tokens=10, itemsize=2, flops_per_s=240.0).calibration_seconds is None


@pytest.mark.parametrize(
    ("workload", "gains"),
    [("prefill:512x1", (1.10, 1.23, 1.38, 1.59)), ("prefill:2048x1", (1.08, 1.18, 1.29, 1.43))],
)
def test_a_model_of_30_blocks_gains_what_its_flops_allow(workload, gains):
    found = estimate(
        SMALL_LLAMA,
        tokens=32768,
        itemsize=4,
        attention_features=30 * 576,
        workloads=[Workload.parse(workload)],
        kept=(0.9, 0.8, 0.7, 0.6),
    )
    assert [share for share, _ in found.gains] == [0.9, 0.8, 0.7, 0.6]
    assert [gain for _, gain in found.gains] == pytest.approx(gains, abs=0.006)


def test_the_gain_of_layers_alone_is_one_over_what_is_kept():
    assert estimate([(4, 2)], tokens=1, itemsize=4, kept=(1.0, 0.5)).gains == ((1.0, 1.0), (0.5, 2.0))


def test_workloads_count_by_weight():
    both = [Workload("prefill", 8, 1, 1.0), Workload("decode", 100, 1, 3.0)]
    (gain,) = estimate([(4, 2)], tokens=1, itemsize=4, workloads=both, kept=(0.5,), attention_features=2).gains
    layers, rest = 2 * 8 * (8 + 3 * 1), 2 * 64 * 2 + 3 * 4 * 100 * 2
    assert gain == (0.5, (layers + rest) / (0.5 * layers + rest))


def test_attention_and_logits_by_hand():
    assert other_flops(Workload("prefill", 8, 2), 4, 10) == 2 * (2 * 8 * 8 * 4 + 2 * 10)
    assert other_flops(Workload("decode", 8, 2), 4, 10) == 2 * (4 * 8 * 4 + 2 * 10)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"shapes": []}, r"shapes=\[\] must hold a layer, and tokens=1 be at least 1"),
        ({"tokens": 0}, r"shapes=\[\(4, 2\)\] must hold a layer, and tokens=0 be at least 1"),
    ],
)
def test_nothing_to_estimate_is_refused(bad, text):
    with pytest.raises(InputError, match=text):
        estimate(**({"shapes": [(4, 2)], "tokens": 1, "itemsize": 4} | bad))
