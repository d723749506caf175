"""Back to an ordinary dense model, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from torch import nn

from narrows.errors import InputError
from narrows.models._forms import FORMS, TRANSPOSED, compressed_layers
from narrows.models._joint import part_
from narrows.models._quantizer import mark
from narrows.nn._plain import is_plain_tensor

if TYPE_CHECKING:
    from torch import Tensor

Model = TypeVar("Model", bound=nn.Module)


def densify(model: Model) -> Model:
    """Merge every compressed layer of a model back, in place; return the model.

    Each becomes the nn.Linear, or GPT-2's Conv1D, that it was, with the factors' product as its
    weight, and narrow attention the model's own with zeros in what its heads lack, so that
    `save_pretrained` writes an ordinary checkpoint of the dense size.

    Raises:
        InputError: a layer carries an adapter or is quantised.
    """
    for name, form, layer in list(compressed_layers(model)):
        model.set_submodule(name, _merged(name, form, layer))
    part_(model)
    mark(model)
    return model


def _merged(name: str, form: str, layer: nn.Module) -> nn.Module:
    for key, parameter in layer.named_parameters():
        if not is_plain_tensor(parameter.data):
            raise InputError(
                f"{name}.{key} is a {type(parameter.data).__name__}: densify before quantising or sharding."
            )
    merged = FORMS[form].merge(layer)
    if not isinstance(merged, nn.Linear):
        return merged
    asked = {key.rpartition(".")[2]: parameter.requires_grad for key, parameter in layer.named_parameters()}
    for key, parameter in merged.named_parameters():
        parameter.requires_grad_(asked[key])
    return _conv1d(merged) if getattr(layer, TRANSPOSED, False) else merged


def _conv1d(linear: nn.Linear) -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    layer: nn.Module = Conv1D(linear.out_features, linear.in_features).to("meta")
    bias: Tensor | None = linear.bias
    layer.weight = nn.Parameter(linear.weight.detach().t().contiguous(), requires_grad=linear.weight.requires_grad)
    zeros = linear.weight.new_zeros(linear.out_features)
    layer.bias = nn.Parameter(zeros) if bias is None else bias
    return layer.train(linear.training)
