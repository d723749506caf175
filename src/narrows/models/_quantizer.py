"""The plug-in by which transformers reads compressed models: it checks the folder, then swaps modules, then lets load.

transformers has no entry point for it, so `narrows.models` has to be imported first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.utils.quantization_config import QuantizationConfigMixin

from narrows.errors import FileError, InputError
from narrows.models._forms import FORMS, compressed_layers
from narrows.models._manifest import AGAIN, MANIFEST, LayerRecord, Manifest, layer_record
from narrows.models._reading import (
    READ,
    check_shapes,
    expect_nothing_in,
    names_in,
    remove_stand_in,
    shapes,
    stand_in,
    swap_empty,
    verified_files,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

METHOD = "narrows"
FORMAT = 1


class NarrowsConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What config.json says of a compressed model: the format, and form and rank of every compressed layer."""

    def __init__(self, **given: Any) -> None:
        self.quant_method = given.pop("quant_method", METHOD)
        self.format = given.pop("format", FORMAT)
        self.layers: dict[str, dict[str, Any]] = given.pop("layers", {})
        if not isinstance(self.format, int) or self.format > FORMAT:
            raise FileError(
                f"the model was saved in format {self.format!r} of narrows; this version reads up to {FORMAT}. "
                "Update narrows."
            )
        if given:
            raise FileError(f"quantization_config of the model has the unknown entry {next(iter(given))!r}. {AGAIN}")

    @classmethod
    def of(cls, model: nn.Module) -> NarrowsConfig:
        """Return what there is to say of a model in memory."""
        return cls(layers={name: {"form": form, "rank": layer.rank} for name, form, layer in compressed_layers(model)})


class NarrowsQuantizer(HfQuantizer):  # type: ignore[misc]
    """Loads compressed models; stops a `save_pretrained` that would write a folder nobody can check."""

    requires_calibration = True

    def __init__(self, quantization_config: NarrowsConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.is_saving = False
        self._loaded: dict[str, LayerRecord] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: Sequence[str] | None = None, **_: Any
    ) -> None:
        manifest = verified_files(model.config.name_or_path, checkpoint_files)
        self._check_agreement(manifest)
        names = names_in(model, manifest)
        for saved, record in manifest.layers.items():
            expect_nothing_in(model, record.replaces(saved) | record.replaces(names.get(saved, saved)))
        for saved, name in names.items():
            layer = swap_empty(model, name, manifest.layers[saved])
            check_shapes(saved, layer, manifest)
            stand_in(layer)
            self._loaded[name] = manifest.layers[saved]
        self._shapes = shapes(model)

    def _process_model_after_weight_loading(self, model: nn.Module, **_: Any) -> None:
        # transformers 5.17 does not compare shapes where a plug-in takes part.
        for key, shape in shapes(model).items():
            if shape != self._shapes.get(key, shape):
                raise FileError(f"{key} has shape {shape} in the folder, the model needs {self._shapes[key]}. {AGAIN}")
        for name, record in self._loaded.items():
            layer = model.get_submodule(name)
            remove_stand_in(layer)
            for key, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
                # What transformers leaves on the meta device it has read and put on a disk.
                if not (tensor.is_meta or getattr(tensor, READ, False)):
                    raise FileError(
                        f"no tensor of the folder was read into {name}.{key}. Update transformers or narrows."
                    )
            FORMS[record.form].restore(layer, record.details)
        mark(model)

    def _check_agreement(self, manifest: Manifest) -> None:
        listed = {name: {"form": one.form, "rank": one.rank} for name, one in manifest.layers.items()}
        if listed != self.quantization_config.layers:
            raise FileError(f"the layers of the configuration are not those of {MANIFEST}. {AGAIN}")

    def _dequantize(self, model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
        from narrows.models._densify import densify

        return densify(model) if dtype is None else densify(model).to(dtype)

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, Any] | None, dict[str, str]]:
        """Return what `save_pretrained` writes: every tensor, and nothing under each replaced weight's name.

        Those zero-element tensors cost no byte and make transformers without narrows stop with an
        error; without them it fills the layers it misses with random numbers.

        Raises:
            InputError: `save_pretrained` was called by somebody other than `narrows.models.save`.
        """
        if getattr(model, "_hf_peft_config_loaded", False):
            return None, {}  # adapters alone are written
        if not self.is_saving:
            raise InputError(
                "save_pretrained would leave out the manifest of a compressed model: use narrows.models.save(model, "
                "folder, plan=..., certificate=...), or narrows.models.densify(model) for an ordinary model."
            )
        state = model.state_dict()
        for name, form, layer in compressed_layers(model):
            dtype = next(layer.parameters()).dtype
            # A part of a storage of its own: tensors without any storage count as shared with each other.
            replaced = layer_record(model, name, form, layer).replaces(name)
            state |= {weight: torch.empty(1, dtype=dtype)[:0] for weight in replaced}
        return state, {}

    def is_serializable(self) -> bool:
        """Return True: `get_state_dict_and_metadata` decides."""
        return True

    @property
    def is_trainable(self) -> bool:
        """True: factors are ordinary parameters."""
        return True

    @property
    def is_compileable(self) -> bool:
        """True: torch.compile sees ordinary modules."""
        return True


def mark(model: nn.Module) -> None:
    """Let transformers know that a model is compressed, as far as saving goes; or that it no longer is.

    For casting, training and adapters it stays an ordinary model (`is_quantized` is False).
    """
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            unmark(part)
            if next(compressed_layers(part), None) is not None:
                part.hf_quantizer = NarrowsQuantizer(NarrowsConfig.of(part), pre_quantized=True)
    if isinstance(model, PreTrainedModel) and getattr(model, "hf_quantizer", None) is not None:
        model.config.quantization_config = model.hf_quantizer.quantization_config


def unmark(model: Any) -> None:
    """Remove every mark of a compressed model from a model of transformers."""
    if not isinstance(vars(model).get("hf_quantizer"), NarrowsQuantizer):
        return
    model.is_quantized = False
    for owner, names in (
        (model, ("hf_quantizer", "quantization_method")),
        (model.config, ("quantization_config", "_is_quantized")),
    ):
        for name in names:
            if name in vars(owner):
                delattr(owner, name)


def check_unquantised(model: nn.Module) -> None:
    """Raise InputError for a model that another method has quantised."""
    for part in model.modules():
        quantizer = getattr(part, "hf_quantizer", None) if isinstance(part, PreTrainedModel) else None
        if quantizer is not None and not isinstance(quantizer, NarrowsQuantizer):
            method = quantizer.quantization_config.quant_method
            raise InputError(
                f"the model is quantised ({getattr(method, 'value', method)}): start from the dense model, and "
                "quantise what comes out."
            )


if METHOD not in AUTO_QUANTIZER_MAPPING:
    register_quantization_config(METHOD)(NarrowsConfig)
    register_quantizer(METHOD)(NarrowsQuantizer)
