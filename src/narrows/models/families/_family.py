"""What differs between families of models: where their attention keeps its weights, and how it is called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from narrows.nn import DenseAttention, Projection

if TYPE_CHECKING:
    from torch import Tensor

    from narrows.models._attention_module import ModelAttention


@dataclass(frozen=True, slots=True)
class HeadSizes:
    """Heads of an attention module: H, G and K, and how scores are made of them."""

    heads: int
    groups: int
    width: int
    scale: float
    is_causal: bool
    has_rotary: bool
    dropout: float


class Family(ABC):
    """Attention with four linear layers of its own; a family with others overrides `read` and `write`.

    Attributes:
        name: as a folder keeps it.
        classes: of transformers, that are this family's attention.
        layers: names of the query, key, value and output layer inside the attention module.
    """

    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    layers: ClassVar[tuple[str, str, str, str]]

    def matches(self, module: nn.Module) -> bool:
        """Say whether a module is this family's attention."""
        kind = type(module)
        return kind.__name__ in self.classes and kind.__module__.startswith("transformers.")

    @abstractmethod
    def sizes(self, attention: Any) -> HeadSizes:
        """Return the sizes of an attention module's heads."""

    @abstractmethod
    def forward(self, layer: ModelAttention, *given: Any, **named: Any) -> Any:
        """Return what the family's attention returns."""

    def refuses(self, attention: Any) -> str:  # noqa: ARG002 (for families that refuse)
        """Return why nothing of this attention can be narrowed; empty when something can."""
        return ""

    def refuses_query_key(self, attention: Any) -> str:  # noqa: ARG002 (for families that refuse)
        """Return why queries and keys must keep their width; empty when they need not."""
        return ""

    def frequencies(self, model: nn.Module, attention: Any) -> Tensor | None:  # noqa: ARG002 (for rotary families)
        """Return the rotary frequencies (P,), radians a token; None: there are none."""
        return None

    def config(self, attention: Any) -> Any:
        """Return the configuration that names the attention implementation; None: the family knows but one."""
        return getattr(attention, "config", None)

    def adopt(self, layer: ModelAttention, attention: Any) -> None:  # noqa: B027 (most families have nothing else)
        """Move what else the attention module has into the layer."""

    def give_back(self, layer: ModelAttention, attention: Any) -> None:  # noqa: B027 (as above)
        """Move it back."""

    def read(self, attention: Any) -> DenseAttention:
        """Return the weights of an attention module, as they are."""
        return self.described(attention, [attention.get_submodule(name) for name in self.layers])

    def described(self, attention: Any, linears: list[Any]) -> DenseAttention:
        """Return weights and sizes; `linears` has query, key, value and output, weights as in nn.Linear."""
        query, key, value, output = (Projection(one.weight, one.bias) for one in linears)
        sizes = self.sizes(attention)
        every = torch.arange(sizes.width // 2, device=key.weight.device).repeat(sizes.groups, 1)
        return DenseAttention(
            query,
            key,
            value,
            output,
            heads=sizes.heads,
            groups=sizes.groups,
            scale=sizes.scale,
            is_causal=sizes.is_causal,
            pairs=every if sizes.has_rotary else None,
            dropout=sizes.dropout,
        )

    def write(self, attention: Any, dense: DenseAttention) -> None:
        """Put weights into an attention module without values."""
        for name, part in zip(self.layers, (dense.query, dense.key, dense.value, dense.output), strict=True):
            put(attention.get_submodule(name), part)

    @property
    def replaced(self) -> tuple[str, ...]:
        """Names of the weights that a narrow layer has under other names."""
        return tuple(f"{name}.weight" for name in self.layers if name not in OWN_NAMES)


OWN_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj")


def put(linear: Any, part: Projection, *, transpose: bool = False) -> None:
    """Give a layer a weight and a bias."""
    weight = part.weight.detach()
    linear.weight = nn.Parameter(weight.t().contiguous() if transpose else weight.clone())
    if part.bias is not None:
        linear.bias = nn.Parameter(part.bias.detach().clone())
