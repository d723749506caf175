"""Texts of errors that take no whole run to reach: what was asked for, the values seen, what to do."""

from __future__ import annotations

import json
import os
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import tiny_models
from narrows._values import LayerChoice, LayerOption, ModelBudget, ModelPlan, Moments
from narrows.errors import DeviceError, FileError, InputError, NonFiniteError, ShapeError
from narrows.models import (
    _attention,
    _manifest,
    _moments_index,
    _perplexity,
    _plausible,
    _quantizer,
    _reading,
    _save,
    _speed,
    _texts,
)
from narrows.models import _texts_windows as _windows
from narrows.models._anchor_blocks import Chain
from narrows.models._apply import apply_
from narrows.models._calibrate import calibrate
from narrows.models._calibrate_sums import labels_weight
from narrows.models._match import targets


class Block(nn.Module):
    """A block that gives back what `change` makes of its hidden states."""

    def __init__(self, change):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.change = change

    def forward(self, hidden_states, *, other=None):
        return self.change(hidden_states)


class Blocks(nn.Module):
    def __init__(self, change, *, gives=lambda x: x):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.blocks = nn.ModuleList([Block(change), Block(change)])
        self.gives = gives

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for block in self.blocks:
            hidden = block(self.gives(hidden))
        return hidden


def chain(model):
    named = [(f"blocks.{i}", block) for i, block in enumerate(model.blocks)]
    return Chain.of(model, named, torch.ones(2, 3, dtype=torch.int64), None)


def test_a_block_that_is_given_no_hidden_states_cannot_be_anchored():
    model = Blocks(lambda x: x["x"], gives=lambda x: {"x": x if isinstance(x, torch.Tensor) else x["x"]})
    with pytest.raises(InputError, match=r"a block is given no hidden states first: it cannot be anchored\. Fit each"):
        chain(model)


def test_a_block_that_gives_no_hidden_states_cannot_be_anchored():
    model = Blocks(lambda x: x.mean(-1, keepdim=True).expand(*x.shape[:-1], 4)[..., :3].repeat(1, 1, 2)[..., :4])
    model.blocks[0].change = lambda x: nn.functional.pad(x, (0, 1))[..., :5]
    model.blocks[1].change = lambda x: x[..., :4]
    with pytest.raises(InputError, match=r"blocks\.0 gives no hidden states back: it cannot be anchored\. Fit each"):
        chain(model)


def test_a_calibration_window_without_a_batch_dimension_shows_its_sizes():
    model = tiny_models.llama()
    with pytest.raises(ShapeError, match=r"calibration window 0 has \{'input_ids': \(\)\}: tensors with a leading bat"):
        calibrate(model, [{"input_ids": torch.tensor(3)}], targets(model))


def test_moments_are_not_made_on_a_device_without_float64(monkeypatch):
    model = tiny_models.llama()
    found = targets(model)
    monkeypatch.setattr(nn.Module, "parameters", lambda _: iter([SimpleNamespace(device=torch.device("mps"))]))
    with pytest.raises(DeviceError, match="sums are float64, which the device mps lacks: move the model to the CPU"):
        calibrate(model, torch.ones(2, 8, dtype=torch.int64), found)


def test_layers_that_do_not_reach_the_output_have_no_gradients():
    model = tiny_models.llama()
    found = targets(model)
    model.model.norm.register_forward_hook(lambda _, __, output: output.detach())
    with pytest.raises(InputError, match="no target reaches the model's output: gradients are not known there"):
        calibrate(model, torch.ones(2, 8, dtype=torch.int64), found)


def test_hidden_states_that_are_all_alike_weigh_nothing():
    alike = torch.ones(1, 4, dtype=torch.float64)
    with pytest.raises(InputError, match=r"of 3 positions do not differ \(variance 0\): calibrate on more text"):
        labels_weight(3, 3 * alike, (3 * alike).sum().reshape(1, 1))


def test_a_plan_for_another_model_says_so():
    dense = LayerOption("dense", None, 64, 256, 0.0)
    one = LayerChoice("model.layers.7.mlp.up_proj", 8, 8, dense, dense, "")
    plan = ModelPlan((one,), ModelBudget(keep=0.5), (), "float32", "plain", None, "", "", "0")
    with pytest.raises(InputError, match=r"model\.layers\.7\.mlp\.up_proj.*The plan is for another model\."):
        apply_(tiny_models.llama(), plan, {})


def test_rotary_attention_without_frequencies_is_refused():
    dense = SimpleNamespace(
        query=SimpleNamespace(weight=torch.randn(4, 4), bias=None),
        key=SimpleNamespace(weight=torch.randn(4, 4), bias=None),
        heads=1,
        groups=1,
        pairs=torch.zeros(1, 2, dtype=torch.int64),
    )
    moments = Moments(torch.eye(4).double(), torch.zeros(4).double(), None, 5)
    with pytest.raises(InputError, match=r"rotary positions, but no module of it holds their frequencies \(inv_freq\)"):
        _attention._scores(dense, moments, 2, None, 16)


