"""Which layers of a model may share a projection: gate and up of a gated feed-forward layer.

Letters: D input, E output features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from narrows.models._joint import joint_name, refuses_joining, stack_names
from narrows.models.families.gated import is_gated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from narrows.models._match import Target


@dataclass(frozen=True, eq=False)
class Stack:
    """Layers that read one input, as one layer with their weights one on top of the other.

    Attributes:
        name: of the layer that would take their place.
        members: in order.
    """

    name: str
    members: tuple[Target, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names."""
        return tuple(one.name for one in self.members)

    @property
    def in_features(self) -> int:
        """D."""
        return self.members[0].in_features

    @property
    def out_features(self) -> int:
        """E of all together."""
        return sum(one.out_features for one in self.members)


def stacks(model: nn.Module, targets: Sequence[Target]) -> tuple[Stack, ...]:
    """Return the layers that may share a projection, in the model's order.

    All of them must be among the targets and read the same tensor (`Target.group`), and nothing may stand in the way
    of joining them (`refuses_joining`).
    """
    by_name = {one.name: one for one in targets}
    found = []
    for name, module in model.named_modules():
        names = stack_names(name)
        if not is_gated(module) or not by_name.keys() >= set(names):
            continue
        members = tuple(by_name[one] for one in names)
        if len({one.group for one in members}) == 1 and refuses_joining(model, names) is None:
            found.append(Stack(joint_name(names), members))
    return tuple(found)
