"""Gate and up with one projection: from the options to a folder and back, in every step of a compression."""

from __future__ import annotations

import copy
import inspect
import json
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import tiny_models
from models.compressed import choice_of, outputs, part_of, plan_of, weight_of
from models.jobs import job, loss_of, with_parts
from models.test_load import forge
from models.test_peft import TORCHAO, lora
from narrows import Workload
from narrows._values import Factors, PivotFactors
from narrows.bench import LayerTimes
from narrows.bench._layers_record import LayerTime
from narrows.decompose import weighted, weighted_stack
from narrows.errors import FileError, InputError, ShapeError
from narrows.models import _anchor_blocks, apply_, densify, load, save
from narrows.models._adopt import adopt_, own_weights_
from narrows.models._anchor import anchored_parts
from narrows.models._check_sides import naive_copy, sides_of
from narrows.models._compress_trial import Built
from narrows.models._forms import compressed_layers
from narrows.models._joint import JOINT, JointMLP, join_, part_
from narrows.models._manifest import read_manifest
from narrows.models._match import targets
from narrows.models._recover import reorder_, trainable
from narrows.models._stacks import stacks
from narrows.models._times import Times
from narrows.models.families.gated import CLASSES, MEMBERS, is_gated
from narrows.nn import LowRankLinear, PivotLinear

MLP = "model.layers.0.mlp"
GATE, UP, DOWN = (f"{MLP}.{name}" for name in ("gate_proj", "up_proj", "down_proj"))
STACK = (GATE, UP)
SIZES = {"hidden_size": 64, "intermediate_size": 192, "initializer_range": 0.2}
MAKERS = {
    "llama": lambda: tiny_models.llama(**SIZES),
    "llama with biases": lambda: tiny_models.llama(**SIZES, mlp_bias=True),
    "gemma3": lambda: tiny_models.gemma3(**SIZES),
    "qwen3": lambda: tiny_models.qwen3(**SIZES),
}
EVERY = pytest.mark.parametrize("family", MAKERS)
FORMS = pytest.mark.parametrize("form", ["low-rank", "pivot"])
KINDS = {"low-rank": LowRankLinear, "pivot": PivotLinear}


def made(family):
    """Return a model with biases that are not zero."""
    model = MAKERS[family]()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=generator)
    return model


def planned(model, form="pivot", rank=24, down="pivot", block=0):
    """Return a plan in which gate and up share a projection and down has a form of its own, and its parts."""
    names = [one.replace("layers.0", f"layers.{block}") for one in (GATE, UP, DOWN)]
    weights = {name: weight_of(model.get_submodule(name)) for name in names}
    stack = tuple(names[:2])
    choices = []
    for name in stack:
        one = choice_of(name, weights[name], form, rank)
        E, D = weights[name].shape
        numbers = rank * (D + 2 * E - (rank if form == "pivot" else 0)) // 2
        choices.append(replace(one, chosen=replace(one.chosen, numbers=numbers, bytes=4 * numbers, stack=stack)))
    choices.append(choice_of(names[2], weights[names[2]], down, rank))
    parts = {stack[0]: part_of(torch.cat([weights[name] for name in stack]), form, rank)}
    if down != "dense":
        parts[names[2]] = part_of(weights[names[2]], down, rank)
    return plan_of(choices), parts


def compressed(family, form="pivot", **options):
    model = made(family)
    plan, parts = planned(model, form, **options)
    summary = apply_(model, plan, parts)
    assert not summary.refused
    return model, plan, summary


@cache
def searched():
    """Return a job whose plan has a shared form; moments are calibrated once."""
    one = job(made("llama"), keep=0.5)
    plan = one.plan(one.budget)
    assert any(choice.chosen.stack for choice in plan.layers)
    return one, plan


# The module


@EVERY
def test_joining_changes_nothing_and_is_undone_bit_for_bit(family):
    model = made(family)
    kinds = {name: type(module) for name, module in model.named_modules()}
    before, state = outputs(model), copy.deepcopy(model.state_dict())

    joint = join_(model, STACK)

    assert joint is model.get_submodule(f"{MLP}.{JOINT}")
    # One product in place of two: the same sums, perhaps in another order.
    assert (outputs(model) - before).abs().max() < 1e-5
    part_(model)
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert torch.equal(outputs(model), before)
    after = model.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in state.items())


