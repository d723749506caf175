"""Compressed models under the tools of others: adapters, quantisation, sharding, the compiler."""

from __future__ import annotations

import copy
import socket
import warnings

import pytest
import torch
from torch import nn

import tiny_models
from models.compressed import compressed, outputs, plan_of
from narrows.errors import InputError
from narrows.models import densify, load, save
from narrows.nn import LowRankLinear, PivotLinear

IDS = torch.arange(12)[None]
# torchao warns of what it and torch will change; none of it is about these layers.
TORCHAO = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture
def model():
    return compressed(tiny_models.llama(), ("low-rank", "pivot"))[0]


def lora(model, names=("down", "up")):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, target_modules=list(names)))


@TORCHAO
@pytest.mark.parametrize("form", ["low-rank", "pivot"])
def test_one_lora_step_changes_the_output_and_merges(form):
    model, _ = compressed(tiny_models.llama(), (form,))
    before = outputs(model)
    adapted = lora(model).train()
    assert torch.equal(outputs(adapted.eval()), before)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0)
    adapted.train()(IDS, labels=IDS).loss.backward()
    optimizer.step()
    trained = outputs(adapted.eval())
    assert (trained - before).abs().max() > 1e-3
    merged = adapted.merge_and_unload()
    # Merged or beside, the same sums in another order: float32 rounding of outputs of about 1.
    assert (outputs(merged) - trained).abs().max() < 1e-5
    kinds = {type(module) for module in merged.modules()}
    assert kinds & {LowRankLinear, PivotLinear}
    assert all(type(one.down) is nn.Linear for one in merged.modules() if isinstance(one, (LowRankLinear, PivotLinear)))


@TORCHAO
def test_a_merged_adapter_is_saved_and_loaded(tmp_path):
    model, plan = compressed(tiny_models.llama())
    adapted = lora(model)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    merged = adapted.merge_and_unload()
    save(merged, tmp_path / "out", plan=plan, certificate={})
    assert torch.equal(outputs(load(tmp_path / "out")), outputs(merged))


@TORCHAO
def test_an_adapter_on_a_loaded_model_trains_by_itself(tmp_path):
    model, plan = compressed(tiny_models.llama())
    save(model, tmp_path / "out", plan=plan, certificate={})
    adapted = lora(load(tmp_path / "out"), ["down"])
    assert all("lora_" in name for name, p in adapted.named_parameters() if p.requires_grad)
    adapted.save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@TORCHAO
def test_int8_weights_of_torchao_go_into_the_children(model, tmp_path):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    before, rounded = outputs(model), copy.deepcopy(model)
    quantize_(model, Int8WeightOnlyConfig(), filter_fn=lambda m, name: isinstance(m, nn.Linear) and "layers" in name)
    layer = model.get_submodule("model.layers.0.self_attn.k_proj")
    assert type(layer) is PivotLinear
    assert type(layer.up.weight.data) is not torch.Tensor
    with torch.no_grad():
        for name, module in rounded.named_modules():
            if type(module) is nn.Linear and "layers" in name:
                module.weight.copy_(model.get_submodule(name).weight.dequantize())
    # The same 8-bit numbers, in float32 in another order; their rounding itself changes 5 %.
    assert (outputs(model) - outputs(rounded)).norm() < 1e-5 * before.norm()
    assert (outputs(model) - before).norm() > 1e-3 * before.norm()
    with pytest.raises(InputError, match=r"q_proj\.down\.weight is a .*: densify before quantising"):
        densify(model)
    with pytest.raises(InputError, match=r"q_proj\.down\.weight is .*: save before quantising"):
        save(model, tmp_path / "out", plan=plan_of([]), certificate={})


def test_the_whole_model_compiles_into_one_graph():
    torch._dynamo.reset()
    model, _ = compressed(tiny_models.llama(num_hidden_layers=1))
    expected = outputs(model)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracing of transformers' own code
        assert torch.equal(outputs(compiled), expected)
    torch._dynamo.reset()


@pytest.fixture
def mesh():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, init_method=f"tcp://127.0.0.1:{port}")
    yield torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_children_are_sharded_as_dtensors(mesh):
    from torch.distributed.tensor import DTensor, Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    torch.manual_seed(0)
    x = torch.randn(3, 8)
    pair, pivot = LowRankLinear(8, 6, 4), PivotLinear(8, 6, 4)
    for layer, styles in (
        (pair, {"down": ColwiseParallel(), "up": RowwiseParallel()}),
        (
            pivot,
            {"down": ColwiseParallel(output_layouts=Replicate()), "up": ColwiseParallel(output_layouts=Replicate())},
        ),
    ):
        expected = layer(x)
        parallelize_module(layer, mesh, styles)
        assert isinstance(layer.down.weight, DTensor)
        assert isinstance(layer.up.weight, DTensor)
        assert torch.allclose(layer(x), expected, atol=1e-6)
