"""Factors that are best for what a layer reads in the compressed model, block after block.

Letters: N windows, B windows of one item, T tokens a window, D input, E output features, R rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from narrows.decompose import anchored, anchored_stack
from narrows.errors import NonFiniteError
from narrows.models._anchor_blocks import Chain
from narrows.models._anchor_shorter import Shorter
from narrows.models._calibrate_forward import quiet_model
from narrows.models._match import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from narrows._values import Factors, LayerChoice, ModelPlan, Moments, PivotFactors
    from narrows.models._calibrate_batches import Text
    from narrows.models._match import Target

    Progress = Callable[[str, int, int], None] | None
    Parts = dict[str, Factors | PivotFactors]


@torch.inference_mode(mode=False)
@torch.no_grad()
def anchored_parts(
    model: nn.Module,
    plan: ModelPlan,
    targets: Sequence[Target],
    moments: Mapping[str, Moments],
    windows: Text,
    *,
    autocast: torch.dtype | None = None,
    progress: Progress = None,
) -> Parts:
    """Return the factors of every layer that the plan makes smaller, each anchored to what stands before it.

    Of layers that share a projection, under the first one's name.

    Layers are taken in the order in which they run. Each is fitted to give, from what it reads in
    the model as compressed so far, what the dense layer gives from its own input
    (`narrows.decompose.anchored`), so that later layers mend what earlier ones lost. Both models
    run once through each block, and what lies between the compressed one's layers again for each group
    of layers that share an input; only the hidden states and one block's inputs and outputs are held, for all windows.

    Args:
        model: dense; stays as it is. Its blocks follow one another, each reading what the one before gave.
        plan: forms and ranks.
        targets: the plan's layers; those of one group are fitted to the same input.
        moments: by layer; their gradients weigh the outputs.
        windows: that calibrated: token ids (N, T), or a model's keyword arguments.
        autocast: computes the forward passes in this dtype.
        progress: called with (what, blocks done, blocks in all).

    Raises:
        InputError: the blocks do not follow one another, or a layer runs more than once in its block.
        NonFiniteError: hidden states become NaN or Inf.
    """
    found = blocks(model)
    choices = {one.layer: one for one in plan.layers if one.chosen.rank is not None}
    thin = [one for one in targets if one.name in choices]
    parts: Parts = {}
    with quiet_model(model):
        walk = _Walk(Chain.of(model, found, windows, autocast), choices, moments)
        for done, (name, _) in enumerate(found):
            if progress is not None:
                progress("anchoring", done, len(found))
            parts |= walk.through(done, [one for one in thin if one.name.startswith(f"{name}.")])
    if progress is not None:
        progress("anchoring", len(found), len(found))
    return parts


class _Walk:
    """Hidden states of the dense and of the compressed model before the next block.

    As long as nothing is compressed they are the same list.
    """

    def __init__(self, chain: Chain, choices: Mapping[str, LayerChoice], moments: Mapping[str, Moments]) -> None:
        self._chain, self._choices, self._moments = chain, choices, moments
        self._dense = self._compressed = chain.first

    def through(self, number: int, targets: Sequence[Target]) -> Parts:
        """Return the parts of one block's layers that become smaller, and move both hidden states behind it."""
        name, _ = self._chain.blocks[number]
        inputs, after = self._chain.dense_pass(number, self._dense, [target.name for target in targets])
        if not targets and self._compressed is self._dense:
            self._dense = self._compressed = after
            return {}
        shorter = Shorter(self._chain, number, self._compressed)
        parts: Parts = {}
        for group in _groups(inputs, targets):
            made = self._fitted(shorter, group, inputs[group[0].name])
            self._put(shorter, group, made)
            parts |= made
        self._dense, self._compressed = after, shorter.after()
        if not all(bool(hidden.isfinite().all()) for hidden in self._compressed):
            raise NonFiniteError(f"{name} gives NaN or Inf in the compressed model. Leave its layers out.")
        return parts

    def _fitted(self, shorter: Shorter, group: Sequence[Target], inputs: Sequence[Tensor]) -> Parts:
        """Return the parts of layers that read one tensor, which in the dense model is `inputs`."""
        joint = self._chain.joint_moments(inputs, shorter.inputs_of(group[0].name))
        by_name = {target.name: target for target in group}
        together = dict.fromkeys(self._choices[target.name].together for target in group)
        return {names[0]: self._part([by_name[name] for name in names], joint) for names in together}

    def _put(self, shorter: Shorter, group: Sequence[Target], parts: Parts) -> None:
        """Give the layers of a block the weights that their parts stand for."""
        by_name = {target.name: target for target in group}
        for first, part in parts.items():
            layers = [by_name[one] for one in self._choices[first].together]
            weights = torch.split(part.dense(), [one.out_features for one in layers])
            for target, weight_ED in zip(layers, weights, strict=True):
                shorter.put(target.name, weight_ED.T if target.is_transposed else weight_ED)

    def _part(self, layers: Sequence[Target], joint: tuple[Tensor, Tensor]) -> Factors | PivotFactors:
        """Return the part of a layer, or of several with one projection."""
        weights, found = [_weight(one) for one in layers], [self._moments[one.name] for one in layers]
        if len(layers) == 1:
            made = anchored(weights[0], *joint, gradients_EE=found[0].gradients)
        else:
            made = anchored_stack(weights, found, *joint)
        chosen = self._choices[layers[0].name].chosen
        assert chosen.rank is not None
        return made.pivot(chosen.rank) if chosen.form == "pivot" else made.factors(chosen.rank)


def _groups(inputs: Mapping[str, Sequence[Tensor]], targets: Sequence[Target]) -> list[list[Target]]:
    """Return the layers in the order in which they ran, those that read one tensor together."""
    by_name = {target.name: target for target in targets}
    groups: dict[str, list[Target]] = {}
    for name in inputs:
        groups.setdefault(by_name[name].group, []).append(by_name[name])
    return list(groups.values())


def _weight(target: Target) -> Tensor:
    weight: Tensor = target.module.weight  # type: ignore[assignment]
    return weight.T if target.is_transposed else weight
