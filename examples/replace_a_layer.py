"""Put factors in the place of a model's layer: the smallest rank within an error budget, saved and loaded.

The layer's weight falls off like the weights of trained layers often do; a Gaussian one would need
nearly every rank.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import narrows


def falling_weight(out_features: int, in_features: int) -> torch.Tensor:
    """Return an (E, D) weight whose singular values fall like 1 / i."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(size, in_features, generator=generator)).Q for size in (out_features, in_features)
    )
    return left * (1 / torch.arange(1, in_features + 1)) @ right.T


@torch.inference_mode()
def output(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the model's output without gradients."""
    return model(x)


def main() -> None:
    """Replace the first layer of a small model and print what changed."""
    model = torch.nn.Sequential(torch.nn.Linear(128, 256), torch.nn.GELU(), torch.nn.Linear(256, 64)).eval()
    first = model[0]
    with torch.no_grad():
        first.weight.copy_(falling_weight(256, 128))

    factors = narrows.factorize(first.weight, budget=narrows.Budget(error=0.15))
    dense_bytes = first.weight.numel() * first.weight.element_size()
    print(f"rank {factors.rank}: error {factors.error():.3f} of the weight, {factors.num_bytes} of {dense_bytes} bytes")

    x = torch.randn(32, 128, generator=torch.Generator().manual_seed(1))
    before = output(model, x)
    model[0] = narrows.LowRankLinear.from_linear(first, factors)
    after = output(model, x)
    print(f"the model's output moved by {(after - before).norm() / before.norm():.3f} of its norm")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(model.state_dict(), path)
        model.load_state_dict(load_file(path))
    print(*model.state_dict(), sep=", ")


if __name__ == "__main__":
    main()
