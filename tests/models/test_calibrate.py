"""Moments against brute force, and what happens when calibration is stopped, repeated or given bad input.

Letters: N windows, T tokens, B windows of a batch, D input, E output features, V classes.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest
import torch
from torch import nn

import tiny_models
from narrows.errors import DtypeError, FileError, InputError, NonFiniteError, ResourceError, ShapeError
from narrows.models import _calibrate_run, _calibrate_watch, _moments_store
from narrows.models._calibrate import calibrate, moments_bytes, short_of_tokens, split_passes
from narrows.models._calibrate_gram import Gram
from narrows.models._calibrate_labels import class_gradient, noise_gradient
from narrows.models._calibrate_watch import clip
from narrows.models._match import targets
from narrows.models._match_shared import shared_inputs

# float64 sums of a few hundred products, in two orders
SUMS = {"rtol": 1e-12, "atol": 1e-14}


def ids(windows: int = 6, tokens: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (windows, tokens), generator=torch.Generator().manual_seed(seed))


def same(left, right) -> bool:
    """Say whether two calibrations gave the same bits."""
    return list(left) == list(right) and all(
        torch.equal(left[name].inputs, right[name].inputs)
        and torch.equal(left[name].mean, right[name].mean)
        and torch.equal(left[name].gradients, right[name].gradients)
        and left[name].tokens == right[name].tokens
        for name in left
    )


def seen_inputs(model, found, text, autocast=None) -> dict[str, torch.Tensor]:
    """Return what entered every layer, (T, D) in the model's dtype, window by window."""
    seen = {one.name: [] for one in found}
    handles = [
        one.module.register_forward_pre_hook(lambda _, args, name=one.name: seen[name].append(args[0])) for one in found
    ]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast is not None):
        for window in text:
            model(input_ids=window[None])
    for handle in handles:
        handle.remove()
    return {name: torch.cat([x.flatten(0, -2) for x in parts]) for name, parts in seen.items()}


def one_token_gradients(model, module, window: torch.Tensor, label_T: torch.Tensor) -> torch.Tensor:
    """Return (T, E): d(sum of all positions' losses) / d(the layer's output at t), one token at a time."""
    found = []
    for t in range(len(window)):
        kept = {}

        def add(_, __, y, t=t, kept=kept):
            kept["nudge"] = torch.zeros(y.shape[-1], dtype=y.dtype, requires_grad=True)
            moved = torch.zeros_like(y)
            moved[0, t] = 1
            return y + moved * kept["nudge"]

        handle = module.register_forward_hook(add)
        loss = nn.functional.cross_entropy(model(input_ids=window[None]).logits[0], label_T, reduction="sum")
        found.append(torch.autograd.grad(loss, kept["nudge"])[0])
        handle.remove()
    return torch.stack(found)