def test_every_class_that_is_named_has_the_forward_that_is_replaced():
    import importlib

    import transformers

    names = {"SmolLM3MLP": "smollm3", "Olmo2MLP": "olmo2", "Olmo3MLP": "olmo3"}
    seen = 0
    for name in sorted(CLASSES):
        family = names.get(name, name.removesuffix("MLP").lower())
        place = f"transformers.models.{family}.modeling_{family}"
        if importlib.util.find_spec(place) is None:  # came after the oldest version that is supported
            continue
        found = getattr(importlib.import_module(place), name)
        body = inspect.getsource(found.forward)
        assert "self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))" in body, name
        assert body.count("=") <= 1, name
        seen += 1
    assert seen >= 13, transformers.__version__


@FORMS
def test_one_forward_projects_once(form):
    model, _, _ = compressed("llama", form)
    layer = model.get_submodule(f"{MLP}.{JOINT}")
    calls = []
    layer.down.register_forward_hook(lambda *_: calls.append("down"))
    layer.register_forward_hook(lambda *_: calls.append("joint"))

    outputs(model)

    assert sorted(calls) == ["down", "joint"]


@FORMS
def test_the_layer_is_compiled_without_a_break_and_computes_the_same(form):
    model, _, _ = compressed("llama", form)
    mlp = model.get_submodule(MLP)
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1))
    found = torch.compile(mlp, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(found, mlp(x))


@FORMS
def test_at_full_rank_the_model_computes_the_same(form):
    model = made("llama with biases")
    before = outputs(model)
    plan, parts = planned(model, form, rank=64, down="dense")

    apply_(model, plan, parts)

    # 64 numbers of about 1 a sum in float32: errors of 1e-5 where a lost bias or swapped halves make 1.
    assert (outputs(model) - before).abs().max() < 1e-3
    model.get_submodule(MLP).gate_up_proj.up.weight.data = model.get_submodule(MLP).gate_up_proj.up.weight.data.flip(0)
    assert (outputs(model) - before).abs().max() > 1e-2


@TORCHAO
def test_an_adapter_on_the_shared_projection_changes_the_output():
    model, _, _ = compressed("llama", "low-rank")
    before = outputs(model)
    adapted = lora(model, [f"{MLP}.{JOINT}.down"]).train()
    optimizer = torch.optim.SGD([one for one in adapted.parameters() if one.requires_grad], lr=1.0)
    for _ in range(2):  # LoRA's second matrix starts at zero
        adapted(torch.arange(12)[None], labels=torch.arange(12)[None]).loss.backward()
        optimizer.step()
    assert (outputs(adapted.eval()) - before).abs().max() > 1e-4


# Swapping


@EVERY
@FORMS
def test_the_layers_become_one_and_the_summary_has_a_line_for_each(family, form):
    model, plan, summary = compressed(family, form)

    layers = {name: kind for name, kind, _ in compressed_layers(model)}
    assert layers == {f"{MLP}.{JOINT}": form, DOWN: "pivot"}
    assert type(model.get_submodule(f"{MLP}.{JOINT}")) is KINDS[form]
    lines = {one.layer: one for one in summary.layers}
    assert list(lines) == [GATE, UP, DOWN]
    for name in STACK:
        choice = next(one for one in plan.layers if one.layer == name)
        assert (lines[name].form, lines[name].rank) == (f"shared {form}", 24)
        assert (lines[name].was, lines[name].after) == ("Linear 64 -> 192", choice.chosen.numbers)
    stored = sum(one.numel() for key, one in model.get_submodule(MLP).named_parameters() if "bias" not in key)
    assert stored == sum(one.after for one in summary.layers)
    assert torch.isfinite(outputs(model)).all()


def test_modes_dtype_and_gradients_are_kept():
    model = made("llama with biases").to(torch.bfloat16).train()
    for name in STACK:
        model.get_submodule(name).weight.requires_grad_(False)
    plan, parts = planned(model)

    apply_(model, plan, parts)

    layer = model.get_submodule(f"{MLP}.{JOINT}")
    assert layer.training
    assert model.get_submodule(MLP).training
    assert {one.dtype for one in layer.parameters()} == {torch.bfloat16}
    assert not layer.down.weight.requires_grad
    assert layer.bias.requires_grad


def test_what_cannot_share_stays_dense_and_is_told():
    model = made("llama")
    plan, parts = planned(model, down="dense")
    model.get_submodule(MLP).register_forward_hook(lambda *_: None)
    told = apply_(model, plan, parts).refused
    assert [one.layer for one in told] == [GATE, UP]
    assert f"{MLP} has hooks or a forward of its own" in told[0].reason
    model = made("llama")
    model.get_submodule(UP).register_forward_hook(lambda *_: None)
    assert "it has hooks" in apply_(model, plan, parts).refused[0].reason
    model = made("llama")
    model.model.layers[1].mlp = model.model.layers[0].mlp
    assert "replacing it would untie them" in apply_(model, plan, parts).refused[0].reason
    assert type(model.get_submodule(MLP)) is not JointMLP


def test_a_plan_that_does_not_fit_is_refused_before_anything_is_changed():
    model = made("llama")
    plan, parts = planned(model)
    with pytest.raises(InputError, match=f"{GATE} shares its projection with {UP}, which is not in the plan"):
        replace(plan, layers=plan.layers[:1])
    with pytest.raises(InputError, match=rf"layer {GATE}, {UP} becomes shared pivot: parts must hold .*, not nothing"):
        apply_(model, plan, {})
    alone = {GATE: part_of(weight_of(model.get_submodule(GATE)), "pivot", 24)}
    with pytest.raises(ShapeError, match=r"has \(D, E, R\) = \(64, 192, 24\), the plan says \(64, 384, 24\)"):
        apply_(model, plan, parts | alone)
    swapped = (UP, GATE)
    wrong = replace(
        plan, layers=tuple(replace(one, chosen=replace(one.chosen, stack=swapped)) for one in plan.layers[:2])
    )
    with pytest.raises(InputError, match="cannot share a projection: only gate_proj and up_proj of one gated"):
        apply_(model, wrong, parts)
    other = nn.ModuleDict({"mlp": nn.ModuleDict({name: nn.Linear(64, 192) for name in MEMBERS})})
    names = tuple(f"mlp.{name}" for name in MEMBERS)
    lines = [
        replace(one, layer=name, chosen=replace(one.chosen, stack=names))
        for one, name in zip(plan.layers[:2], names, strict=True)
    ]
    with pytest.raises(InputError, match="cannot share a projection: mlp is a ModuleDict, not a gated feed-forward"):
        apply_(other, plan_of(lines), {names[0]: parts[GATE]})
    assert type(model.get_submodule(GATE)) is nn.Linear
    assert getattr(model, "hf_quantizer", None) is None


# Folders


@EVERY
@FORMS
def test_what_was_saved_comes_back_bit_for_bit_and_densifies(family, form, tmp_path):
    model, plan, _ = compressed(family, form)
    kinds = {name: type(module) for name, module in made(family).named_modules()}
    out = save(model, tmp_path / "out", plan=plan, certificate={}, tokenizer=tiny_models.tokenizer())
    wanted = outputs(model)

    again = load(out)

    assert torch.equal(outputs(again), wanted)
    assert {name: type(one) for name, one in again.named_modules()} == {
        name: type(one) for name, one in model.named_modules()
    }
    record = read_manifest(out).layers[f"{MLP}.{JOINT}"]
    assert (record.form, record.rank, record.details["stands_for"]) == (form, 24, list(MEMBERS))
    assert read_manifest(out).plan == plan
    assert f"| layers replaced | 1 pivot, 2 shared {form}, of 3 in the plan |" in (out / "README.md").read_text()
    assert densify(again) is again
    assert {name: type(one) for name, one in again.named_modules()} == kinds
    # Rounding of the product in float32; outputs are of about 10.
    assert (outputs(again) - wanted).abs().max() < 1e-3
    again.save_pretrained(tmp_path / "dense")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    assert torch.equal(outputs(plain), outputs(again))


def test_auto_classes_and_another_dtype_load_it_and_saving_again_gives_the_same_bytes(tmp_path, capfd, caplog):
    model, plan, _ = compressed("llama")
    out = save(model, tmp_path / "out", plan=plan, certificate={})
    again = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(outputs(again), outputs(model))
    assert "UNEXPECTED" not in capfd.readouterr().err + caplog.text
    assert torch.equal(outputs(type(model.model).from_pretrained(out)), outputs(model.model))
    assert "UNEXPECTED" not in capfd.readouterr().err + caplog.text
    narrow = load(out, dtype=torch.bfloat16, device="cpu")
    assert narrow.get_submodule(f"{MLP}.{JOINT}").down.weight.dtype == torch.bfloat16
    save(again, tmp_path / "again", plan=plan, certificate={})
    for file in out.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_transformers_without_narrows_stops_with_an_error(tmp_path):
    model, plan, _ = compressed("llama", down="dense")  # nothing else would stop it
    out = save(model, tmp_path / "out", plan=plan, certificate={})
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from transformers import AutoModelForCausalLM\n"
        "assert 'narrows.models' not in sys.modules\n"
        f"AutoModelForCausalLM.from_pretrained({str(out)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ignore_mismatched_sizes" in done.stderr.splitlines()[-1]
    assert "gate_proj.weight" in done.stderr
    assert "up_proj.weight" in done.stderr


@pytest.mark.parametrize("lie", [["up_proj", "gate_proj"], ["down_proj"], "gate_proj", None, [1, 2]], ids=str)
def test_a_sealed_lie_about_what_a_layer_stands_for_does_not_load(lie, tmp_path):
    model, plan, _ = compressed("llama")
    out = save(model, tmp_path / "out", plan=plan, certificate={})

    forge(out, lambda manifest, _: manifest["layers"][f"{MLP}.{JOINT}"]["details"].update(stands_for=lie))

    with pytest.raises(FileError, match=r"gate_up_proj cannot stand for .*: this narrows joins"):
        load(out)
    name = f"{MLP}.other"

    def renamed(manifest, config):
        manifest["layers"][f"{MLP}.{JOINT}"]["details"].update(stands_for=list(MEMBERS))
        for layers in (manifest["layers"], config["layers"]):
            layers[name] = layers.pop(f"{MLP}.{JOINT}")

    forge(out, renamed)
    with pytest.raises(FileError, match="other cannot stand for"):
        load(out)


def test_a_changed_number_of_the_shared_projection_is_found(tmp_path):
    model, plan, _ = compressed("llama")
    out = save(model, tmp_path / "out", plan=plan, certificate={})
    shard = out / "model.safetensors"
    data = bytearray(shard.read_bytes())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    place = header[f"{MLP}.{JOINT}.down.weight"]["data_offsets"][0]
    data[8 + int.from_bytes(data[:8], "little") + place] ^= 1
    shard.write_bytes(data)

    with pytest.raises(FileError, match=r"'model\.layers\.0\.mlp\.gate_up_proj\.down\.weight' is not what was saved"):
        load(out)


# Choosing


def test_layers_are_offered_together_only_where_they_read_one_tensor_in_a_known_layer():
    model = made("llama")
    window = torch.arange(8)
    found = stacks(model, targets(model, window=window))
    assert [(one.name, one.names) for one in found] == [
        (f"model.layers.{i}.mlp.{JOINT}", tuple(f"model.layers.{i}.mlp.{name}" for name in MEMBERS)) for i in (0, 1)
    ]
    assert (found[0].in_features, found[0].out_features) == (64, 384)
    assert stacks(model, targets(model)) == ()  # nothing says what they read
    assert stacks(model, targets(model, patterns=[GATE], window=window)) == ()
    for other in (tiny_models.gpt2(), tiny_models.bert()):
        assert not any(is_gated(module) for module in other.modules())
        assert stacks(other, targets(other, window=window)) == ()
    model.get_submodule(MLP).register_forward_pre_hook(lambda *_: None)
    assert [one.name for one in stacks(model, targets(model, window=window))] == [found[1].name]


def test_shared_options_are_those_of_the_stack_in_shares():
    one, _ = searched()
    stack = one.stacks[0]
    weights = [target.module.weight for target in stack.members]
    whole = weighted_stack(weights, [one.moments[name] for name in stack.names], method="two-sided")
    layers = {layer.layer: [option for option in layer.options if option.stack] for layer in one.options}

    assert layers[GATE]
    assert not layers[DOWN]
    for gate, up in zip(layers[GATE], layers[UP], strict=True):
        assert gate.stack == up.stack == STACK
        assert (gate.form, gate.rank) == (up.form, up.rank)
        D, E, R = 64, 384, gate.rank
        numbers = R * (D + E - (R if gate.form == "pivot" else 0))
        assert gate.numbers + up.numbers == numbers < D * E
        assert gate.bytes + up.bytes == 4 * numbers
        assert gate.damage + up.damage == pytest.approx(whole.damage(R), rel=1e-9)
    assert {option.form for option in layers[GATE]} == {"low-rank", "pivot"}
    without = job(made("llama"), forms=("low-rank", "pivot"))
    assert without.stacks == ()
    assert not any(option.stack for layer in without.options for option in layer.options)


def test_without_gradients_damage_is_the_sum_of_the_shares_that_are_lost():
    one = job(made("llama"), method="one-sided")
    damages = one._damages(one.stacks[0])
    assert damages[0] == pytest.approx(2.0)
    assert damages[-1] == 0.0


def test_sharing_alone_is_no_form():
    with pytest.raises(InputError, match=r"forms=\('shared',\): what is shared is low-rank or pivot; give one of them"):
        job(made("llama"), forms=("shared",))


@pytest.mark.parametrize(
    ("dense_ns", "joint_ns", "thin_ns", "is_faster"),
    [(100.0, 200.0, 100.0, True), (50.0, 200.0, 100.0, False), (100.0, 101.0, 100.0, False)],
    ids=["faster", "not faster than the layers apart", "not faster than the layers at once"],
)
def test_a_shared_form_is_faster_where_it_beats_the_layers_apart_and_at_once(dense_ns, joint_ns, thin_ns, is_faster):
    ratio = joint_ns / thin_ns
    times = (
        LayerTime(64, 192, "dense", None, 8, dense_ns),
        LayerTime(64, 384, "dense", None, 8, joint_ns),
        LayerTime(64, 384, "pivot", 32, 8, thin_ns, ratio, 0.99 * ratio, 1.01 * ratio),
    )
    found = Times(LayerTimes(times, "float32", "cpu", "f", "a CPU", "0"), (Workload("prefill", 8),), 0.0)

    assert found.of_stack(64, [192, 192], "pivot", 32) == (thin_ns, is_faster)


def test_times_of_stacks_are_measured_too(monkeypatch):
    from narrows.models import _times

    asked = []

    def measured(shapes, *, rows, **_):
        asked.extend(shapes)
        times = [LayerTime(D, E, "dense", None, T, float(D * E)) for D, E in shapes for T in rows]
        thin = [LayerTime(D, E, "pivot", 32, T, D * E / 2, 2.0, 1.9, 2.1) for D, E in shapes for T in rows]
        return LayerTimes((*times, *thin), "float32", "cpu", "f", "a CPU", "0")

    monkeypatch.setattr(_times, "layer_times", measured)
    monkeypatch.setattr(_times, "dense_ns", lambda *_, **__: 1e6)
    one = job(made("llama"))
    times = Times.measured(
        one.model, one.targets, [Workload("prefill", 8)], seed=0, store=None, progress=None, stacks=one.stacks
    )

    assert (64, 384) in asked
    # Beside the layers, once: the stack is another form of two of them.
    layers = sum(target.in_features * target.out_features for target in one.targets)
    assert times.other_ns == pytest.approx(1e6 - layers)


# Fitting, training, taking over


def test_parts_fitted_by_themselves_are_the_decompositions():
    one, plan = searched()
    first = next(choice for choice in plan.layers if choice.chosen.stack)
    alone = job(one.model, is_anchored=False)

    parts = alone.parts(plan)

    names = first.together
    whole = weighted_stack(
        [one.model.get_submodule(name).weight for name in names],
        [alone.moments[name] for name in names],
        method="two-sided",
    )
    kind, made_at = (PivotFactors, whole.pivot) if first.chosen.form == "pivot" else (Factors, whole.factors)
    assert type(parts[names[0]]) is kind
    assert names[1] not in parts
    torch.testing.assert_close(parts[names[0]].dense(), made_at(first.chosen.rank).dense(), rtol=1e-4, atol=1e-5)


def test_anchored_parts_lose_less_than_those_fitted_by_themselves(monkeypatch):
    one, plan = searched()
    ids_NT = one.reading.calibration

    parts = anchored_parts(one.model, plan, one.targets, one.moments, ids_NT)

    wanted = {choice.together[0] for choice in plan.layers if choice.chosen.rank is not None}
    assert parts.keys() == wanted
    mine = loss_of(one.model, with_parts(one, plan, parts), ids_NT)
    plain = loss_of(one.model, with_parts(one, plan, job(one.model, is_anchored=False).parts(plan)), ids_NT)
    assert mine < plain
    # Canary: with dense and compressed inputs exchanged it loses more.
    right = _anchor_blocks.Chain.joint_moments
    monkeypatch.setattr(
        _anchor_blocks.Chain, "joint_moments", lambda self, dense, new: right(self, list(new), iter(dense))
    )
    other = anchored_parts(one.model, plan, one.targets, one.moments, ids_NT)
    assert loss_of(one.model, with_parts(one, plan, other), ids_NT) > mine


def test_the_model_that_is_anchored_reads_the_stack_as_the_parts_say():
    """What follows the stack in its block is fitted to what the stack gives: `_put` gave both layers their halves."""
    one, plan = searched()
    parts = anchored_parts(one.model, plan, one.targets, one.moments, one.reading.calibration)
    made_by_hand = with_parts(one, plan, parts)
    densify(made_by_hand)
    for choice in plan.layers:
        if choice.chosen.stack and choice.layer == choice.together[0]:
            whole = parts[choice.layer].dense()
            for name, wanted in zip(choice.together, whole.chunk(2), strict=True):
                torch.testing.assert_close(made_by_hand.get_submodule(name).weight, wanted, rtol=1e-4, atol=1e-5)


def test_training_moves_the_shared_factors_alone_and_puts_them_in_order():
    model, _, _ = compressed("llama", "low-rank", down="dense")
    one = job(made("llama"), forms=("low-rank", "shared"))
    layer = model.get_submodule(f"{MLP}.{JOINT}")
    assert {id(p) for p in trainable(model, "factors")} == {id(p) for p in layer.parameters()}
    with torch.no_grad():
        mix = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(5)))[0]
        layer.down.weight.copy_(mix @ layer.down.weight)
        layer.up.weight.copy_(layer.up.weight @ mix.T)
    before = outputs(model)
    assert not layer.is_ordered

    reorder_(model, one.moments, method="two-sided")

    ordered = model.get_submodule(f"{MLP}.{JOINT}")
    assert ordered.is_ordered
    torch.testing.assert_close(outputs(model), before, rtol=1e-3, atol=1e-3)
    weights = (ordered.up.weight @ ordered.down.weight).chunk(2)
    every = weighted_stack(weights, [one.moments[name] for name in STACK], method="two-sided")
    torch.testing.assert_close(ordered.factors.truncate(6).dense(), every.factors(6).dense(), rtol=1e-2, atol=1e-3)
    # Canary: in the order of one of the layers alone the first six ranks are others.
    gate = weighted(weights[0], one.moments[GATE], method="two-sided").factors(6).dense()
    assert (ordered.factors.truncate(6).dense()[:192] - gate).norm() > 1e-2 * gate.norm()


