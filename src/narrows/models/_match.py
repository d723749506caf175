"""Which layers of a model can be factorised: the linears inside its repeated blocks.

Letters: D input, E output features, T tokens.
"""

from __future__ import annotations

import dis
import inspect
import re
import sys
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

from narrows._files import missing_name
from narrows.errors import InputError
from narrows.models._match_checks import check_model, check_weights
from narrows.models._match_shared import shared_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from narrows.models._match_shared import Window

REGEX = "re:"
MATRIX = 2  # dimensions from which a parameter is a weight


@dataclass(frozen=True, eq=False)
class Target:
    """One linear layer that can be factorised.

    Attributes:
        name: of the module inside the model.
        is_transposed: the weight is kept as (D, E), as GPT-2's Conv1D does.
        group: layers that read the same tensor (q, k, v; gate, up) have the same one: the first one's
            name. The layer's own name until a forward pass has shown what it reads.
    """

    name: str
    module: nn.Module
    in_features: int
    out_features: int
    is_transposed: bool
    group: str


def targets(
    model: nn.Module,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
    patterns: Sequence[str] = (),
    *,
    window: Window | None = None,
) -> tuple[Target, ...]:
    """Return the linear layers inside the model's repeated blocks, in the model's order.

    Embeddings, heads and poolers lie outside the blocks and stay as they are; `left_dense` lists them
    and whatever inside the blocks is no plain linear layer.

    Args:
        model: with plain weights: nothing quantised, tied, on the meta device, NaN or infinite.
        filter_fn: called as filter_fn(module, name); a layer is left out where it returns False.
        patterns: names, or "re:" and a regular expression that the whole name must match
            (`re.fullmatch`, as torchao's FqnToConfig does); a layer is taken if one of them matches.
            Without patterns every layer is taken.
        window: T tokens, (1, T) or (T,) int64, or a model's keyword arguments: one forward pass on them
            finds out which layers read the same tensor. None: every layer is a group of its own.

    Raises:
        InputError: no layer is left, a pattern matches nothing, or the model cannot be factorised as it
            is: already compressed, quantised, with adapters, tied, or on the meta device.
        NonFiniteError: a weight holds NaN or Inf.
    """
    check_model(model)
    named = linears(model, patterns)
    taken = tuple(one for one in named if filter_fn is None or filter_fn(one.module, one.name))
    if not taken:
        raise InputError(
            f"filter_fn left none of the {len(named)} linear layers, as {named[0].name}: "
            "it is called as filter_fn(module, name) and keeps a layer by returning True."
        )
    check_weights(model, {one.name: one.module for one in taken})
    if window is None:
        return taken
    groups = shared_inputs(model, taken, window)
    return tuple(replace(one, group=groups[one.name]) for one in taken)


def linears(model: nn.Module, patterns: Sequence[str] = ()) -> tuple[Target, ...]:
    """Return the linear layers inside the repeated blocks by their sizes alone: weights may be on the meta device.

    Args:
        patterns: as in `targets`.

    Raises:
        InputError: there is none, or a pattern matches nothing.
    """
    found = tuple(_candidates(model))
    if not found:
        raise InputError(f"{type(model).__name__} has no linear layer inside repeated blocks: nothing to factorise.")
    return _by_patterns(model, found, patterns)


def blocks(model: nn.Module) -> tuple[tuple[str, nn.Module], ...]:
    """Return (name, module) of the repeated blocks in order: the items of the outermost stacks.

    A stack is an nn.ModuleList whose items hold linear layers, or an nn.Sequential of at least two
    such items of one class. A model without a stack is one block with an empty name.
    """
    return tuple(_blocks_below(model, "")) or (("", model),)


def left_dense(model: nn.Module) -> tuple[tuple[str, str], ...]:
    """Return (name, reason) of every module with weights of its own that is no target, in the model's order.

    Norms and other vectors of weights are not listed.
    """
    inside = {one.name for one in _candidates(model)}
    prefixes = tuple(name for name, _ in blocks(model))
    readers = _direct_readers(model)
    return tuple(
        (name, _reason(module, is_inside=_is_below(name, prefixes), reader=readers.get(name)))
        for name, module in model.named_modules()
        if name not in inside and any(one.ndim >= MATRIX for one in module.parameters(recurse=False))
    )


def _candidates(model: nn.Module) -> Iterator[Target]:
    """Yield every plain linear layer inside the blocks, without the output head and what reads weights directly."""
    apart = set(_direct_readers(model)) | set(_head_names(model))
    for prefix, block in blocks(model):
        for name, module in block.named_modules(prefix=prefix):
            if name in apart or not _is_plain_linear(module):
                continue
            rows, columns = module.weight.shape
            is_transposed = not isinstance(module, nn.Linear)
            D, E = (rows, columns) if is_transposed else (columns, rows)
            yield Target(name, module, int(D), int(E), is_transposed, name)