def drawn_labels(model, text: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """Return the labels that calibration draws: where its gradient p - onehot is negative."""
    with torch.no_grad():
        return [class_gradient(model(input_ids=w[None]).logits, [i], seed)[0].argmin(-1) for i, w in enumerate(text)]


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_input_moments_are_the_averages_over_tokens(family):
    model, text = getattr(tiny_models, family)(), ids(4)
    found = targets(model)
    moments = calibrate(model, text, found, gradients=False, batch_rows=16)
    for name, x_TD in seen_inputs(model, found, text).items():
        exact = x_TD.double()
        torch.testing.assert_close(moments[name].inputs, exact.T @ exact / len(exact), **SUMS)
        torch.testing.assert_close(moments[name].mean, exact.mean(0), **SUMS)
        assert moments[name].tokens == 64
        assert moments[name].gradients is None


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_gradient_moments_are_those_of_one_token_at_a_time(family, monkeypatch):
    monkeypatch.setattr(_calibrate_watch, "CLIP", float("inf"))
    model, text = getattr(tiny_models, family)().double(), ids(2, 6)
    found = targets(model)[3:7]
    moments = calibrate(model, text, found, seed=5)
    labels = drawn_labels(model, text, 5)
    for one in found:
        g_TE = torch.cat([one_token_gradients(model, one.module, w, y) for w, y in zip(text, labels, strict=True)])
        torch.testing.assert_close(moments[one.name].gradients, g_TE.T @ g_TE / 12, rtol=1e-9, atol=1e-15)


def test_labels_are_drawn_from_the_model():
    p_V = torch.tensor([0.5, 0.25, 0.15, 0.1, 0.0])
    gradient = class_gradient(p_V.log().expand(1, 20_000, 5), [0], seed=3)
    labels = gradient[0].argmin(-1)
    counts = labels.bincount(minlength=5)
    expected = 20_000 * p_V
    assert counts[4] == 0
    # Chi-square with 3 degrees of freedom: above 21 with a chance of 1e-4.
    assert float(((counts - expected)[:4].square() / expected[:4]).sum()) < 21
    torch.testing.assert_close(gradient[0], p_V - nn.functional.one_hot(labels, 5), rtol=1e-6, atol=1e-7)


def test_labels_depend_on_the_seed_and_the_windows_index_only():
    logits = torch.randn(2, 8, 50, generator=torch.Generator().manual_seed(0))
    both = class_gradient(logits, [3, 4], seed=1)
    assert torch.equal(both[1:], class_gradient(logits[1:], [4], seed=1))
    assert not torch.equal(both[1:], class_gradient(logits[1:], [5], seed=1))
    assert not torch.equal(both, class_gradient(logits, [3, 4], seed=2))
    noise = noise_gradient(logits, [3, 4], seed=1)
    assert torch.equal(noise[1:], noise_gradient(logits[1:], [4], seed=1))


def test_the_same_text_in_other_batches_gives_the_same_moments():
    model, text = tiny_models.llama().double(), ids()
    found = targets(model)
    one, all_at_once = (calibrate(model, text, found, batch_rows=rows) for rows in (16, 96))
    for name in one:
        torch.testing.assert_close(one[name].inputs, all_at_once[name].inputs, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(one[name].gradients, all_at_once[name].gradients, rtol=1e-9, atol=1e-15)


def test_long_token_gradients_are_shortened_to_ten_times_the_median():
    g_TE = torch.tensor([[3.0, 4.0], [0.0, 5.0], [0.0, 0.0], [300.0, 400.0], [5.0, 0.0]], dtype=torch.float64)
    expected = g_TE.clone()
    expected[3] = torch.tensor([30.0, 40.0])
    torch.testing.assert_close(clip(g_TE), expected)


def test_a_few_tokens_with_gradients_are_not_clipped_away():
    g_TE = torch.zeros(9, 2, dtype=torch.float64)
    g_TE[0, 0] = 7.0
    assert torch.equal(clip(g_TE), g_TE)
    assert torch.equal(clip(torch.zeros(3, 2)), torch.zeros(3, 2))


def test_a_callers_autocast_changes_nothing():
    model, text = tiny_models.llama(), ids()
    found = targets(model)
    alone = calibrate(model, text, found)
    with torch.autocast("cpu", torch.bfloat16):
        assert same(alone, calibrate(model, text, found))


def test_products_are_float64_also_of_a_forward_in_bfloat16():
    model, text = tiny_models.llama(), ids(2)
    found = targets(model)
    moments = calibrate(model, text, found, gradients=False, batch_rows=16, autocast=torch.bfloat16)
    for name, x_TD in seen_inputs(model, found, text, torch.bfloat16).items():
        exact = x_TD.double()
        gram = exact.T @ exact / len(exact)
        torch.testing.assert_close(moments[name].inputs, gram, **SUMS)
        # The canary: the same product made inside the caller's autocast is off by bfloat16's rounding.
        with torch.autocast("cpu", torch.bfloat16):
            rounded = x_TD.float().T @ x_TD.float() / len(exact)
        assert not torch.allclose(rounded.double(), gram, rtol=1e-4, atol=0)


def test_layers_that_read_the_same_tensor_share_one_moment():
    model = tiny_models.llama()
    moments = calibrate(model, ids(2), targets(model))
    query, key, out = (moments[f"model.layers.0.self_attn.{name}_proj"] for name in "qko")
    assert query.inputs is key.inputs
    assert query.mean is key.mean
    assert query.inputs is not out.inputs


@pytest.mark.parametrize("size", [5, 64, 65, 300])
def test_a_gram_is_the_exact_symmetric_product(size):
    x_TD = torch.randn(40, size, generator=torch.Generator().manual_seed(size))
    gram = Gram(size, "cpu")
    gram.add(x_TD[:30])
    gram.add(x_TD[30:])
    found = gram.mean(40)
    torch.testing.assert_close(found, x_TD.double().T @ x_TD.double() / 40, **SUMS)
    assert torch.equal(found, found.T)
    assert torch.equal(Gram.of(gram.panels).mean(40), found)


def test_a_model_without_a_head_is_judged_by_its_hidden_states():
    """With y = x W^T as the output, the gradient is the noise: its moment is the identity / V."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = nn.ModuleList([nn.Sequential(nn.Linear(8, 4))])

        def forward(self, x):
            return self.stack[0](x)

    model = Last().double()
    text = [
        {"x": torch.randn(1, 500, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(i))} for i in range(4)
    ]
    (moments,) = calibrate(model, text, targets(model)).values()
    h_TH = torch.cat([model(**window)[0] for window in text]).detach()
    scaled = moments.gradients * h_TH.var(dim=0, correction=0).sum()
    # Entries of a sample second moment of unit noise, 2000 tokens: standard deviation at most sqrt(2 / 2000).
    assert float((scaled - torch.eye(4)).abs().max()) < 5 * (2 / 2000) ** 0.5


def test_damage_of_an_encoder_is_half_the_lost_share_of_variance():
    model, text = tiny_models.bert().double(), ids(16, 32)
    found = targets(model, patterns=["encoder.layer.1.output.dense"])
    (moments,) = calibrate(model, text, found).values()
    weight = found[0].module.weight
    change = 1e-4 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    predicted = float(torch.trace(moments.gradients @ change @ moments.inputs @ change.T)) / 2
    with torch.no_grad():
        h = model(text).last_hidden_state.flatten(0, 1)
        weight += change
        lost = (model(text).last_hidden_state.flatten(0, 1) - h).square().sum() / len(h)
    measured = float(lost / (2 * h.var(dim=0, correction=0).sum()))
    # What is left is that inputs and gradients are taken as independent, and 512 drawn labels.
    assert predicted == pytest.approx(measured, rel=0.15)


def test_images_are_calibrated_from_pixels():
    model = tiny_models.vit()
    text = [{"pixel_values": torch.randn(2, 1, 16, 16)} for _ in range(3)]
    said = []
    moments = calibrate(model, text, targets(model), progress=lambda *one: said.append(one))
    assert len(moments) == 12
    assert moments["layers.0.mlp.fc1"].tokens == 6 * 17
    assert said[-1] == ("calibration windows", 6, 6)


def test_padding_does_not_count():
    model, text = tiny_models.bert().double(), ids(3, 10)
    found = targets(model)
    alone = calibrate(model, [{"input_ids": one[None]} for one in text], found, gradients=False)
    padded = torch.cat([text, torch.full((3, 6), 258)], dim=1)
    mask = torch.cat([torch.ones(3, 10), torch.zeros(3, 6)], dim=1).long()
    windows = [{"input_ids": padded, "attention_mask": mask}]
    together = calibrate(model, windows, found)
    for name, moments in alone.items():
        torch.testing.assert_close(together[name].inputs, moments.inputs, rtol=1e-9, atol=1e-12)
        assert together[name].tokens == 30
    without = calibrate(model, [{"input_ids": padded}], found, gradients=False)
    assert without["encoder.layer.0.intermediate.dense"].tokens == 48


def test_padding_has_no_label_and_no_gradient():
    model, text = tiny_models.llama().double(), ids(3, 10)
    found = targets(model)
    alone = calibrate(model, text, found, batch_rows=10)
    padded = torch.cat([text, torch.full((3, 6), 258)], dim=1)
    mask = torch.cat([torch.ones(3, 10), torch.zeros(3, 6)], dim=1).long()
    together = calibrate(model, [{"input_ids": padded, "attention_mask": mask}], found)
    for name, moments in alone.items():
        torch.testing.assert_close(together[name].gradients, moments.gradients, rtol=1e-9, atol=1e-15)


def test_gradients_of_a_float32_model_are_those_of_float64_to_its_rounding():
    model, text = tiny_models.llama(), ids()
    single = calibrate(model, text, targets(model))
    exact = calibrate(model.double(), text, targets(model))
    for name in exact:
        error = (single[name].gradients - exact[name].gradients).norm() / exact[name].gradients.norm()
        # Two blocks of sums of at most 259 terms in float32; one product in bfloat16 alone would leave 2e-3.
        assert float(error) < 1e-4


def test_a_block_that_is_called_twice_adds_both_calls():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))])

        def forward(self, x):
            return self.stack[0](self.stack[0](x))

    model = Twice()
    (moments,) = calibrate(model, [{"x": torch.randn(1, 10, 4)}], targets(model)).values()
    assert moments.tokens == 20


def test_the_model_is_left_as_it_was():
    model = tiny_models.llama().train()
    model.model.norm.weight.requires_grad_(False)
    model.model.norm.eval()
    before = [(p.requires_grad, p._version) for p in model.parameters()]
    calibrate(model, ids(2), targets(model))
    assert [(p.requires_grad, p._version) for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert not model.model.norm.training
    assert model.config.use_cache
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_calibration_runs_inside_no_grad_and_inference_mode():
    model, text = tiny_models.llama(), ids(2)
    found = targets(model)
    alone = calibrate(model, text, found)
    with torch.inference_mode():
        assert same(alone, calibrate(model, text, found))


@pytest.mark.parametrize("gradients", [True, False])
def test_nan_activations_name_layer_window_and_token(gradients):
    model, text = tiny_models.llama(tie_word_embeddings=False), ids() % 250
    text[4, 7] = 255
    with torch.no_grad():
        model.model.embed_tokens.weight[255] = float("nan")
    found = targets(model)
    expected = r"what enters model\.layers\.0\.self_attn\.q_proj holds NaN or Inf in window 4 at token 7"
    with pytest.raises(NonFiniteError, match=expected):
        calibrate(model, text, found, gradients=gradients, batch_rows=48)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_nan_scores_name_window_and_position():
    model, text = tiny_models.llama(tie_word_embeddings=False), ids(2)
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    with pytest.raises(NonFiniteError, match="the model's scores hold NaN or Inf in window 0 at position 0"):
        calibrate(model, text, targets(model))


def test_gradients_that_are_not_finite_name_the_layer():
    model, text = tiny_models.llama(), ids(2)

    class Spoiled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return torch.full_like(g, float("inf"))

    model.model.norm.register_forward_hook(lambda _, __, y: Spoiled.apply(y))
    with pytest.raises(NonFiniteError, match=r"the gradient at what leaves model\.layers\.1\.mlp\.down_proj"):
        calibrate(model, text, targets(model))


def test_too_few_tokens_are_said_once_a_size():
    model = tiny_models.llama()
    found = targets(model)
    assert short_of_tokens(found, calibrate(model, ids(4, 16), found, gradients=False)) == ()
    (said,) = short_of_tokens(found, calibrate(model, ids(3, 16), found, gradients=False))
    assert said.startswith("48 calibration tokens are fewer than the 64 input features of 2 layers, as model.layers.0")


def test_a_layer_that_reads_nothing_is_an_error():
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = nn.ModuleList([nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))])

        def forward(self, x):
            return self.stack[0](x)

    model = Idle()
    text = [{"x": torch.randn(1, 9, 4)}]
    with pytest.raises(InputError, match=r"1 layers read no token of the calibration text, as stack\.1\.0"):
        calibrate(model, text, targets(model))


def test_bad_windows_are_refused():
    model = tiny_models.llama()
    found = targets(model)
    with pytest.raises(ShapeError, match=r"windows \(5,\) must be \(N, T\)"):
        calibrate(model, torch.zeros(5, dtype=torch.int64), found)
    with pytest.raises(DtypeError, match=r"windows are torch\.int32"):
        calibrate(model, ids().int(), found)
    with pytest.raises(InputError, match="no calibration windows"):
        calibrate(model, [], found)
    with pytest.raises(InputError, match="there are no targets"):
        calibrate(model, ids(), ())


def test_a_float16_model_is_refused_for_gradients_only():
    model = tiny_models.llama().half()
    found = targets(model)
    with pytest.raises(DtypeError, match="vanish in float16"):
        calibrate(model, ids(1), found)
    assert calibrate(model, ids(1), found, gradients=False)


def test_an_output_without_scores_or_hidden_states_is_named():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = nn.ModuleList([nn.Sequential(nn.Linear(4, 4))])

        def forward(self, x):
            return {"y": self.stack[0](x)}

    model = Odd()
    with pytest.raises(InputError, match="the model returns dict without logits or last_hidden_state"):
        calibrate(model, [{"x": torch.randn(1, 9, 4)}], targets(model))


def test_layers_of_another_model_are_refused():
    with pytest.raises(InputError, match=r"q_proj is not a layer of this model any more"):
        calibrate(tiny_models.llama(), ids(), targets(tiny_models.llama()))


def test_progress_counts_tokens():
    model, said = tiny_models.llama(), []
    calibrate(model, ids(6, 16), targets(model), batch_rows=32, progress=lambda *one: said.append(one))
    assert said == [("calibration tokens", done, 96) for done in (0, 32, 64, 96)]


class Stopped(Exception):  # noqa: N818 (it stands for Ctrl-C)
    """Raised from the progress callback."""


def stop_at(tokens: int):
    def progress(_: str, done: int, __: int) -> None:
        if done >= tokens:
            raise Stopped

    return progress


@pytest.fixture
def often(monkeypatch):
    """Keep the sums after every batch."""
    monkeypatch.setattr(_calibrate_run, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(_calibrate_run, "SAVE_SHARE", float("inf"))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("shard_bytes", [1, 50_000, 1 << 28])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, shard_bytes):
    monkeypatch.setattr(_moments_store, "SHARD_BYTES", shard_bytes)
    model, text = tiny_models.llama(), ids()
    found = targets(model)
    whole = calibrate(model, text, found, batch_rows=32)
    with pytest.raises(Stopped):
        calibrate(model, text, found, batch_rows=32, store=tmp_path, progress=stop_at(64))
    said = []
    again = calibrate(model, text, found, batch_rows=32, store=tmp_path, progress=lambda *one: said.append(one))
    assert said[0] == ("calibration tokens", 32, 96)  # the progress callback stopped the run before 64 was kept
    assert same(whole, again)


@pytest.mark.usefixtures("often")
def test_a_finished_run_is_read_and_not_made_again(tmp_path, monkeypatch):
    model, text = tiny_models.bert(), ids()
    found = targets(model)
    first = calibrate(model, text, found, store=tmp_path)
    monkeypatch.setattr(_calibrate_run, "forward", None)
    assert same(first, calibrate(model, text, found, store=tmp_path))
    assert len(list(tmp_path.glob("moments-*"))) == 1


CHAIN = """
import os, signal, sys
import torch
from narrows.models import _calibrate_run
from narrows.models._calibrate import calibrate
from narrows.models._match import targets

class Chain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(256, 16)
        self.stack = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh())])

    def forward(self, ids):
        return self.stack[0](self.words(ids))

