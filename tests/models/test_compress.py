"""A model made smaller within a budget, in place and from folder to folder."""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

import tiny_models
from models.compressed import outputs
from models.jobs import QUICK, job
from models.taught import taught
from narrows import ModelBudget, Recipe, Workload, compress_, load, save
from narrows._machine import machine
from narrows.bench import _layers_run
from narrows.errors import BudgetError, FileError, InputError, NonFiniteError, ResourceError
from narrows.models import Nearest, _apply, _calibrate_run, _compress_job, _speed, compress
from narrows.models._check_text import documents_sha256
from narrows.models._compress_folder import work_folder
from narrows.models._manifest import read_manifest
from narrows.models._trial import quality
from narrows.nn import LowRankLinear, PivotLinear

KEEP = ModelBudget(keep=0.8)
RECIPE = Recipe(**QUICK)
TEXTS = tiny_models.texts(40, 200)
THIN = (LowRankLinear, PivotLinear)


def compressed(model, budget=KEEP, **changes):
    given = {"documents": TEXTS, "tokenizer": tiny_models.tokenizer(), "recipe": RECIPE} | changes
    return compress_(model, budget, **given)


def thin_layers(model):
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, THIN)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(_speed, "MOST_ROUNDS", 8)
    monkeypatch.setattr(_speed, "SAMPLE_NS", 1e5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folder of a dense model and its text."""
    path = tmp_path_factory.mktemp("models")
    text = path / "texts.jsonl"
    text.write_text("\n".join(json.dumps({"text": document}) for document in TEXTS), encoding="utf-8")
    return tiny_models.folder(taught(), path / "dense"), text


def test_the_model_is_changed_as_the_plan_says_and_nothing_else_of_it():
    model, before = taught(), taught()

    done = compressed(model)

    chosen = {one.layer: one.chosen for one in done.plan.layers if one.chosen.rank is not None}
    assert {name: layer.rank for name, layer in thin_layers(model).items()} == {
        name: option.rank for name, option in chosen.items()
    }
    dense = before.state_dict()
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(tuple(chosen))}
    assert len(kept) > 10
    assert all(torch.equal(tensor, dense[name]) for name, tensor in kept.items())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(layer.weight.numel() for layer in linears(model)) + sum(
        child.weight.numel() for layer in thin_layers(model).values() for child in (layer.down, layer.up)
    ) == round(done.plan.kept * sum(layer.weight.numel() for layer in linears(before)))
    assert done.plan.kept <= 0.8
    assert done.plan.budget == KEEP
    assert done.summary.kept == pytest.approx(done.plan.kept)


def linears(model):
    """Return the plain linears in the blocks that stand by themselves."""
    inside = {id(child) for layer in thin_layers(model).values() for child in layer.modules()}
    return [one for one in model.model.layers.modules() if type(one) is nn.Linear and id(one) not in inside]


def test_what_is_measured_is_what_the_model_now_loses():
    model, before = taught(), taught()

    done = compressed(model)

    again = quality(before, model, job(before).reading.selection, seed=0)
    assert done.quality == again
    assert 1 < done.quality.ratio.value < 1.01
    assert done.quality.dense < 3  # the model has learned something that can be lost
    assert f"perplexity {again.dense:.2f} -> {again.compressed:.2f}" in str(done)


def test_modes_and_gradients_are_as_they_were():
    model = taught().train()
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    model.model.layers[1].eval()

    compressed(model, ModelBudget(keep=0.5))

    layers = thin_layers(model)
    assert {name: layer.training for name, layer in layers.items()} == {
        name: not name.startswith("model.layers.1.") for name in layers
    }
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert frozen
    assert all(name.startswith("model.layers.0.mlp.up_proj.") for name in frozen)
    assert model.training


def test_dropout_takes_no_part_in_any_figure():
    first, second = (tiny_models.gpt2(initializer_range=0.2, resid_pdrop=0.5) for _ in range(2))

    one, other = compressed(first.train()), compressed(second)

    assert one.quality == other.quality
    assert one.plan == other.plan


def test_no_leaves_the_model_as_it_is_and_carries_the_frontier():
    model = taught()
    before, modules = copy.deepcopy(model.state_dict()), list(model.modules())

    with pytest.raises(BudgetError, match=r"No choice meets keep=0\.1\. The smallest keep is") as raised:
        compressed(model, ModelBudget(keep=0.1))

    assert isinstance(raised.value.nearest, Nearest)
    assert raised.value.nearest.frontier[0].kept == 1.0
    assert list(model.modules()) == modules
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert getattr(model, "hf_quantizer", None) is None


def test_where_dense_is_the_answer_nothing_is_changed():
    model = taught()
    modules = list(model.modules())

    done = compressed(model, ModelBudget(perplexity=0.0))

    assert done.is_dense
    assert done.quality is None
    assert list(model.modules()) == modules
    assert {one.form for one in done.summary.layers} == {"dense"}


def test_a_growth_of_perplexity_is_held_by_measurement():
    model = taught()

    done = compressed(model, ModelBudget(perplexity=0.004))

    assert not done.is_dense
    assert done.quality.growth <= 0.004
    assert done.quality.ratio.high is not None


def test_bytes_are_a_limit():
    done = compressed(taught(), ModelBudget(max_bytes=200_000))

    assert done.plan.num_bytes <= 200_000
    assert not done.is_dense


def test_times_are_measured_at_the_workloads_and_an_impossible_speedup_is_no(tmp_path, monkeypatch):
    workloads = (Workload("prefill", 32), Workload("decode", 16))
    monkeypatch.setattr(_layers_run, "MOST_ROUNDS", 8)
    given = {"workloads": workloads, "patterns": ["re:.*up_proj"], "store": tmp_path}

    done = compressed(taught(), ModelBudget(keep=0.8), **given)

    assert list(done.speeds.by_workload) == ["prefill:32x1", "decode:16x1"]
    assert done.speeds.overall.low > 0
    assert done.plan.speedup is not None
    assert all(point.speedup is not None for point in done.frontier)
    with pytest.raises(BudgetError, match=r"speedup=50"):
        compressed(taught(), ModelBudget(speedup=50.0), **given)


def test_only_layers_that_are_asked_for_change():
    model = taught()

    done = compressed(model, ModelBudget(keep=0.7), patterns=["re:.*mlp.*"])

    assert {one.layer.split(".")[3] for one in done.plan.layers} == {"mlp"}
    assert thin_layers(model)
    filtered = compressed(taught(), ModelBudget(keep=0.9), filter_fn=lambda _, name: "layers.1." in name)
    assert {one.layer.split(".")[2] for one in filtered.plan.layers} == {"1"}


def test_what_could_not_change_is_listed_with_its_reason():
    done = compressed(taught())

    assert dict(done.left_dense) == {
        "model.embed_tokens": "an embedding",
        "lm_head": "Linear outside the repeated blocks",
    }
    assert "model.embed_tokens: an embedding" in done.not_changed


def test_an_encoder_is_judged_by_its_embeddings_and_says_what_damage_is():
    model = tiny_models.bert(initializer_range=0.2)

    done = compressed(model)

    assert done.quality is None
    assert 0.5 < done.similarity.value < 1
    assert "BertModel gives no scores: damage is half the share" in done.notes[-1]
    assert "cosine with dense embeddings" in str(done)


def test_one_sided_factors_say_what_their_damage_is():
    done = compressed(taught(), recipe=Recipe(**QUICK, method="one-sided"))

    assert done.plan.method == "one-sided"
    assert done.quality.ratio.value < 1.1
    assert any(note.startswith("method one-sided: damage is the share") for note in done.notes)


def test_a_model_of_images_is_compressed_from_its_own_inputs():
    model = tiny_models.vit(initializer_range=0.2)
    generator = torch.Generator().manual_seed(0)
    inputs = [{"pixel_values": torch.randn(4, 1, 16, 16, generator=generator)} for _ in range(8)]

    done = compress_(model, KEEP, inputs=inputs, recipe=RECIPE)

    assert thin_layers(model)
    assert done.quality is None
    assert done.certificate["texts"] is None
    assert outputs(model).isfinite().all()


def test_fewer_tokens_than_features_are_told():
    done = compressed(
        taught(intermediate_size=640), recipe=Recipe(context=64, calibration_tokens=512, selection_tokens=512)
    )

    assert any(
        note.startswith("512 calibration tokens are fewer than the 640 input features of 2") for note in done.notes
    )


def test_little_text_to_choose_on_is_told_and_too_little_is_an_error():
    few = compressed(taught(), documents=tiny_models.texts(9, 500), recipe=Recipe(context=64, calibration_tokens=2048))
    assert any("not 16384: there is no more text" in note for note in few.notes)
    assert any("fewer than 5: there is no interval" in note for note in few.notes)
    assert few.quality.ratio.high is None

    with pytest.raises(InputError, match=r"make fewer than 8 windows of 64 tokens: give more text"):
        compressed(taught(), documents=tiny_models.texts(12, 45), recipe=Recipe(context=64, calibration_tokens=512))
    with pytest.raises(InputError, match=r"make \d+ windows of 64 tokens, and 512 are asked for"):
        compressed(taught(), recipe=Recipe(context=64, calibration_tokens=32768))


def test_what_cannot_be_done_is_refused_before_calibration(monkeypatch):
    monkeypatch.setattr(_calibrate_run.Run, "__call__", lambda *_: pytest.fail("calibration began"))
    model, bert = taught(), tiny_models.bert()
    prefill = (Workload("prefill", 32),)
    small = tiny_models.llama(vocab_size=100, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    hooked = taught()
    hooked.model.layers[0].mlp.up_proj.register_forward_hook(lambda *_: None)
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=259, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    )
    cases = [
        (model, {"budget": ModelBudget(speedup=1.2)}, r"speedup=1\.2 needs a workload to be fast at, as prefill:20"),
        (model, {"workloads": (Workload("prefill", 200),)}, "workload prefill:200x1 needs 200 positions"),
        (model, {"recipe": Recipe(context=256, calibration_tokens=2048)}, "context=256 tokens are more than the 128"),
        (small, {}, r"the tokenizer gives token \d+, the model has 100 words"),
        (hooked, {}, "up_proj has hooks or a forward of its own, which would be lost"),
        (t5, {}, "T5ForConditionalGeneration does not read plain text"),
        (bert, {"budget": ModelBudget(perplexity=0.1)}, r"=0\.1 needs a model that foretells .*BertModel does not"),
        (bert, {"recipe": Recipe(**QUICK, recovery_seconds=1)}, "recovery needs a model that foretells tokens"),
        (bert, {"workloads": (Workload("decode", 32),)}, "BertModel writes no text"),
        (
            model,
            {"budget": ModelBudget(perplexity=0.1), "recipe": Recipe(**QUICK, method="one-sided")},
            r"perplexity=0\.1 needs method='two-sided'",
        ),
        (model, {"inputs": [{}]}, "give documents with their tokenizer, or inputs"),
        (model, {"documents": None}, "give documents with their tokenizer, or inputs"),
        (model, {"tokenizer": None}, "documents need tokenizer"),
        (model, {"documents": None, "inputs": []}, "inputs is empty"),
        (model, {"documents": None, "inputs": [{}], "workloads": prefill}, "workloads are requests of text"),
        (model, {"documents": TEXTS[:2]}, "2 documents cannot be divided into calibration, selection and check"),
        (model, {"patterns": ["re:.*nothing"]}, "nothing"),
    ]  # fmt: skip
    for given, changes, text in cases:
        with pytest.raises(InputError, match=text):
            compressed(given, **changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method": "plain"}, "method='plain' is not known. Use one of: two-sided, one-sided"),
        ({"forms": ()}, r"forms=\(\) must be some of: low-rank, pivot"),
        ({"forms": ("dense",)}, r"forms=\('dense',\) must be some of"),
        ({"context": 1}, "context=1 must be at least 2 tokens"),
        ({"calibration_tokens": 100}, "calibration_tokens=100 must be at least 8 windows of context=512 tokens: 4096"),
        ({"selection_tokens": 100}, "selection_tokens=100 must be at least 8 windows"),
        ({"recovery_seconds": -1.0}, "recovery_seconds=-1.0 must be a finite number >= 0"),
        ({"recovered": "all"}, "recovered='all' is not known. Use one of: factors, blocks"),
        ({"autocast": "int8"}, "autocast='int8' is not known. Use one of: bfloat16, float16, or None"),
    ],
)
def test_a_recipe_says_what_is_wrong_with_it(changes, text):
    with pytest.raises(InputError, match=text):
        Recipe(**changes)


def test_nan_in_the_model_names_the_layer():
    model = taught()
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[3] = float("nan")

    with pytest.raises(NonFiniteError, match=r"what enters model\.layers\.1\.self_attn\.q_proj holds NaN or Inf"):
        compressed(model)


def test_tied_linears_are_refused_by_name_and_may_be_left_out():
    model = taught()
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight

    with pytest.raises(
        InputError, match=r"share one weight: replacing model\.layers\.0\.mlp\.up_proj would untie them"
    ):
        compressed(model)
    done = compressed(model, filter_fn=lambda _, name: "up_proj" not in name)

    assert model.model.layers[1].mlp.up_proj.weight is model.model.layers[0].mlp.up_proj.weight
    assert not done.is_dense


def test_recovery_is_told_and_never_makes_it_worse():
    plain = compressed(taught(), ModelBudget(keep=0.45))
    model = taught()
    recipe = Recipe(**QUICK, recovery_seconds=1.0, recovered="blocks")

    done = compressed(model, ModelBudget(keep=0.45), recipe=recipe)

    assert done.recovery.steps > 0
    assert done.recovery.seconds >= 1.0
    assert done.certificate["recovery"]["steps"] == done.recovery.steps
    assert done.quality.ratio.value <= plain.quality.ratio.value
    again = [note for note in done.notes if note.startswith("recovery made it worse")]
    norm = (model.model.layers[0].input_layernorm.weight - taught().model.layers[0].input_layernorm.weight).abs().max()
    assert bool(norm > 0) is (not again)
    assert torch.equal(model.model.embed_tokens.weight, taught().model.embed_tokens.weight)
    assert all(layer.is_ordered for layer in thin_layers(model).values() if isinstance(layer, LowRankLinear))


def test_ctrl_c_in_recovery_keeps_the_calibration_and_the_model(tmp_path, monkeypatch):
    model = taught()
    recipe = Recipe(**QUICK, recovery_seconds=60.0)
    reads = []
    right = _calibrate_run.Run._read
    monkeypatch.setattr(
        _calibrate_run.Run, "_read", lambda self, batch, sums: (reads.append(batch), right(self, batch, sums))[1]
    )

    def stop(what, done, _):
        if what == "recovery seconds":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compressed(model, recipe=recipe, store=tmp_path, progress=stop)
    assert reads
    assert not thin_layers(model)
    assert not any(one.grad is not None for one in model.parameters())
    assert all(one.requires_grad for one in model.parameters())
    reads.clear()

    compressed(model, store=tmp_path)

    assert not reads
    assert thin_layers(model)


def test_moments_that_wait_on_the_disk_give_the_same_model(tmp_path, monkeypatch):
    model, other = taught(), taught()
    compressed(model)
    # 400 KiB: some layers' moments at a time, the largest alone takes 160.
    monkeypatch.setattr(_compress_job, "MOMENTS_SHARE", machine().memory_bytes // (400 << 10))
    said = []

    compressed(other, store=tmp_path, progress=lambda what, *_: said.append(what))

    assert any(what.startswith("calibration tokens, pass 4 of") for what in said)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), other.parameters(), strict=True))


def test_a_layer_that_refuses_its_part_is_an_error_and_no_silent_dense(monkeypatch):
    monkeypatch.setattr(
        _apply, "_refusal", lambda name, *_: "it would rather not" if name.endswith("up_proj") else None
    )

    with pytest.raises(InputError, match="up_proj cannot become .*: it would rather not"):
        compressed(taught(), ModelBudget(keep=0.5))


@pytest.mark.parametrize("make", [taught, tiny_models.qwen2, tiny_models.gpt2, tiny_models.gemma3, tiny_models.bert])
def test_from_folder_to_folder_and_back(make, tmp_path):
    model = make()
    dense = tiny_models.folder(model, tmp_path / "dense")
    text = tmp_path / "texts.jsonl"
    text.write_text("\n".join(json.dumps({"text": document}) for document in TEXTS), encoding="utf-8")

    done = compress(dense, tmp_path / "out", KEEP, texts=text, recipe=RECIPE, work=tmp_path / "work")
    compressed(model)

    loaded = load(tmp_path / "out")
    assert torch.equal(outputs(loaded), outputs(model))  # the same weights, by another way
    assert set(thin_layers(loaded)) == set(thin_layers(model))
    manifest = read_manifest(tmp_path / "out")
    assert manifest.plan == done.plan
    known = manifest.certificate["texts"]
    assert known == {"path": str(text), "sha256": documents_sha256(TEXTS), "seed": 0}
    assert manifest.certificate["recipe"]["calibration_tokens"] == QUICK["calibration_tokens"]
    if done.quality is not None:
        assert manifest.certificate["quality"]["ratio"]["value"] == done.quality.ratio.value
        kind = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert kind.generate(torch.tensor([[256, 65]]), max_new_tokens=3, do_sample=False).shape == (1, 5)


def test_what_python_compresses_is_saved_with_its_certificate(tmp_path):
    model = taught()

    done = compressed(model)
    save(model, tmp_path / "out", plan=done.plan, certificate=done.certificate, tokenizer=tiny_models.tokenizer())

    assert torch.equal(outputs(load(tmp_path / "out")), outputs(model))
    assert read_manifest(tmp_path / "out").certificate["texts"]["sha256"] == documents_sha256(TEXTS)


def test_staying_dense_and_no_write_nothing(folders, tmp_path):
    dense, text = folders

    done = compress(
        dense, tmp_path / "out", ModelBudget(perplexity=0.0), texts=text, recipe=RECIPE, work=tmp_path / "w"
    )
    assert done.is_dense
    with pytest.raises(BudgetError):
        compress(dense, tmp_path / "out", ModelBudget(keep=0.1), texts=text, recipe=RECIPE, work=tmp_path / "w")

    assert [one.name for one in tmp_path.iterdir()] == ["w"]


def test_a_disk_that_fills_leaves_the_previous_folder_and_the_calibration(folders, tmp_path, monkeypatch):
    dense, text = folders
    given = {"texts": text, "recipe": RECIPE, "work": tmp_path / "work"}
    compress(dense, tmp_path / "out", KEEP, **given)
    before = {one.name: one.read_bytes() for one in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(_calibrate_run.Run, "_read", lambda *_: pytest.fail("calibration began again"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(ResourceError, match=r"out was not written: File too large"):
            compress(dense, tmp_path / "out", ModelBudget(keep=0.7), **given)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert {one.name: one.read_bytes() for one in (tmp_path / "out").iterdir()} == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "work"]
    compress(dense, tmp_path / "out", ModelBudget(keep=0.7), **given)
    assert {one.name: one.read_bytes() for one in (tmp_path / "out").iterdir()} != before


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from narrows import ModelBudget, Recipe
from narrows.models import _calibrate_run, compress
_calibrate_run.SAVE_SECONDS, _calibrate_run.SAVE_SHARE = 0.0, float("inf")
def stop(what, done, of):
    if what == {what!r} and done >= {share} * of:
        os.kill(os.getpid(), signal.SIGKILL)
compress({dense!r}, {out!r}, ModelBudget(keep=0.8), texts={text!r}, recipe=Recipe(**{quick!r}), work={work!r},
         progress=stop)
"""


@pytest.mark.parametrize(("what", "share"), [("calibration tokens", 0.5), ("anchoring", 0.5)])
def test_a_kill_leaves_no_folder_and_the_same_command_gives_the_same_one(folders, tmp_path, what, share):
    dense, text = folders
    code = KILLED.format(
        path=sys.path, what=what, share=share, dense=str(dense), out=str(tmp_path / "out"), text=str(text),
        quick=QUICK, work=str(tmp_path / "work"),
    )  # fmt: skip

    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, env=os.environ)

    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["work"]
    assert (tmp_path / "work" / "moments.json").exists()
    for out, work in (("out", "work"), ("whole", "other")):
        compress(dense, tmp_path / out, KEEP, texts=text, recipe=RECIPE, work=tmp_path / work)
    files = [{one.name: one.read_bytes() for one in (tmp_path / name).iterdir()} for name in ("out", "whole")]
    assert files[0] == files[1]


