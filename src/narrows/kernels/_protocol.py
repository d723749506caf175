"""What an implementation of the thin chain is. Finals register themselves in `kernels.KERNELS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from narrows._values import Factors, Kind, Problem


class Kernel(Protocol):
    """One way to run the thin chain of one kind.

    Attributes:
        name: what users and rows call it.
        kind: "linear" or "bilinear".
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    def refuses(self, problem: Problem) -> str:
        """Return why it cannot run this problem; empty when it can."""

    def launches(self, problem: Problem) -> int:
        """Return how many matmuls or kernels one call launches."""

    def pack(self, factors: Factors) -> Factors:
        """Return the factors in the memory layout that `run` wants (a copy only where needed)."""

    def run(
        self, x: torch.Tensor, factors: Factors, y: torch.Tensor | None = None, *, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run the chain on packed factors, without checks; `out` receives the result where given."""


class LinearKernel(Kernel, Protocol):
    """A kernel of kind "linear": biases, activation and residual, and forms in which several factors share x."""

    def run(
        self,
        x: torch.Tensor,
        factors: Factors,
        y: torch.Tensor | None = None,
        *,
        out: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        middle_bias: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
        activation: str | None = None,
    ) -> torch.Tensor:
        """Run activation((x a^T + middle_bias) b + bias) + residual; see `LinearEpilogue`."""

    def run_group(
        self, x: torch.Tensor, factors: Sequence[Factors], biases: Sequence[torch.Tensor | None]
    ) -> list[torch.Tensor]:
        """Return (x a^T) b + bias of every member."""

    def run_gated(
        self,
        x: torch.Tensor,
        gate: Factors,
        up: Factors,
        *,
        gate_bias: torch.Tensor | None = None,
        up_bias: torch.Tensor | None = None,
        activation: str | None = "silu",
    ) -> torch.Tensor:
        """Return activation(x gate + gate_bias) * (x up + up_bias)."""