text = torch.randint(256, (6, 16), generator=torch.Generator().manual_seed(0))
model = Chain()
"""
KILLED = """
_calibrate_run.SAVE_SECONDS, _calibrate_run.SAVE_SHARE = 0.0, float("inf")
kill = lambda what, done, of: os.kill(os.getpid(), signal.SIGKILL) if done == 80 else None
calibrate(model, text, targets(model), batch_rows=16, store=sys.argv[1], progress=kill)
"""


@pytest.mark.usefixtures("often")
def test_a_killed_process_goes_on_to_the_same_bits(tmp_path):
    ended = subprocess.run([sys.executable, "-c", CHAIN + KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    made: dict = {}
    exec(CHAIN, made)  # noqa: S102 (the text above)
    model, text, said = made["model"], made["text"], []
    found = targets(model)
    again = calibrate(model, text, found, batch_rows=16, store=tmp_path, progress=lambda *one: said.append(one))
    assert said[0] == ("calibration tokens", 64, 96)
    assert same(calibrate(model, text, found, batch_rows=16), again)


@pytest.mark.usefixtures("often")
def test_a_failure_while_saving_leaves_the_state_before(tmp_path, monkeypatch):
    model, text = tiny_models.llama(), ids()
    found = targets(model)
    whole = calibrate(model, text, found, batch_rows=32)
    write = _moments_store.write_text_atomic
    calls = []

    def full(*args):
        calls.append(args)
        if len(calls) == 2:
            raise ResourceError("no space")
        write(*args)

    monkeypatch.setattr(_moments_store, "write_text_atomic", full)
    with pytest.raises(ResourceError, match="no space"):
        calibrate(model, text, found, batch_rows=32, store=tmp_path)
    assert json.loads((tmp_path / "moments.json").read_text())["passes"]["0"]["batches"] == 1
    assert same(whole, calibrate(model, text, found, batch_rows=32, store=tmp_path))
    assert len(list(tmp_path.glob("moments-*"))) == 1


def test_the_store_of_another_calibration_says_what_differs(tmp_path):
    model, text = tiny_models.llama(), ids()
    found = targets(model)
    calibrate(model, text, found, store=tmp_path)
    with pytest.raises(FileError, match=r"sums of another calibration; different: seed \(0, now 1\)\."):
        calibrate(model, text, found, store=tmp_path, seed=1)
    with pytest.raises(FileError, match=r"different: text \("):
        calibrate(model, ids(seed=1), found, store=tmp_path)
    with pytest.raises(FileError, match=r"different: layers \("):
        calibrate(model, text, found[:7], store=tmp_path)
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    with pytest.raises(FileError, match=r"different: weights \("):
        calibrate(model, text, found, store=tmp_path)


def test_a_store_in_use_is_waited_for(tmp_path):
    model, text, told = tiny_models.llama(), ids(), []
    with ExitStack() as other:
        other.enter_context(_moments_store.MomentsStore(tmp_path, {}))

        def progress(what, done, of):
            told.append(what)
            other.close()

        calibrate(model, text, targets(model), store=tmp_path, progress=progress)
    assert told[0] == "waiting for another run that calibrates with this store"
    assert told[1].startswith("calibration tokens")


def test_a_damaged_store_is_named(tmp_path):
    model, text = tiny_models.llama(), ids()
    found = targets(model)
    calibrate(model, text, found, store=tmp_path)
    (shard,) = tmp_path.glob("moments-*/*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(FileError, match="is not a complete safetensors file"):
        calibrate(model, text, found, store=tmp_path)
    (tmp_path / "moments.json").write_text("{")
    told = re.escape(f"moments.json is not an index of calibration sums: delete {tmp_path}. (")
    with pytest.raises(FileError, match=told):
        calibrate(model, text, found, store=tmp_path)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("max_bytes", [60_000, 200_000])
def test_several_passes_give_the_same_moments_as_one(tmp_path, max_bytes):
    model, text = tiny_models.llama(), ids()
    found = targets(model)
    groups = shared_inputs(model, found, text[0])
    parts = split_passes(found, groups, gradients=True, max_bytes=max_bytes)
    assert len(parts) > 1
    assert all(moments_bytes(part, groups) <= max_bytes for part in parts)
    said = []
    one = calibrate(model, text, found)
    many = calibrate(model, text, found, store=tmp_path, max_bytes=max_bytes, progress=lambda *x: said.append(x))
    assert len(many) == len(found)
    assert same(one, many)
    assert said[0][0] == f"calibration tokens, pass 1 of {len(parts)}"
    assert said[-1] == (f"calibration tokens, pass {len(parts)} of {len(parts)}", 96, 96)


@pytest.mark.usefixtures("often")
def test_passes_that_were_made_are_not_made_again(tmp_path):
    model, text = tiny_models.bert(), ids()
    found = targets(model)

    def stop_in_second(what: str, done: int, _: int) -> None:
        if what.endswith("2 of 2") and done >= 32:
            raise Stopped

    half = moments_bytes(found, shared_inputs(model, found, text[0])) * 2 // 3
    with pytest.raises(Stopped):
        calibrate(model, text, found, store=tmp_path, max_bytes=half, batch_rows=16, progress=stop_in_second)
    said = []
    many = calibrate(
        model, text, found, store=tmp_path, max_bytes=half, batch_rows=16, progress=lambda *x: said.append(x)
    )
    assert [one for one in said if "pass 1" in one[0]] == [("calibration tokens, pass 1 of 2", 96, 96)]
    assert [one[1] for one in said if "pass 2" in one[0]] == [16, 32, 48, 64, 80, 96]
    assert same(calibrate(model, text, found, batch_rows=16), many)


def test_moments_that_do_not_fit_need_a_store(tmp_path):
    model = tiny_models.llama()
    found = targets(model)
    total = moments_bytes(found, shared_inputs(model, found, ids()[0]))
    with pytest.raises(InputError, match=rf"14 layers take {total} bytes, more than max_bytes=90000: give a store"):
        calibrate(model, ids(), found, max_bytes=90_000)
    with pytest.raises(InputError, match=r"max_bytes=9: the moments of model\.layers\.0\.self_attn\.q_proj alone take"):
        calibrate(model, ids(), found, max_bytes=9, store=tmp_path)


def test_moments_bytes_count_a_shared_input_once():
    model = tiny_models.llama()
    found = targets(model)
    groups = shared_inputs(model, found, ids()[0])
    inputs, outputs = 3 * 32**2 + 64**2, 32**2 * 2 + 16**2 * 2 + 64**2 * 2 + 32**2
    assert moments_bytes(found, groups) == 2 * 8 * (inputs + outputs)
    assert moments_bytes(found, groups, gradients=False) == 2 * 8 * inputs