@pytest.fixture
def broken(folders, tmp_path):
    """Return a copy of the dense folder that a test may break."""
    return Path(shutil.copytree(folders[0], tmp_path / "model"))


def sharded(folder):
    """Save the model of a folder again, in several shards."""
    model = load(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    return folder


def index_of(folder, change):
    path = sharded(folder) / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def outside(folder):
    def change(places):
        places["model.norm.weight"] = "../texts.jsonl"

    index_of(folder, change)


def quantised(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))


def not_finite(folder):
    model = load(folder)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[1, 2] = float("inf")
    model.save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (shutil.rmtree, FileError, "is not a folder on this machine"),
        (lambda folder: (folder / "config.json").unlink(), FileError, r"it has no config\.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), FileError, "has no tokenizer that transformers reads"),
        (outside, FileError, "texts.jsonl"),
        (lambda folder: next(sharded(folder).glob("model-00002*")).unlink(), FileError, "model-00002"),
        (quantised, FileError, r"holds a quantised model \(gptq\): give the folder of the unquantised one"),
        (not_finite, NonFiniteError, r"the weight of model\.layers\.0\.mlp\.up_proj \(128, 64\) holds 1 NaN or Inf"),
    ],
)
def test_a_folder_that_is_no_good_model_is_refused_and_nothing_is_written(
    folders, broken, tmp_path, change, kind, text
):
    change(broken)

    with pytest.raises(kind, match=text):
        compress(broken, tmp_path / "out", KEEP, texts=folders[1], recipe=RECIPE, work=tmp_path / "work")

    assert not (tmp_path / "out").exists()


