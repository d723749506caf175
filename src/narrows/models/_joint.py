"""JointMLP: a gated feed-forward layer whose gate and up come from one linear layer, which then can be compressed.

To transformers and to everything here that layer is one like any other: it is swapped, saved, loaded, trained and
merged by its own name. Only who replaces or names what it stands for asks this module.

Letters: T tokens, D input, E output features of gate or of up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from narrows.errors import FileError, InputError
from narrows.models.families.gated import MEMBERS, OTHERS, is_gated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

JOINT = "gate_up_proj"
STANDS_FOR = "stands_for"  # in a manifest's details: names, beside its own, of the layers that a joint one is made of


class JointMLP(nn.Module):
    """down(act(gate) * up), where `gate_up_proj` makes gate and up, one behind the other, in one call.

    Attributes:
        gate_up_proj: nn.Linear(D, 2 E), or what stands in its place.
        down_proj, act_fn: the layer's own.
    """

    gate_up_proj: nn.Module
    down_proj: nn.Module
    act_fn: nn.Module
    _skeleton: tuple[nn.Module]

    @classmethod
    def in_place_of(cls, mlp: nn.Module) -> JointMLP:
        """Return a layer with the children of a model's own, which is used up."""
        made = cls()
        made.gate_up_proj = _joined([mlp.get_submodule(name) for name in MEMBERS])
        for name in OTHERS:
            setattr(made, name, mlp.get_submodule(name))
        for name in (*MEMBERS, *OTHERS):
            setattr(mlp, name, None)
        # Kept to be given back; in a tuple, so that it is no child of this module.
        made._skeleton = (mlp,)
        made.training = mlp.training
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Return y (..., D) of x (..., D)."""
        gate, up = self.gate_up_proj(x).chunk(len(MEMBERS), dim=-1)
        made: Tensor = self.down_proj(self.act_fn(gate) * up)
        return made

    def apart(self) -> nn.Module:
        """Return the model's own layer with these weights; this one is used up.

        Raises:
            InputError: `gate_up_proj` is no nn.Linear.
        """
        joint, mlp = self.gate_up_proj, self._skeleton[0]
        if type(joint) is not nn.Linear:
            raise InputError(f"{JOINT} is {type(joint).__name__}, not nn.Linear: merge it first.")
        bias: Tensor | None = joint.bias  # torch annotates it as never None
        biases = [None] * len(MEMBERS) if bias is None else [one.clone() for one in bias.chunk(len(MEMBERS))]
        for name, weight, own in zip(MEMBERS, joint.weight.chunk(len(MEMBERS)), biases, strict=True):
            setattr(mlp, name, _linear(weight.clone(), own, like=joint))
        for name in OTHERS:
            setattr(mlp, name, getattr(self, name))
        mlp.training = self.training
        return mlp


def stack_names(layer: str) -> tuple[str, ...]:
    """Return the names of all layers of a gated feed-forward layer that may share a projection, from its own name."""
    return tuple(f"{layer}.{name}" for name in MEMBERS)


def joint_name(stack: Sequence[str]) -> str:
    """Return the name of the one layer that takes the place of several.

    Raises:
        InputError: they are no gate and up of one layer.
    """
    parent = stack[0].rpartition(".")[0]
    if tuple(stack) != stack_names(parent):
        raise InputError(
            f"{', '.join(stack)} cannot share a projection: only {' and '.join(MEMBERS)} of one gated feed-forward "
            "layer can."
        )
    return f"{parent}.{JOINT}"


def check_joinable(stack: Sequence[str], modules: Mapping[str, nn.Module]) -> None:
    """Raise InputError unless layers are gate and up of one gated feed-forward layer of a known family."""
    parent = joint_name(stack).rpartition(".")[0]
    mlp = modules.get(parent)
    if mlp is None or not is_gated(mlp):
        found = "missing" if mlp is None else f"a {type(mlp).__name__}"
        raise InputError(
            f"{', '.join(stack)} cannot share a projection: {parent} is {found}, not a gated feed-forward layer of a "
            "known family."
        )


def refuses_joining(model: nn.Module, stack: Sequence[str]) -> str | None:
    """Return why layers cannot be joined without changing something else; None where they can."""
    name = joint_name(stack).rpartition(".")[0]
    mlp = model.get_submodule(name)
    if mlp._forward_hooks or mlp._forward_pre_hooks or mlp._backward_hooks or "forward" in vars(mlp):  # noqa: SLF001
        return f"{name} has hooks or a forward of its own, which would be lost"
    members: list[Any] = [mlp.get_submodule(one) for one in MEMBERS]
    if len({(one.weight.shape, one.weight.dtype, one.weight.device, one.bias is None) for one in members}) > 1:
        return f"{' and '.join(MEMBERS)} of {name} differ in sizes, dtype, device or in having a bias"
    return None


def join_(model: nn.Module, stack: Sequence[str]) -> nn.Linear:
    """Make one linear layer of several, in place, without a change of what the model computes; return it.

    Raises:
        InputError: as `check_joinable`.
    """
    check_joinable(stack, dict(model.named_modules()))
    parent = joint_name(stack).rpartition(".")[0]
    made = JointMLP.in_place_of(model.get_submodule(parent))
    model.set_submodule(parent, made)
    return made.gate_up_proj  # type: ignore[return-value]


def part_(model: nn.Module) -> None:
    """Undo `join_`, in place, wherever the joint layer is an nn.Linear."""
    joined = [(name, module) for name, module in model.named_modules() if isinstance(module, JointMLP)]
    for name, module in joined:
        model.set_submodule(name, module.apart())


def stands_for(model: nn.Module, name: str) -> tuple[str, ...]:
    """Return the names of the dense layers that a layer of a compressed model stands for: its own, unless joined."""
    parent, _, own = name.rpartition(".")
    if own == JOINT and isinstance(model.get_submodule(parent), JointMLP):
        return stack_names(parent)
    return (name,)


def details_of(model: nn.Module, name: str) -> dict[str, Any]:
    """Return what a manifest says of a joint layer; nothing of any other."""
    stack = stands_for(model, name)
    return {} if stack == (name,) else {STANDS_FOR: [one.rpartition(".")[2] for one in stack]}


def saved_names(name: str, details: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `stands_for` of a layer in a folder.

    Raises:
        FileError: it cannot stand for these.
    """
    if STANDS_FOR not in details:
        return (name,)
    stack = stack_names(name.rpartition(".")[0])
    if joint_name(stack) != name or details[STANDS_FOR] != list(MEMBERS):
        raise FileError(f"layer {name} cannot stand for {details[STANDS_FOR]!r}: this narrows joins {MEMBERS} only.")
    return stack


def _joined(members: Sequence[Any]) -> nn.Linear:
    """Return one linear layer that gives the outputs of several, one behind the other."""
    first = members[0]
    with torch.no_grad():
        weight = torch.cat([one.weight for one in members])
        bias = None if first.bias is None else torch.cat([one.bias for one in members])
    return _linear(weight, bias, like=first)


def _linear(weight: Tensor, bias: Tensor | None, *, like: nn.Linear) -> nn.Linear:
    E, D = weight.shape
    made = nn.Linear(D, E, bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach(), like.weight.requires_grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach(), like.bias.requires_grad)
    return made.train(like.training)