def test_a_mean_loss_beyond_any_number_shows_it():
    with pytest.raises(NonFiniteError, match="M has a mean loss of 800 nats a token: its perplexity is no finite numb"):
        _perplexity._perplexity("M", torch.full((2, 3), 800.0, dtype=torch.float64))


def test_an_unknown_entry_of_the_configuration_is_named():
    with pytest.raises(FileError, match="quantization_config of the model has the unknown entry 'bits'"):
        _quantizer.NarrowsConfig(bits=4)


def test_a_state_dict_is_no_folder():
    with pytest.raises(FileError, match="is read from a folder, not from a state dict: its manifest lies there"):
        _reading.verified_files("m", None)


def test_an_output_beside_which_nothing_can_be_written_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    text = f"{tmp_path / 'out'} was not written: no permission in {tmp_path}. Give another path."
    with pytest.raises(FileError, match=re.escape(text)):
        _save.check_output(tmp_path / "out")


def test_a_model_with_adapters_is_not_saved():
    model = tiny_models.llama()
    model._hf_peft_config_loaded = True
    with pytest.raises(InputError, match="the model carries adapters: merge them into it, or save them by themselves"):
        _save._checked(model)


def test_code_from_a_hub_is_not_saved(monkeypatch):
    model = tiny_models.llama()
    monkeypatch.setattr(type(model), "is_remote_code", lambda _: True)
    with pytest.raises(InputError, match="LlamaForCausalLM is code from a hub, which narrows neither writes nor runs"):
        _save._checked(model)


def test_a_cache_that_holds_no_keys_and_values_is_named():
    class Recurrent(nn.Module):
        def forward(self, input_ids, *, use_cache):
            return SimpleNamespace(past_key_values={"state": input_ids})

    with pytest.raises(InputError, match="decode: the cache of Recurrent is dict, not one of keys and values"):
        _speed._Decode(Recurrent(), torch.ones(1, 3, dtype=torch.int64))


def test_a_folder_without_texts_is_named(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"the folder {tmp_path} holds no .txt or .jsonl file.")):
        _texts.read_documents(tmp_path)


def test_a_tokenizer_that_merges_its_marks_with_the_text_is_refused():
    def tokenizer(text, *, add_special_tokens=True, verbose=True):
        return {"input_ids": [7, 8] if add_special_tokens else [5, 6]}

    with pytest.raises(InputError, match=r"makes \[7, 8\] of 'a b' and \[5, 6\] without special tokens: its marks are"):
        _windows._marks(tokenizer)


def test_a_file_that_is_neither_file_nor_folder_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(FileError, match=re.escape(f"{tmp_path / 'config.json'} is not a regular file.")):
        _manifest.check_inside(tmp_path, "config.json")


def test_an_index_of_sums_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/moments.json").symlink_to(tmp_path / "other.json")
    text = f"{tmp_path / 'store/moments.json'} is a link: delete {tmp_path / 'store'}."
    with pytest.raises(FileError, match=re.escape(text)):
        _moments_index.read_index(tmp_path / "store", {})


def test_an_index_of_sums_names_its_own_files_only(tmp_path):
    state = _moments_index.PassState(1, {"": 3}, {"a": "../secret.safetensors"})
    (tmp_path / "moments.json").write_text(_moments_index.SumsIndex({}, {"0": state}).to_json(), encoding="utf-8")
    text = f"{tmp_path / 'moments.json'} names the file '../secret.safetensors', which is none of its own."
    with pytest.raises(FileError, match=re.escape(text)):
        _moments_index.read_index(tmp_path, {})


def test_tables_beside_the_weights_are_held_to_twice_the_files(tmp_path, monkeypatch):
    """A configuration alone could ask for more memory than there is."""
    tiny_models.folder(tiny_models.llama(), tmp_path)
    monkeypatch.setattr(_plausible, "SPARE", -(1 << 40))
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    with pytest.raises(FileError, match=r"config\.json asks for tables of 32 bytes beside the weights, more than"):
        _plausible.check_plausible(tmp_path, type(tiny_models.llama()), config)


def test_a_tensor_that_the_manifest_does_not_know_is_named(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "m.safetensors")
    text = f"{tmp_path / 'm.safetensors'} holds a tensor that is not in the manifest, 'a'. Save the model again"
    with pytest.raises(FileError, match=re.escape(text)):
        _manifest._check_shard(tmp_path / "m.safetensors", {})


def test_a_tensor_that_the_folder_lacks_is_named():
    reader = object.__new__(_quantizer.NarrowsQuantizer)
    layer = nn.Module()
    layer.child = nn.Module()
    layer.child.weight = nn.Parameter(torch.ones(2, 2))
    reader._shapes, reader._loaded = {}, {"child": SimpleNamespace(form="low-rank", details={})}
    with pytest.raises(FileError, match=r"no tensor of the folder was read into child\.weight\. Update transformers"):
        reader._process_model_after_weight_loading(layer)