def test_a_model_that_is_compressed_already_and_the_model_as_its_own_output_are_refused(folders, tmp_path):
    dense, text = folders
    given = {"texts": text, "recipe": RECIPE, "work": tmp_path / "work"}
    compress(dense, tmp_path / "out", KEEP, **given)

    with pytest.raises(InputError, match=r"already quantised or compressed \(narrows"):
        compress(tmp_path / "out", tmp_path / "again", KEEP, **given)
    with pytest.raises(InputError, match=rf"OUT {dense} is the model itself: give another folder"):
        compress(dense, dense, KEEP, **given)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match=r"holds notes\.txt, not only a model"):
        compress(dense, tmp_path / "out", KEEP, **given)


def test_calibrations_are_kept_apart_by_what_decides_them(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dense, _ = folders
    model = Path(shutil.copytree(dense, tmp_path / "model"))
    first = work_folder(model, TEXTS, RECIPE)

    assert first.parent == tmp_path / "narrows" / "calibrations"
    assert work_folder(model, TEXTS, Recipe(**QUICK, is_anchored=False)) == first
    others = {
        work_folder(model, TEXTS[:-1], RECIPE),
        work_folder(model, TEXTS, Recipe(**QUICK, seed=1)),
        work_folder(model, TEXTS, Recipe(**QUICK, method="one-sided")),
        work_folder(model, TEXTS, RECIPE, patterns=["re:.*mlp.*"]),
        work_folder(model, TEXTS, RECIPE, dtype="bfloat16"),
    }
    assert len(others | {first}) == 6
    (model / "model.safetensors").touch()
    assert work_folder(model, TEXTS, RECIPE) != first