def test_a_check_counts_the_shared_numbers_and_runs_the_factors_as_plain_layers():
    model, plan, _ = compressed("llama", "low-rank", down="dense")

    sides = sides_of({"dense": made("llama"), "narrows": model}, [GATE, UP, DOWN], {})

    assert sides["dense"].numbers == sum(choice.dense.numbers for choice in plan.layers)
    assert sides["narrows"].numbers == sum(choice.chosen.numbers for choice in plan.layers)
    naive = naive_copy(model)
    assert type(naive.get_submodule(f"{MLP}.{JOINT}")) is nn.Sequential
    torch.testing.assert_close(outputs(naive), outputs(model), rtol=1e-3, atol=1e-3)


def test_what_was_made_of_a_copy_is_taken_over():
    one, plan = searched()
    model = copy.deepcopy(one.model)
    copied = with_parts(one, plan, one.parts(plan))
    own_weights_(copied, "factors")
    own = {name: module for name, module in model.named_modules() if name.endswith("mlp.act_fn")}

    adopt_(model, Built(plan, copied, None))

    assert torch.equal(outputs(model), outputs(copied))
    assert [name for name, _, _ in compressed_layers(model)] == [name for name, _, _ in compressed_layers(copied)]
    assert all(model.get_submodule(name) is module for name, module in own.items())
    assert type(one.model.get_submodule(MLP)) is not JointMLP
