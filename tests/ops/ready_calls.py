"""Calls that are made ready on a CPU too: what asks for a CUDA device is told that there is one."""

from __future__ import annotations

import torch

from narrows.ops import _bilinear, _linear, _ready

CALLS = 4  # the first is remembered, the second makes it ready, every later one is ready


class LongWayError(Exception):
    """A call that was to be ready is not."""


def pretend(patch):
    """Let calls on a CPU be made ready, beginning with none."""
    patch.setattr(_ready, "_is_on_device", lambda x: True)
    patch.setattr(_ready, "_is_capturing", lambda: False)
    patch.setattr(_ready, "_ready", {})
    patch.setattr(_ready, "_seen", {})


def forbid_the_long_way(patch):
    """Let every call that is not ready raise `LongWayError`."""

    def never(*_):
        raise LongWayError

    for module, names in ((_bilinear, ("run_bilinear", "bilinear_op")), (_linear, ("run_linear", "linear_op"))):
        for name in names:
            patch.setattr(module, name, never)


def normal(*shape, seed=0, dtype=torch.float32, device="cpu"):
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=device).to(dtype)


def num_ready():
    return sum(map(len, _ready._ready.values()))
