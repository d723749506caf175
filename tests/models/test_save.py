"""A compressed model's folder: what is in it, and what a failing save leaves."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

import tiny_models
from models.compressed import compressed, outputs, planned
from narrows.errors import FileError, InputError, ResourceError
from narrows.models import _save, check_output, densify, load, save, verified
from narrows.models._manifest import read_manifest

UP = "model.layers.0.mlp.up_proj"
CERTIFICATE = {"perplexity": {"dense": 23.4, "narrows": 24.1}, "machine": "a CPU", "windows": 64, "seeds": [0, 1]}


@pytest.fixture
def saved(tmp_path):
    model, plan = compressed(tiny_models.llama())
    source = tiny_models.folder(tiny_models.llama(), tmp_path / "source")
    save(
        model,
        tmp_path / "out",
        plan=plan,
        certificate=CERTIFICATE,
        source=str(source),
        tokenizer=tiny_models.tokenizer(),
    )
    return tmp_path / "out"


def tensors(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return found


def test_the_folder_is_that_of_transformers_with_a_manifest_and_a_card(saved):
    assert sorted(one.name for one in saved.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "narrows.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((saved / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["quantization_config"]["quant_method"] == "narrows"
    assert config["quantization_config"]["format"] == 1
    assert config["quantization_config"]["layers"]["model.layers.0.self_attn.q_proj"] == {
        "form": "low-rank",
        "rank": 16,
    }
    assert config["quantization_config"]["layers"]["model.layers.0.self_attn.k_proj"] == {"form": "pivot", "rank": 8}


def test_every_replaced_weight_is_there_without_elements_and_tied_ones_once(saved):
    held = tensors(saved)
    layers = read_manifest(saved).layers
    assert len(layers) == 10
    assert {name for name, tensor in held.items() if not tensor.numel()} == {f"{name}.weight" for name in layers}
    assert held["model.layers.0.self_attn.q_proj.down.weight"].shape == (16, 32)
    assert "lm_head.weight" not in held


def test_the_manifest_tells_layers_plan_certificate_source_and_digests(saved):
    manifest = read_manifest(saved)
    assert manifest.layers["model.layers.0.self_attn.q_proj"].details == {"is_ordered": True, "plan": None}
    assert manifest.plan == compressed(tiny_models.llama())[1]
    assert manifest.certificate == CERTIFICATE
    assert manifest.source.name == "source"
    assert len(manifest.source.sha256) == 64
    assert manifest.architecture == "LlamaForCausalLM"
    assert manifest.tensors.keys() == tensors(saved).keys()
    assert manifest.files["tokenizer.json"] == hashlib.sha256((saved / "tokenizer.json").read_bytes()).hexdigest()
    assert set(manifest.files) == {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert verified(saved) == manifest


def test_the_card_says_what_was_done_measured_and_how_to_load(saved):
    text = (saved / "README.md").read_text()
    for part in (
        'base_model: "source"',
        "| layers replaced | 5 low-rank, 5 pivot, of 14 in the plan |",
        "- perplexity:\n  - dense: 23.4\n  - narrows: 24.1",
        "- machine: a CPU",
        'narrows.models.load("FOLDER")',
        "transformers stops with an error about mismatched sizes",
    ):
        assert part in text


def test_a_name_in_the_card_is_text_and_nothing_else(tmp_path):
    model, plan = compressed(tiny_models.llama())
    name = 'a"\nevil: true <script>|`\x1b[31m'
    save(model, tmp_path / "out", plan=plan, certificate={name: name}, source=name)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "\nevil" not in text


def test_shards_and_an_index_where_the_model_is_larger_than_one_shard(tmp_path):
    model, plan = compressed(tiny_models.qwen2())
    save(model, tmp_path / "out", plan=plan, certificate={}, max_shard_size="40KB")
    names = sorted(one.name for one in (tmp_path / "out").glob("*.safetensors"))
    assert len(names) > 2
    assert "model.safetensors.index.json" in read_manifest(tmp_path / "out").files
    assert {one.file for one in verified(tmp_path / "out").tensors.values()} == set(names)


def test_saving_twice_gives_the_same_bytes_and_replaces_the_previous_folder(saved, tmp_path):
    model = load(saved)
    manifest = read_manifest(saved)
    again = {"plan": manifest.plan, "certificate": CERTIFICATE, "source": str(tmp_path / "source")}
    before = {one.name: one.read_bytes() for one in saved.iterdir()}
    save(model, saved, **again, tokenizer=tiny_models.tokenizer())
    assert {one.name: one.read_bytes() for one in saved.iterdir()} == before
    save(model, saved, **again)
    assert not (saved / "tokenizer.json").exists()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "source"]


def test_a_model_that_stayed_dense_is_an_ordinary_folder_with_a_manifest(tmp_path):
    model, plan = compressed(tiny_models.llama(), ("dense",))
    save(model, tmp_path / "out", plan=plan, certificate={})
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert verified(tmp_path / "out").layers == {}
    assert "loads this folder without narrows too" in (tmp_path / "out" / "README.md").read_text()
    assert torch.equal(outputs(load(tmp_path / "out")), outputs(model))


def test_what_comes_after_densify_is_saved_dense(saved, tmp_path):
    model = densify(load(saved))
    save(model, tmp_path / "dense", plan=read_manifest(saved).plan, certificate={})
    assert verified(tmp_path / "dense").layers == {}


def test_a_folder_with_anything_but_a_model_is_not_replaced(saved, tmp_path):
    model, plan = compressed(tiny_models.llama())
    (saved / "notes.txt").write_text("mine")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    (tmp_path / "source" / "runs").mkdir()
    (tmp_path / "file").write_text("x")
    for folder, text in (
        (saved, r"out holds notes\.txt, not only a model: it will not be replaced"),
        (mine, r"mine holds thesis\.txt, not only a model"),
        (tmp_path / "source", "source holds runs, not only a model"),
        (tmp_path / "file", "file is not a folder"),
        (tmp_path / "no" / "out", r"the folder .*no does not exist\. Make it first"),
    ):
        with pytest.raises(FileError, match=text):
            save(model, folder, plan=plan, certificate={})
        with pytest.raises(FileError, match=text):
            check_output(folder)
    assert (mine / "thesis.txt").read_text() == "mine"


def test_an_empty_folder_and_a_models_folder_are_replaced(tmp_path):
    model, plan = compressed(tiny_models.llama())
    (tmp_path / "empty").mkdir()
    tiny_models.folder(tiny_models.llama(), tmp_path / "dense")
    tiny_models.folder(tiny_models.llama(), tmp_path / "broken")
    (tmp_path / "broken" / "narrows.json").write_text("{")
    for name in ("empty", "dense", "broken", "new"):
        check_output(tmp_path / name)
        save(model, tmp_path / name, plan=plan, certificate={})
        assert verified(tmp_path / name).layers


def test_a_full_disk_leaves_the_previous_folder(saved, tmp_path):
    before = {one.name: one.read_bytes() for one in saved.iterdir()}
    model, plan = compressed(tiny_models.llama())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(ResourceError, match=r"out was not written: File too large\. Free some space"):
            save(model, saved, plan=plan, certificate={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {one.name: one.read_bytes() for one in saved.iterdir()} == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "source"]
    save(model, saved, plan=plan, certificate={})


def test_too_little_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    model, plan = compressed(tiny_models.llama())
    monkeypatch.setattr(_save.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(ResourceError, match=r"out needs 0\.00 GB and 0\.00 GB are free"):
        save(model, tmp_path / "out", plan=plan, certificate={})
    assert not list(tmp_path.iterdir())


def test_a_kill_while_saving_leaves_the_previous_folder_and_the_next_save_cleans_up(saved, tmp_path):
    code = (
        "import os, signal, sys; sys.path.insert(0, 'tests')\n"
        "import tiny_models\n"
        "from models.compressed import compressed\n"
        "from narrows.models import _save, save\n"
        "_save.card = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "model, plan = compressed(tiny_models.llama())\n"
        f"save(model, {str(saved)!r}, plan=plan, certificate={{}})\n"
    )
    before = {one.name: one.read_bytes() for one in saved.iterdir()}
    killed = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, capture_output=True)
    assert killed.returncode == -9
    assert {one.name: one.read_bytes() for one in saved.iterdir()} == before
    assert len(list(tmp_path.glob(".out.*"))) == 1
    model, plan = compressed(tiny_models.llama())
    save(model, saved, plan=plan, certificate={})
    assert not list(tmp_path.glob(".out.*"))


def test_models_that_cannot_be_saved_are_refused(tmp_path):
    model, plan = compressed(tiny_models.llama())
    certificate: dict[str, object] = {"ppl": float("nan")}
    with pytest.raises(InputError, match=r"certificate: Out of range float values .* Give plain finite numbers"):
        save(model, tmp_path / "out", plan=plan, certificate=certificate)
    with pytest.raises(InputError, match="certificate: .*Tensor is not JSON serializable"):
        save(model, tmp_path / "out", plan=plan, certificate={"ppl": torch.ones(1)})
    with pytest.raises(InputError, match="a Linear is not a model of transformers"):
        save(torch.nn.Linear(2, 2), tmp_path / "out", plan=plan, certificate={})
    layer = model.get_submodule("model.layers.0.self_attn.q_proj")
    layer.up = torch.nn.Sequential(layer.up)
    with pytest.raises(InputError, match=r"q_proj\.up is Sequential: merge or remove the adapter"):
        save(model, tmp_path / "out", plan=plan, certificate={})
    model, plan = compressed(tiny_models.llama())
    model.model.norm.to("meta")
    with pytest.raises(InputError, match=r"model\.norm\.weight is on the meta device"):
        save(model, tmp_path / "out", plan=plan, certificate={})
    assert not list(tmp_path.iterdir())


def test_a_plan_by_tokens_and_the_order_of_factors_come_back(tmp_path):
    from nn.plans import plan as token_plan

    model, plan = compressed(tiny_models.llama(), ("low-rank",))
    first, second = (model.get_submodule(f"model.layers.{i}.mlp.up_proj") for i in (0, 1))
    first.plan = token_plan({(1, 64): 4}, in_features=32, out_features=64)
    with torch.no_grad():
        second.down.weight.mul_(2)
    save(model, tmp_path / "out", plan=plan, certificate={})
    again = load(tmp_path / "out")
    assert again.get_submodule("model.layers.0.mlp.up_proj").plan == first.plan
    assert again.get_submodule("model.layers.0.mlp.up_proj").is_ordered
    assert not again.get_submodule("model.layers.1.mlp.up_proj").is_ordered
    assert torch.equal(outputs(again), outputs(model))


def test_planning_alone_leaves_the_model_as_it_is(tmp_path):
    model = tiny_models.llama()
    before = outputs(model)
    planned(model)
    assert torch.equal(outputs(model), before)
