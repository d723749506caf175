"""Loading: the same bits come back through every door of transformers, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    LlamaForCausalLM,
)

import tiny_models
from models.compressed import MAKERS, compressed, outputs
from narrows.errors import FileError
from narrows.models import load, save, verified
from narrows.models._manifest import MANIFEST, read_manifest, sha256_file
from narrows.nn import LowRankLinear, PivotLinear

SHARDED = {"max_shard_size": "40KB"}
Q = "model.layers.0.self_attn.q_proj"


def saved(maker, folder, *, dtype=None, **options):
    """Save a compressed tiny model; one with another dtype is loaded in it first, as a user's model would be."""
    model = maker()
    if dtype is not None:
        model.save_pretrained(folder / "dense")
        model = type(model).from_pretrained(folder / "dense", dtype=dtype)
    model, plan = compressed(model)
    save(model, folder / "out", plan=plan, certificate={}, tokenizer=tiny_models.tokenizer(), **options)
    return model, folder / "out"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return saved(tiny_models.llama, tmp_path_factory.mktemp("kept"), **SHARDED)


@pytest.fixture
def folder(kept, tmp_path):
    return shutil.copytree(kept[1], tmp_path / "out")


def forge(folder, edit):
    """Change manifest and configuration and seal both again, as somebody would who means harm."""
    manifest, config = (json.loads((folder / name).read_bytes()) for name in (MANIFEST, "config.json"))
    edit(manifest, config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))
    manifest["files"]["config.json"] = sha256_file(folder / "config.json")
    text = json.dumps({**manifest, "sha256": ""}, indent=1) + "\n"
    seal = hashlib.sha256(text.encode()).hexdigest()
    (folder / MANIFEST).write_text(text.replace('"sha256": ""\n}\n', f'"sha256": "{seal}"\n}}\n'))


@pytest.mark.parametrize(
    ("maker", "dtype"),
    [
        *((maker, None) for maker in MAKERS),
        (tiny_models.llama, torch.bfloat16),
        (tiny_models.gpt2, torch.bfloat16),
        (tiny_models.bert, torch.float16),
    ],
    ids=lambda one: getattr(one, "__name__", str(one)),
)
def test_what_was_saved_comes_back_bit_for_bit(maker, dtype, tmp_path):
    model, out = saved(maker, tmp_path, dtype=dtype)
    again = load(out)
    assert torch.equal(outputs(again), outputs(model))
    kinds = {type(module) for module in again.modules()}
    assert {LowRankLinear, PivotLinear} <= kinds
    assert {name: type(module) for name, module in again.named_modules()} == {
        name: type(module) for name, module in model.named_modules()
    }
    assert not again.training
    assert again.dtype == (dtype or torch.float32)
    assert not any(tensor.is_meta for tensor in [*again.parameters(), *again.buffers()])


def test_auto_classes_load_it_without_a_word_about_it(kept, capfd, caplog):
    model, out = kept
    for again in (AutoModelForCausalLM.from_pretrained(out), LlamaForCausalLM.from_pretrained(out)):
        assert torch.equal(outputs(again), outputs(model))
        assert again.lm_head.weight is again.model.embed_tokens.weight
    assert "UNEXPECTED" not in capfd.readouterr().err + caplog.text
    assert (
        AutoTokenizer.from_pretrained(out)("a narrow strait").input_ids
        == tiny_models.tokenizer()("a narrow strait").input_ids
    )


def test_the_base_of_a_model_and_a_model_with_another_head_load_it_too(kept, tmp_path, capfd, caplog):
    model, out = kept
    base = AutoModel.from_pretrained(out)
    assert torch.equal(outputs(base), outputs(model.model))
    encoder, encoder_folder = saved(tiny_models.bert, tmp_path)
    capfd.readouterr()
    caplog.clear()
    classifier = AutoModelForSequenceClassification.from_pretrained(encoder_folder)
    assert torch.equal(outputs(classifier.bert), outputs(encoder))
    report = capfd.readouterr().err + caplog.text
    assert "classifier" in report
    assert "UNEXPECTED" not in report
    without_pooler = BertForMaskedLM.from_pretrained(encoder_folder).bert.encoder.layer[0].attention.self.key
    assert isinstance(without_pooler, PivotLinear)
    assert torch.equal(without_pooler.down.weight, encoder.encoder.layer[0].attention.self.key.down.weight)
    report = capfd.readouterr().err + caplog.text
    assert "pooler.dense.up.weight" in report
    assert "pooler.dense.weight" not in report


def test_another_dtype_is_taken_on_loading(kept):
    again = load(kept[1], dtype=torch.bfloat16, device="cpu")
    layer = again.get_submodule("model.layers.0.self_attn.k_proj")
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert layer.place.dtype == torch.int64
    assert torch.isfinite(outputs(again)).all()