def _blocks_below(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    is_stack = _is_stack(module)
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if not is_stack:
            yield from _blocks_below(child, full)
        elif _holds_linears(child):
            yield full, child


def _is_stack(module: nn.Module) -> bool:
    items = [one for one in module.children() if _holds_linears(one)]
    if isinstance(module, nn.ModuleList):
        return bool(items)
    return isinstance(module, nn.Sequential) and len(items) > 1 and len({type(one) for one in items}) == 1


def _holds_linears(module: nn.Module) -> bool:
    """Say whether linear layers lie below a module that is none itself."""
    return not _is_linear(module) and any(_is_linear(one) for one in module.modules())


def _is_linear(module: nn.Module) -> bool:
    # A model with Conv1D layers has imported their module already.
    known = sys.modules.get("transformers.pytorch_utils")
    return isinstance(module, nn.Linear) or (known is not None and isinstance(module, known.Conv1D))


def _is_plain_linear(module: nn.Module) -> bool:
    """Say whether a module computes x W^T + b with a parameter of its own, so that it can be replaced."""
    if not _is_linear(module) or "weight" not in module._parameters:  # noqa: SLF001 (a computed weight is no parameter)
        return False
    return not isinstance(module, nn.Linear) or type(module).forward is nn.Linear.forward


def _direct_readers(model: nn.Module) -> dict[str, str]:
    """Return names of linears whose weight their parent reads by itself -> the parent's class."""
    return {
        f"{name}.{child}" if name else child: type(module).__name__
        for name, module in model.named_modules()
        for child in _read_children(type(module).forward)
        if child in module._modules  # noqa: SLF001 (torch's name for the children)
    }


@cache
def _read_children(forward: Callable[..., object]) -> tuple[str, ...]:
    """Return every NAME of `self.NAME.weight` in a forward, as T5 casts to the dtype of `self.wo.weight`."""
    code = getattr(inspect.unwrap(forward), "__code__", None)
    steps = () if code is None else tuple(dis.get_instructions(code))
    reads = (first.argval for first, second in pairwise(steps) if second.argval == "weight" and _is_read(first, second))
    return tuple(dict.fromkeys(reads))


def _is_read(*steps: dis.Instruction) -> bool:
    return all(step.opname == "LOAD_ATTR" for step in steps)


def _head_names(model: nn.Module) -> tuple[str, ...]:
    """Return the output head's names, for a model without stacks, which is one block with its head inside."""
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if callable(get_head) else None
    return tuple(name for name, module in model.named_modules() if head is not None and module is head)


def _is_below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(not prefix or name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _reason(module: nn.Module, *, is_inside: bool, reader: str | None) -> str:
    kind = type(module).__name__
    if isinstance(module, nn.Embedding):
        return "an embedding"
    if not is_inside:
        return f"{kind} outside the repeated blocks"
    if reader is not None:
        return f"{reader} reads its weight by itself"
    if _is_linear(module):
        return f"{kind} is a linear layer with a forward or a weight of its own"
    shapes = [tuple(one.shape) for one in module.parameters(recurse=False) if one.ndim >= MATRIX]
    return f"{kind} with weights {', '.join(map(str, shapes))} is no linear layer"


def _by_patterns(model: nn.Module, all_targets: tuple[Target, ...], patterns: Sequence[str]) -> tuple[Target, ...]:
    """Return the targets that one of the patterns names, each pattern matching at least one."""
    if not patterns:
        return all_targets
    taken: set[str] = set()
    for pattern in patterns:
        found = {one.name for one in all_targets if _matches(pattern, one.name)}
        if not found:
            raise InputError(_nothing_matched(model, pattern, tuple(one.name for one in all_targets)))
        taken |= found
    return tuple(one for one in all_targets if one.name in taken)


def _matches(pattern: str, name: str) -> bool:
    if not pattern.startswith(REGEX):
        return pattern == name
    try:
        return re.fullmatch(pattern.removeprefix(REGEX), name) is not None
    except re.error as fault:
        raise InputError(f"pattern {pattern!r} is not a regular expression: {fault}.") from None


def _nothing_matched(model: nn.Module, pattern: str, names: tuple[str, ...]) -> str:
    apart = [(name, reason) for name, reason in left_dense(model) if _matches(pattern, name)]
    if apart:
        return f"pattern {pattern!r} names {apart[0][0]}, which stays dense: {apart[0][1]}."
    hint = "" if pattern.startswith(REGEX) else " For a regular expression write 're:' before it."
    return f"{missing_name('linear layer', pattern, names, type(model).__name__)}{hint}"
