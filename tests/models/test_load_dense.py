"""Loading dense folders, whatever is in them; and the package without transformers."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
from models.compressed import outputs
from narrows.errors import FileError
from narrows.models import load


def test_a_dense_folder_loads_and_a_bad_one_says_what_is_wrong(tmp_path):
    dense = tiny_models.qwen2()
    good = tiny_models.folder(dense, tmp_path / "good")
    assert torch.equal(outputs(load(good)), outputs(dense))

    def bad(name, change):
        folder = shutil.copytree(good, tmp_path / name)
        change(folder)
        return folder

    def edited(**changes):
        def change(folder):
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | changes))

        return change

    def pickled(folder):
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))

    def without(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors.pop("model.norm.weight")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    cases = [
        (
            "none",
            lambda f: (f / "config.json").unlink(),
            r"none is not a model's folder on this machine: it has no config",
        ),
        ("cut", lambda f: (f / "config.json").write_text("{"), r"config\.json is not a complete JSON document"),
        ("list", lambda f: (f / "config.json").write_text("[]"), r"config\.json is JSON, but no model's configuration"),
        ("pickle", pickled, r"pytorch_model\.bin is a pickle \(\.bin\): reading one can run any program"),
        ("lacking", without, r"lacks 1 tensors of Qwen2ForCausalLM, such as 'model\.norm\.weight'"),
        (
            "empty",
            lambda f: (f / "model.safetensors").unlink(),
            r"has neither model\.safetensors nor model\.safetensors\.index",
        ),
        ("short", lambda f: os.truncate(f / "model.safetensors", 5000), r"is not a complete safetensors file"),
        ("unknown", edited(architectures=["Evil"]), r"the architecture 'Evil', which is no model of transformers"),
        (
            "stand-in",
            edited(architectures=["set_seed"]),
            r"the architecture 'set_seed', which is no model of transformers",
        ),
        ("elsewhere", edited(transformers_weights="../x.safetensors"), r"names its weights \(transformers_weights\)"),
        (
            "adapter",
            lambda f: (f / "adapter_config.json").write_text("{}"),
            r"adapter holds an adapter \(adapter_config",
        ),
        ("int8", edited(quantization_config={"quant_method": "gptq"}), r"holds a quantised model \(gptq\)"),
    ]
    for name, change, text in cases:
        with pytest.raises(FileError, match=text):
            load(bad(name, change))
    with pytest.raises(FileError, match="nowhere is not a model's folder"):
        load(tmp_path / "nowhere")


def test_code_in_a_folder_is_never_run(tmp_path):
    folder = tiny_models.folder(tiny_models.llama(), tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    load(folder)
    assert not (tmp_path / "ran").exists()


def test_without_transformers_the_package_says_what_to_install():
    code = (
        "import importlib.util as util\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'transformers' else real(name, *rest)\n"
        "import narrows.models\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "narrows.errors.ResourceError: models need transformers >= 5.17 and scipy: pip install 'narrows[models]'."
    )