def test_a_loaded_model_generates_saves_and_is_compiled(kept, tmp_path):
    model, out = kept
    again = load(out)
    ids = torch.arange(5)[None]
    made = again.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=258)
    assert torch.equal(made, model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=258))
    save(again, tmp_path / "again", plan=read_manifest(out).plan, certificate={}, **SHARDED)
    assert torch.equal(outputs(load(tmp_path / "again")), outputs(model))


def test_transformers_without_narrows_stops_with_an_error(kept):
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from transformers import AutoModelForCausalLM\n"
        "assert 'narrows.models' not in sys.modules\n"
        f"AutoModelForCausalLM.from_pretrained({str(kept[1])!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ignore_mismatched_sizes" in done.stderr.splitlines()[-1]
    assert "MISMATCH" in done.stderr


def test_a_flipped_bit_anywhere_is_found(folder):
    for name in [MANIFEST, "config.json", "tokenizer.json", *sorted(one.name for one in folder.glob("*.safetensors"))]:
        data = (folder / name).read_bytes()
        last = len(data) - 1
        for at in (len(data) // 2, last) if name.endswith(".safetensors") else (len(data) // 3, len(data) // 2, last):
            (folder / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(FileError, match=name.replace(".", r"\.")):
                verified(folder)
        (folder / name).write_bytes(data)
    verified(folder)


def test_from_pretrained_shows_what_is_wrong_before_a_weight_is_read(folder, monkeypatch):
    shard = min(folder.glob("*.safetensors"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    monkeypatch.setattr(LlamaForCausalLM, "_load_pretrained_model", lambda *_: pytest.fail("a weight was read"))
    for way in (AutoModelForCausalLM.from_pretrained, load):
        with pytest.raises(FileError, match=r"00001-of-.*the content of tensor '.*' is not what was saved \(SHA-256\)"):
            way(folder)


def test_an_adapter_that_was_put_beside_the_weights_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(
        FileError, match=r"out holds an adapter \(adapter_config\.json\): keep it in a folder of its own"
    ):
        load(folder)


def test_layers_may_be_put_on_a_disk(kept, tmp_path):
    parts = ("model.embed_tokens", "lm_head", "model.norm", "model.rotary_emb", "model.layers.0")
    places = dict.fromkeys(parts, "cpu") | {"model.layers.1": "disk"}
    again = AutoModelForCausalLM.from_pretrained(kept[1], device_map=places, offload_folder=tmp_path / "disk")
    assert torch.equal(outputs(again), outputs(kept[0]))


def test_swapped_shards_are_found(folder):
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    first.rename(folder / "x")
    second.rename(first)
    (folder / "x").rename(second)
    with pytest.raises(FileError, match=r"00001-of-00003\.safetensors lacks the tensor 'model\.embed_tokens\.weight'"):
        load(folder)


@pytest.mark.parametrize("name", ["model-00002-of-00003.safetensors", "tokenizer.json", MANIFEST])
def test_a_missing_file_is_named(folder, name):
    names = {one.name for one in folder.iterdir()}
    assert name in names, names
    (folder / name).unlink()
    with pytest.raises(FileError, match=name):
        load(folder)


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(folder, tmp_path):
    shard = min(folder.glob("*.safetensors"))
    shard.rename(folder / "renamed")
    shard.symlink_to("renamed")
    load(folder)
    (folder / "renamed").rename(tmp_path / "elsewhere")
    shard.unlink()
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="is a link to .*elsewhere, outside its folder"):
        load(folder)


def test_a_folder_of_links_into_the_blobs_of_a_hub_cache_loads(kept, tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "revision", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in kept[1].iterdir():
        shutil.copy(file, blobs / f"blob-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/blob-{file.name}")
    assert torch.equal(outputs(load(snapshot)), outputs(kept[0]))


@pytest.mark.parametrize("name", ["../out/model.safetensors", "/etc/passwd", "..", "a\\b", "a\0b", ""])
def test_a_shard_name_that_leaves_the_folder_is_refused(folder, name):
    forge(folder, lambda manifest, _: next(iter(manifest["tensors"].values())).update(file=name))
    with pytest.raises(
        FileError, match=r"narrows\.json names the file .*: only plain names inside the folder are read"
    ):
        load(folder)


def test_an_index_that_points_elsewhere_is_refused(folder):
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    shutil.copy(folder / content["weight_map"]["model.norm.weight"], folder.parent / "x.safetensors")
    content["weight_map"]["model.norm.weight"] = "../x.safetensors"
    index.write_text(json.dumps(content))
    texts = {
        load: r"model\.safetensors\.index\.json is not what narrows\.json says",
        AutoModelForCausalLM.from_pretrained: r"would read .*out/\.\./x\.safetensors, which is not in the folder",
    }
    for way, text in texts.items():
        with pytest.raises(FileError, match=text):
            way(folder)


def test_an_index_that_names_another_file_of_the_folder_is_refused(folder):
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = dict.fromkeys(content["weight_map"], "model-00001-of-00003.safetensors")
    index.write_text(json.dumps(content))
    with pytest.raises(FileError, match=r"index\.json is not what narrows\.json says: it was changed after the save"):
        load(folder)
    forge(folder, lambda manifest, _: manifest["files"].update({index.name: sha256_file(index)}))
    with pytest.raises(FileError, match=r"other files than those of .*narrows\.json, such as .*00002-of-00003"):
        load(folder)


def test_a_pipe_in_the_place_of_a_shard_is_not_opened(folder):
    shard = min(folder.glob("*.safetensors"))
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(FileError, match="00001-of-.* is not a regular file"):
        verified(folder)


def test_a_newer_manifest_a_newer_format_and_an_unknown_form_say_what_to_install(folder):
    before = {name: (folder / name).read_bytes() for name in ("config.json", MANIFEST)}

    def restore():
        for name, data in before.items():
            (folder / name).write_bytes(data)

    forge(folder, lambda _, config: config.update(format=2))
    with pytest.raises(FileError, match=r"saved in format 2 of narrows; this version reads up to 1\. Update narrows"):
        load(folder)
    restore()
    forge(folder, lambda manifest, _: manifest.update(schema=2))
    with pytest.raises(FileError, match=r"has schema 2; this version of narrows reads up to 1\. Update narrows"):
        load(folder)
    restore()
    forge(folder, lambda manifest, _: (manifest.update(version="9.1"), manifest["layers"][Q].update(form="heads")))
    with pytest.raises(FileError, match=r"q_proj has the form 'heads', .*pivot.*\)\. Install narrows 9\.1 or"):
        load(folder)


def renamed(manifest, config):
    for layers in (manifest["layers"], config["layers"]):
        layers["model.layers.7.mlp.up_proj"] = layers.pop(Q)


def smaller(manifest, config):
    for layers in (manifest["layers"], config["layers"]):
        layers[Q]["rank"] = 15


def larger(manifest, config):
    for layers in (manifest["layers"], config["layers"]):
        layers[Q]["rank"] = 10**9


def other_form(manifest, config):
    for layers in (manifest["layers"], config["layers"]):
        layers[Q]["form"] = "pivot"


def only_one(manifest, config):
    config["layers"].pop(Q)


def no_layers(manifest, config):
    manifest["layers"].clear()
    config["layers"].clear()


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (renamed, r"LlamaForCausalLM has no layer 'model\.layers\.7\.mlp\.up_proj', which narrows\.json lists"),
        (smaller, r"q_proj\.down\.weight has shape \(16, 32\), but low-rank with rank 15 needs \(15, 32\)"),
        (larger, r"q_proj cannot be low-rank with rank 1000000000: rank=1000000000 is outside 1\.\.32"),
        (other_form, r"q_proj\.up\.weight has shape \(32, 16\), but pivot with rank 16 needs \(16, 16\)"),
        (only_one, r"the layers of the configuration are not those of narrows\.json"),
        (no_layers, r"ignore_mismatched_sizes|has shape \(0,\) in the folder, the model needs"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_sealed_lie_about_layers_does_not_load(folder, edit, text):
    forge(folder, edit)
    with pytest.raises(FileError, match=text):
        load(folder)


def test_a_configuration_that_forgot_the_compression_does_not_load(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileError, match=r"config\.json is not what narrows\.json says"):
        load(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["config.json"] = sha256_file(folder / "config.json")
    text = json.dumps({**manifest, "sha256": ""}, indent=1) + "\n"
    seal = hashlib.sha256(text.encode()).hexdigest()
    (folder / MANIFEST).write_text(text.replace('"sha256": ""\n}\n', f'"sha256": "{seal}"\n}}\n'))
    with pytest.raises(FileError, match=r"does not say that narrows compressed this model, narrows\.json does"):
        load(folder)


def test_places_that_are_no_permutation_are_refused(tmp_path):
    model, plan = compressed(tiny_models.llama())
    layer = model.get_submodule("model.layers.0.self_attn.k_proj")
    layer.place[0] = layer.place[1]
    save(model, tmp_path / "out", plan=plan, certificate={})
    with pytest.raises(
        FileError, match=r"the places of features are no permutation: order \(16,\) is not a permutation"
    ):
        load(tmp_path / "out")
