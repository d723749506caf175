"""A model, or its moments, that are larger than the free memory: refused before weights or text are read."""

from __future__ import annotations

import pytest
import torch
import transformers

import tiny_models
from narrows import load
from narrows._machine import _memory
from narrows.errors import FileError, ResourceError
from narrows.models import _load
from narrows.models._calibrate import calibrate, moments_bytes
from narrows.models._match import targets
from narrows.models._match_shared import shared_inputs


@pytest.fixture
def free(monkeypatch):
    """Return a function that says how many bytes are free, and look also where little is needed."""
    monkeypatch.setattr(_memory, "LEAST_LOOK", 0)
    return lambda num_bytes: monkeypatch.setattr(_memory, "available_bytes", lambda _: num_bytes)


@pytest.mark.parametrize(("dtype", "factor"), [(None, 1), (torch.float32, 1), (torch.bfloat16, 0.5)])
def test_a_model_larger_than_the_free_memory_is_refused_before_a_weight_is_read(tmp_path, free, dtype, factor):
    folder = tiny_models.folder(tiny_models.llama(), tmp_path / "model")
    needed = int((folder / "model.safetensors").stat().st_size * factor)
    free(needed)
    load(folder, dtype=dtype)
    free(needed - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_load, "_read", lambda *_: pytest.fail("read"))
        with pytest.raises(ResourceError, match=r"the model .*model takes .* GiB are free\. Free some memory"):
            load(folder, dtype=dtype)


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), ResourceError, "did not fit the free"),
        (MemoryError(), ResourceError, r"did not fit the free memory \(MemoryError\)"),
        (RuntimeError("size mismatch"), FileError, "size mismatch"),
    ],
)
def test_memory_that_runs_out_while_loading_is_not_the_files_fault(tmp_path, monkeypatch, fault, kind, text):
    folder = tiny_models.folder(tiny_models.llama(), tmp_path / "model")

    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(transformers.LlamaForCausalLM, "from_pretrained", fail)
    with pytest.raises(kind, match=text):
        load(folder)


def test_moments_larger_than_the_free_memory_are_refused_before_text_is_read(tmp_path, free):
    model = tiny_models.llama()
    text = torch.randint(0, 256, (4, 16), generator=torch.Generator().manual_seed(0))
    found = targets(model)
    needed = moments_bytes(found, shared_inputs(model, found, text[0]))
    free(needed)
    calibrate(model, text, found)
    free(needed - 1)
    with pytest.raises(ResourceError, match=rf"the moments of {len(found)} layers, takes .*let fewer layers change"):
        calibrate(model, text, found)
    # In several passes, only the largest is held.
    calibrate(model, text, found, store=tmp_path, max_bytes=needed // 2)
