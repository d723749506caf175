"""Narrow attention as a user has it: from text in one call, as a folder that loads bit by bit, and back to dense."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

import narrows
import tiny_models
from models.test_families import HALF, MAKERS, NORMED, by_name, inputs, mpnet, out, spread
from models.test_load import forge
from narrows.errors import FileError, InputError, RankError
from narrows.models import densify, verified
from narrows.models._attention import attention_layers
from narrows.models._attention_module import ModelAttention

QUICK = narrows.Recipe(context=64, calibration_tokens=1024, selection_tokens=1024)
TEXTS = tiny_models.texts(12, 200)
IMAGES = (tiny_models.vit,)


def given(model, maker):
    """Return what calibrates: text, or images."""
    if maker in IMAGES:
        return {"inputs": [inputs(model, seed=seed) for seed in range(4)]}
    return {"documents": TEXTS, "tokenizer": tiny_models.tokenizer(), "recipe": QUICK}


def narrowed(maker, widths=HALF):
    model = spread(maker())
    return model, narrows.narrow_attention_(model, widths, **given(model, maker))


def saved(maker, folder, **options):
    model, done = narrowed(maker)
    tokenizer = tiny_models.tokenizer()
    narrows.save(model, folder, plan=None, certificate=done.certificate, tokenizer=tokenizer, **options)
    return model, done


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "out"
    return saved(tiny_models.llama, folder)[0], folder


@pytest.mark.parametrize("maker", MAKERS, ids=by_name)
def test_one_call_narrows_and_the_folder_comes_back_bit_by_bit(maker, tmp_path):
    model, done = saved(maker, tmp_path / "out")
    assert done.changed == 2
    again = narrows.load(tmp_path / "out")
    assert torch.equal(out(again), out(model))
    assert sum(type(module) is ModelAttention for module in again.modules()) == 2
    for (_, mine), (_, other) in zip(attention_layers(model), attention_layers(again), strict=True):
        assert (mine.query_key_width, mine.value_width, mine.scale) == (
            other.query_key_width,
            other.value_width,
            other.scale,
        )
    assert not any(tensor.is_meta for tensor in [*again.parameters(), *again.buffers()])


@pytest.mark.parametrize("maker", MAKERS, ids=by_name)
def test_a_loaded_model_becomes_an_ordinary_one_again(maker, tmp_path):
    model, _ = saved(maker, tmp_path / "out")
    expected = out(model)
    plain = densify(narrows.load(tmp_path / "out"))
    assert not any(isinstance(module, ModelAttention) for module in plain.modules())
    assert torch.allclose(out(plain), expected, atol=2e-5)
    plain.save_pretrained(tmp_path / "plain")
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    assert torch.equal(out(type(plain).from_pretrained(tmp_path / "plain")), out(plain))


def test_weights_that_were_frozen_are_so_in_the_dense_model_too():
    model, _ = narrowed(tiny_models.llama)
    layer = model.get_submodule("model.layers.1.self_attn")
    layer.k_proj.requires_grad_(False)
    attention = densify(model).get_submodule("model.layers.1.self_attn")
    assert not attention.k_proj.weight.requires_grad
    assert attention.q_proj.weight.requires_grad


def test_auto_classes_load_it_in_another_dtype_too_and_it_generates(kept):
    model, folder = kept
    ids = torch.arange(5)[None]
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 258, "eos_token_id": None}
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(again.generate(ids, **settings), model.generate(ids, **settings))
    assert torch.equal(out(AutoModel.from_pretrained(folder)), out(model.model))
    half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    layer = half.get_submodule("model.layers.0.self_attn")
    assert (layer.q_proj.weight.dtype, layer.pairs.dtype) == (torch.bfloat16, torch.int64)
    assert torch.isfinite(out(half)).all()


def test_a_folder_that_was_loaded_is_saved_again(kept, tmp_path):
    model, folder = kept
    narrows.save(narrows.load(folder), tmp_path / "again", plan=None, certificate={})
    assert torch.equal(out(narrows.load(tmp_path / "again")), out(model))


def test_transformers_without_narrows_stops_with_an_error(kept):
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from transformers import AutoModelForCausalLM\n"
        f"AutoModelForCausalLM.from_pretrained({str(kept[1])!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "MISMATCH" in done.stderr


def test_the_manifest_tells_text_errors_and_reasons(tmp_path):
    saved(tiny_models.qwen3, tmp_path / "out")
    manifest = verified(tmp_path / "out")
    assert manifest.plan is None
    assert manifest.layers["model.layers.0.self_attn"].details == {"family": "llama", "value_width": 4}
    told = manifest.certificate
    assert told["recipe"] == {
        "calibration_tokens": 1024,
        "context": 64,
        "seed": 0,
        "autocast": None,
        "rotary_context": 2048,
    }
    one = told["attention"]["model.layers.1.self_attn"]
    assert 0 < one["value_error"] < 1
    assert "query_key_error" not in one
    assert "q_norm and k_norm" in one["reason"]
    assert told["texts"]["seed"] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| layers replaced | 2 attention |" in card


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda layer: layer["details"].update(family="bert"), "is not attention of the family 'bert'"),
        (lambda layer: layer["details"].update(value_width="4"), "value_width|width='4' must be a whole number"),
        (lambda layer: layer["details"].pop("value_width"), "width=None must be a whole number within 1..8"),
        (lambda layer: layer["details"].update(value_width=6), "needs \\(12, 32\\)"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(kept, tmp_path, edit, text):
    folder = shutil.copytree(kept[1], tmp_path / "out")
    name = "model.layers.0.self_attn"
    forge(folder, lambda manifest, _: edit(manifest["layers"][name]))
    with pytest.raises(FileError, match=text):
        narrows.load(folder)


def test_a_wrong_width_is_said_before_anything_is_read():
    model = tiny_models.llama()
    for widths, text in (
        (narrows.AttentionWidths(query_key=3), r"query_key=3 must be a whole number within 2\.\.8"),
        (narrows.AttentionWidths(value=9), r"value=9 must be a whole number within 1\.\.8"),
    ):
        with pytest.raises(RankError, match=text):
            narrows.narrow_attention_(model, widths, documents=["short"], tokenizer=tiny_models.tokenizer())
    with pytest.raises(InputError, match=r"model\.layers\.9\.self_attn"):
        narrows.narrow_attention_(
            model, {"model.layers.9.self_attn": HALF}, documents=TEXTS, tokenizer=tiny_models.tokenizer()
        )
    assert not any(isinstance(module, ModelAttention) for module in model.modules())


@pytest.mark.parametrize(
    ("widths", "text"),
    [
        (4, r"widths of model\.layers\.0\.self_attn are 4: give AttentionWidths with query_key, value, or both"),
        (narrows.AttentionWidths(), r"are AttentionWidths\(query_key=None, value=None\): give"),
        ({"model.layers.1.self_attn": {"value": 4}}, r"widths of model\.layers\.1\.self_attn are \{'value': 4\}: give"),
    ],
)
def test_widths_that_ask_for_nothing_are_refused(widths, text):
    with pytest.raises(InputError, match=text):
        narrows.narrow_attention_(tiny_models.llama(), widths, **given(None, tiny_models.llama))


def test_a_model_without_attention_and_a_context_without_tokens_are_refused():
    text = given(None, tiny_models.llama)
    with pytest.raises(InputError, match="Sequential has no attention"):
        narrows.narrow_attention_(torch.nn.Sequential(torch.nn.Linear(4, 4)), HALF, **text)
    with pytest.raises(InputError, match="rotary_context=0 must be at least 1 token"):
        narrows.narrow_attention_(tiny_models.llama(), HALF, rotary_context=0, **text)


def test_attention_that_is_not_known_is_listed_and_nothing_is_read():
    from transformers import FalconConfig, FalconForCausalLM

    model = FalconForCausalLM(FalconConfig(vocab_size=259, hidden_size=32, num_hidden_layers=2, num_attention_heads=4))
    done = narrows.narrow_attention_(model, HALF, documents=["short"], tokenizer=tiny_models.tokenizer())
    assert done.changed == 0
    assert [layer.reason for layer in done.layers] == ["its family is not known"] * 2
    assert "stays as it is (its family is not known)" in str(done)


def test_a_model_that_is_narrow_already_is_not_narrowed_or_compressed_again():
    model, _ = narrowed(tiny_models.llama)
    with pytest.raises(InputError, match="already quantised or compressed"):
        narrows.compress_(model, narrows.ModelBudget(keep=0.9), **given(model, tiny_models.llama))
    again = narrows.narrow_attention_(model, HALF, **given(model, tiny_models.llama))
    assert [layer.reason for layer in again.layers] == ["narrow already"] * 2


def test_too_little_text_is_noted():
    model = tiny_models.llama()
    few = [inputs(model, length=8, batch=1)]
    done = narrows.narrow_attention_(model, HALF, inputs=few)
    assert done.changed == 2
    assert "note: 8 calibration tokens are fewer than the 32 input features of 4 layers" in str(done)


def test_neither_text_nor_inputs_is_refused():
    with pytest.raises(InputError, match="give documents with their tokenizer, or inputs"):
        narrows.narrow_attention_(tiny_models.bert(), HALF)


def test_short_inputs_with_padding_count_their_own_tokens_only():
    model, tokenizer = spread(tiny_models.bert()), tiny_models.tokenizer()
    words = ["strait", "sea", "a", "harbour"]
    padded = [dict(tokenizer(words, padding=True, return_tensors="pt"))]
    alone = [dict(tokenizer([word], return_tensors="pt")) for word in words]
    errors = [
        [layer.query_key_error for layer in narrows.narrow_attention_(one, HALF, inputs=texts).layers]
        for one, texts in ((spread(tiny_models.bert()), padded), (model, alone))
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


def test_a_run_that_was_stopped_goes_on(tmp_path):
    texts = given(None, tiny_models.llama)
    first, second = spread(tiny_models.llama()), spread(tiny_models.llama())
    narrows.narrow_attention_(first, HALF, store=tmp_path / "work", **texts)
    told = []
    narrows.narrow_attention_(second, HALF, store=tmp_path / "work", progress=lambda *one: told.append(one), **texts)
    assert [one for one in told if one[0] != "attention"] == [("calibration tokens", 1024, 1024)]
    assert torch.equal(out(first), out(second))


@pytest.mark.parametrize("maker", [maker for maker in MAKERS if maker not in (*NORMED, mpnet)], ids=by_name)
def test_the_summary_prints_every_attention(maker):
    _, done = narrowed(maker)
    lines = str(done).splitlines()
    assert lines[0] == "2 of 2 attentions narrowed; a cache keeps 50.0% of its bytes"
    assert len(lines) == 3 + len(done.notes)
