"""Folders that strangers made: refused in one line that names them, before anything large is allocated."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest
from transformers import GPTJConfig, GPTJForCausalLM

import tiny_models
from models.compressed import compressed
from narrows.errors import FileError, NarrowsError
from narrows.models import foreseen, load, save
from narrows.models._check_data import read_labelled
from narrows.models._check_inputs import open_tokenizer
from narrows.models._manifest import check_inside, plain_file
from narrows.models._texts import read_documents


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    place = tmp_path_factory.mktemp("kept")
    tiny_models.folder(tiny_models.llama(), place / "dense")
    model, plan = compressed(tiny_models.llama())
    save(model, place / "thin", plan=plan, certificate={}, tokenizer=tiny_models.tokenizer())
    return place


@pytest.fixture
def dense(kept, tmp_path):
    return shutil.copytree(kept / "dense", tmp_path / "dense")


@pytest.fixture
def thin(kept, tmp_path):
    return shutil.copytree(kept / "thin", tmp_path / "thin")


def configured(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def is_one_line(told, folder):
    """Return whether an error is a line that names the folder."""
    text = str(told)
    return str(folder) in text and text.isprintable() and len(text) < 2000


def refused(folder, text, act=load):
    with pytest.raises(FileError, match=text) as told:
        act(folder)
    if not is_one_line(told.value, folder):
        pytest.fail(f"no line with the folder's name: {str(told.value)[:200]!r}")


@pytest.mark.parametrize("text", ["no name", "/here\nis wrong", "/here " + "x" * 2000, "/here \x1b[31m"])
def test_a_message_that_is_no_line_with_the_folders_name_is_seen(text):
    def raising(folder):
        raise FileError(text)

    with pytest.raises(pytest.fail.Exception, match="no line with the folder's name"):
        refused("/here", "name|wrong|here", act=raising)


HUGE = 1 << 62


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_hidden_layers": HUGE}, rf"asks for num_hidden_layers={HUGE}, more than 1024, which its shards could"),
        ({"num_hidden_layers": 1e9}, r"asks for num_hidden_layers=1000000000\.0, more than 1024"),
        ({"text_config": {"n_layer": 5000}}, "asks for n_layer=5000, more than 1024"),
        ({"hidden_size": 1 << 20}, r"has shape \(.*\) in the shards, config\.json asks for"),
        ({"vocab_size": 1 << 33}, r"has shape \(259, 32\) in the shards, config\.json asks for \(8589934592, 32\)"),
        ({"intermediate_size": HUGE}, "could not be loaded by transformers: "),
        ({"rope_parameters": "x"}, "could not be loaded by transformers: "),
        ({"num_attention_heads": 0}, "could not be loaded by transformers: "),
        ({"hidden_act": "x" * 65536}, "could not be loaded by transformers: "),
        ({"architectures": ["x" * 65536]}, "names the architecture 'x{200}[.]{3}', which is no model"),
        ({"architectures": ["__doc__"]}, "names the architecture '__doc__', which is no model"),
        ({"quantization_config": {"quant_method": "\x1b[31m"}}, r"holds a quantised model \( \[31m\)"),
    ],
)
def test_a_configuration_that_no_weights_can_be_of_is_refused(dense, changes, text):
    configured(dense, **changes)

    refused(dense, text)


def test_tables_beside_the_weights_are_no_larger_than_the_weights_allow(tmp_path):
    sizes = {"vocab_size": 64, "n_embd": 32, "n_layer": 1, "n_head": 4, "rotary_dim": 4, "n_positions": 64}
    GPTJForCausalLM(GPTJConfig(**sizes)).save_pretrained(tmp_path / "dense")
    load(tmp_path / "dense")
    configured(tmp_path / "dense", n_positions=1 << 30)

    refused(
        tmp_path / "dense", r"config\.json asks for tables of 17,179,869,\d+ bytes beside the weights, more than 67,"
    )


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors", "notes.txt"])
@pytest.mark.parametrize("which", ["dense", "thin"])
def test_a_link_out_of_a_folder_is_not_followed_whatever_it_is_called(which, name, request, tmp_path):
    folder = request.getfixturevalue(which)
    secret = tmp_path / "secret"
    secret.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)

    refused(folder, f"{name} is a link to .*secret, outside its folder")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("which", ["dense", "thin"])
def test_a_pipe_in_a_folder_is_not_waited_for(which, name, request):
    folder = request.getfixturevalue(which)
    (folder / name).unlink()
    os.mkfifo(folder / name)

    refused(folder, f"{name} is not a regular file")


def test_a_link_that_leads_to_itself_is_told(thin):
    (thin / "config.json").unlink()
    (thin / "config.json").symlink_to("config.json")

    refused(thin, "has no config.json|it has no config.json")
    with pytest.raises(FileError, match="has no config.json"):
        plain_file(thin, "config.json")


def test_links_within_a_folder_and_folders_in_it_are_no_matter(dense):
    (dense / "kept.safetensors").write_bytes((dense / "model.safetensors").read_bytes())
    (dense / "model.safetensors").unlink()
    (dense / "model.safetensors").symlink_to("kept.safetensors")
    (dense / "onnx").mkdir()

    for name in ("model.safetensors", "onnx", "nothing"):
        check_inside(dense, name)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_changed_file_of_a_saved_folder_is_named_before_transformers_reads_it(thin, name):
    (thin / name).write_bytes(b"[" * 100_000)

    refused(thin, rf"{name} is not what narrows\.json says: it was changed after the save")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1, "a": 2}', "\ufeff{}", "9" * 5000])
def test_a_configuration_that_is_no_document_is_named(dense, text):
    (dense / "config.json").write_text(text)

    refused(dense, r"config\.json is not a complete JSON document")


def test_a_generation_configuration_that_is_no_document_is_named(dense):
    (dense / "generation_config.json").write_text("[" * 100_000)

    refused(dense, "could not be loaded by transformers: ")


@pytest.mark.parametrize("text", ["{}", "[" * 100_000, '{"model": 7}', "\ud7ff"])
def test_a_tokenizer_that_is_none_is_named(dense, text):
    (dense / "tokenizer.json").write_text(text)

    refused(dense, "has no tokenizer that transformers reads", act=lambda folder: open_tokenizer(None, folder))


def test_a_dry_run_refuses_the_same_configurations(dense):
    configured(dense, num_hidden_layers=HUGE)
    with pytest.raises(FileError, match="asks for num_hidden_layers"):
        foreseen(dense, None)
    configured(dense, num_hidden_layers=2, rope_parameters="x")
    with pytest.raises(NarrowsError, match="could not be loaded by transformers"):
        foreseen(dense, None)


def test_texts_and_labels_are_regular_files(tmp_path):
    for name, read in (("a.jsonl", read_documents), ("b.txt", read_documents), ("c.jsonl", read_labelled)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(FileError, match=f"{name} is not a regular file"):
            read(tmp_path / name)


def test_a_line_of_deep_brackets_is_named(tmp_path):
    (tmp_path / "labels.jsonl").write_text("[" * 100_000)

    with pytest.raises(FileError, match='labels.jsonl line 1: .* is not an object with "text" and "label"'):
        read_labelled(tmp_path / "labels.jsonl")


def forged(folder, edit):
    """Change the manifest and seal it again, as somebody would who means harm."""
    path = folder / "narrows.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    text = json.dumps({**manifest, "sha256": ""}, indent=1) + "\n"
    seal = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(text.replace('"sha256": ""\n}\n', f'"sha256": "{seal}"\n}}\n'))


def test_what_the_plug_in_finds_wrong_is_told_with_the_folder(thin):
    def edit(manifest):
        layer = next(one for one in manifest["layers"].values() if one["form"] == "low-rank")
        layer["details"]["plan"] = [[]]

    forged(thin, edit)
    refused(thin, "the layer's plan is JSON but not a narrows plan")


@pytest.mark.parametrize("value", ["\x1b[31m", "x" * 65536, "a\nb"])
def test_foreign_text_of_a_manifest_is_shown_on_one_line(thin, value):
    forged(thin, lambda manifest: next(iter(manifest["tensors"].values())).update(dtype=value))

    refused(thin, r"narrows\.json says")
