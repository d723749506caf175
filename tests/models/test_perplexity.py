"""Losses against float64 sums written out, two models paired over the same windows, and intervals over documents."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import tiny_models
from narrows.errors import NonFiniteError
from narrows.models import _perplexity
from narrows.models._check_interval import mean_over_documents
from narrows.models._check_sides import shared_copy
from narrows.models._perplexity import dense_quality, language_quality, paired_losses, token_losses
from narrows.models._texts import windows


@pytest.fixture(scope="module")
def model():
    return tiny_models.llama()


@pytest.fixture(scope="module")
def text():
    return windows(tiny_models.texts(12), tiny_models.tokenizer(), tokens=64, number=24, seed=0)


def with_head(model, weight):
    """Return the model with another output head; everything else is shared."""
    changed = shared_copy(model)
    changed.lm_head.weight = torch.nn.Parameter(weight)
    return changed


def noisy(model, scale: float):
    """Return the model with normal noise of this standard deviation on its output head."""
    weight = model.lm_head.weight.detach()
    return with_head(model, weight + scale * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))


def brute_force(model, ids_NT):
    """Return losses token by token, each from a forward pass over what stands before it, in float64."""
    wide = tiny_models.llama().double()
    wide.load_state_dict(model.state_dict())
    losses = torch.zeros(len(ids_NT), ids_NT.shape[1] - 1, dtype=torch.float64)
    for n, ids in enumerate(ids_NT):
        for t in range(1, len(ids)):
            with torch.no_grad():
                logits = wide(input_ids=ids[None, :t]).logits[0, -1]
            losses[n, t - 1] = -(logits[ids[t]] - logits.max() - (logits - logits.max()).exp().sum().log())
    return losses


def test_losses_are_those_of_a_loop_in_float64(model, text):
    ids_NT = text.ids_NT[:2, :24]

    found = token_losses(model, ids_NT)

    # float32: logits of about 1 come from sums of 32 to 64 products, each rounded to 6e-8; 2 blocks.
    torch.testing.assert_close(found, brute_force(model, ids_NT), rtol=0, atol=2e-5)
    assert dense_quality(found).perplexity == pytest.approx(math.exp(brute_force(model, ids_NT).mean()), rel=2e-5)


def test_chunks_of_tokens_and_batches_of_windows_change_nothing(model, text, monkeypatch):
    whole = token_losses(model, text.ids_NT)
    monkeypatch.setattr(_perplexity, "CHUNK", 7)
    monkeypatch.setattr(_perplexity, "LOGIT_BYTES", 1)

    torch.testing.assert_close(token_losses(model, text.ids_NT), whole, rtol=0, atol=1e-5)


def test_a_model_against_itself_has_ratio_1_and_no_divergence_exactly(model, text):
    losses, paired = paired_losses(model, {"same": model}, text.ids_NT)

    quality = language_quality("same", losses, paired["same"], text.documents_N, seed=0)

    assert quality.ratio is not None
    assert (quality.ratio.value, quality.ratio.low, quality.ratio.high) == (1.0, 1.0, 1.0)
    assert quality.divergence is not None
    assert (quality.divergence.value, quality.agreement.value) == (0.0, 1.0)


def test_a_worse_model_is_found_worse_beyond_doubt(model, text):
    # Logits of a standard deviation of 3, and a text of what this model finds likeliest: noise can only harm.
    dense, ids_NT = with_head(model, 30 * model.lm_head.weight.detach()), text.ids_NT[:, :32].clone()
    with torch.no_grad():
        for t in range(1, ids_NT.shape[1]):
            ids_NT[:, t] = dense(input_ids=ids_NT[:, :t]).logits[:, -1].argmax(-1)

    losses, paired = paired_losses(dense, {"worse": noisy(dense, 0.3)}, ids_NT)
    quality = language_quality("worse", losses, paired["worse"], text.documents_N, seed=0)

    assert quality.ratio.low > 1
    assert quality.divergence.low > 0
    assert quality.agreement.high < 1
    assert quality.perplexity == pytest.approx(dense_quality(losses).perplexity * quality.ratio.value)


def test_divergence_is_that_of_the_definition(model, text):
    worse, ids_NT = noisy(model, 0.05), text.ids_NT[:2]

    _, paired = paired_losses(model, {"worse": worse}, ids_NT)

    with torch.no_grad():
        p, q = (m(input_ids=ids_NT).logits[:, :-1].double().softmax(-1) for m in (model, worse))
    expected = (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(paired["worse"].divergence, expected, rtol=0, atol=1e-6)


def test_documents_that_differ_make_the_interval_wider_than_their_windows_would():
    documents_N = np.repeat(np.arange(8), 8)
    growth_N = np.where(documents_N < 4, 0.0, 1.0) * 63
    tokens_N = np.full(64, 63.0)

    by_document = mean_over_documents(growth_N, tokens_N, documents_N, seed=0)
    by_window = mean_over_documents(growth_N, tokens_N, np.arange(64), seed=0)

    assert by_document.value == by_window.value == 0.5
    # 8 of 64: the standard error is sqrt(8) = 2.8 times as large, and t with 7 degrees of freedom is 1.2 times 1.96.
    assert by_document.high - by_document.low > 2 * (by_window.high - by_window.low)


def test_the_interval_holds_the_truth_in_about_95_of_100_texts():
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        sizes_D = generator.integers(1, 8, size=10)
        documents_N = np.repeat(np.arange(10), sizes_D)
        growth_N = generator.normal(0.1, 0.05, size=10)[documents_N] + generator.normal(0, 0.03, len(documents_N))
        found = mean_over_documents(growth_N * 511, np.full(len(documents_N), 511.0), documents_N, seed=seed)
        hits += found.low <= 0.1 <= found.high

    # 190 are expected; of 200 draws at 95 %, 99.9 % lie within 3.3 standard deviations of 3.1.
    assert 176 <= hits <= 199


def test_of_four_documents_no_interval_is_given():
    found = mean_over_documents(np.ones(8), np.ones(8), np.repeat(np.arange(4), 2), seed=0)

    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_nan_is_an_error_that_names_the_model(model, text):
    broken = noisy(model, math.nan)

    with pytest.raises(NonFiniteError, match="compressed gives NaN or Inf for 126 of 126 tokens"):
        paired_losses(model, {"compressed": broken}, text.ids_NT[:2])


def test_progress_counts_windows(model, text):
    seen = []

    token_losses(model, text.ids_NT, progress=lambda *step: seen.append(step))

    assert seen[-1] == ("perplexity", 24, 24)
