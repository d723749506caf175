"""The two questions that a call asks, answered from memory after the first time.

The first time, what was measured is looked up, and an own kernel's sizes are checked (`_verify`), for the eager
and for the graph form of the call: while a graph is captured nothing can be compiled or checked.
"""

from __future__ import annotations

import warnings
from threading import RLock
from typing import TYPE_CHECKING, TypeVar, cast

import torch

from narrows._machine import machine
from narrows._values import Problem
from narrows.errors import ImplementationError
from narrows.kernels.tuned import _verify
from narrows.kernels.tuned._analytic import analytic_config
from narrows.kernels.tuned._known import known
from narrows.kernels.tuned._resolve import neighbours
from narrows.kernels.tuned._signature import cublas

if TYPE_CHECKING:
    from narrows._values import Kind
    from narrows.kernels._config import Config
    from narrows.kernels.tuned._records import Entry
    from narrows.kernels.tuned._resolve import Neighbours
    from narrows.kernels.tuned._signature import Signature
    from narrows.kernels.tuned._verify import OwnKernel

MOST = 1 << 14  # signatures that are remembered: about 4 MB

_implementations: dict[Signature, str] = {}
_configs: dict[tuple[str, Signature], Config] = {}
_entries: dict[int, tuple[Entry, ...]] = {}
_warned: set[str] = set()
_misses = 0
_generation = 0
_lock = RLock()


def implementation(signature: Signature) -> str:
    """Return the implementation that `impl="auto"` runs a call with, on a CUDA device.

    The fastest of what was measured at this signature or near it; cuBLAS where nothing was, where an own
    kernel is not faster beyond a tie, or where it fails its self-check (one warning).
    """
    found = _implementations.get(signature)
    return _first_implementation(signature) if found is None else found


def config(impl: str, signature: Signature) -> Config:
    """Return the sizes that an own kernel runs a call with: measured here or near, else by formula.

    Raises:
        ImplementationError: these sizes fail their self-check; or they were never checked and a CUDA graph
            is being captured now.
    """
    found = _configs.get((impl, signature))
    return _first_config(impl, signature) if found is None else found


def misses() -> int:
    """Return how many calls in captured graphs ran with cuBLAS because nothing was called before the capture."""
    return _misses


def generation() -> int:
    """Return a number that changes with every `forget`: what was derived from a choice before is then out of date."""
    return _generation


def forget() -> None:
    """Look everything up, and check everything, again on its next use."""
    global _generation, _misses  # noqa: PLW0603 (counters)
    with _lock:
        _generation += 1
        for memory in (_implementations, _configs, _entries, _warned):
            memory.clear()
        _verify.forget()
        _misses = 0


def _first_implementation(signature: Signature) -> str:
    global _misses  # noqa: PLW0603 (a counter)
    with _lock:
        name = _usable(signature)
        if name is None:
            _misses += 1
            return cublas(signature)
        _remember(_implementations, signature, name)
        if signature.mode == "eager" and not _is_capturing():
            graph = signature._replace(mode="graph")
            _remember(_implementations, graph, _usable(graph) or cublas(graph))
        return name


def _usable(signature: Signature) -> str | None:
    """Return the winner if it can run and passes its check, else cuBLAS; None where a check cannot run now."""
    base, around = cublas(signature), _neighbours(signature)
    name = around.winner(signature)
    if name == base:
        return base
    kernel, sizes = _own_kernel(name, signature), around.config(name)
    if kernel is None or sizes is None:
        return base
    if not _can_be_known(kernel, sizes, signature):
        return None
    try:
        fault = _fault(kernel, sizes, signature)
    except torch.OutOfMemoryError:
        return None  # no verdict about the kernel, and no reason for a matmul to fail
    if fault:
        _warn_once(fault)
        return base
    return name


def _first_config(impl: str, signature: Signature) -> Config:
    with _lock:
        sizes, fault = _checked_config(impl, signature)
        if fault:
            raise ImplementationError(f"impl={impl!r} cannot run this: {fault}")
        _remember(_configs, (impl, signature), sizes)
        if signature.mode == "eager" and not _is_capturing():
            graph = signature._replace(mode="graph")
            sizes_in_graph, fault = _checked_config(impl, graph)
            if not fault:
                _remember(_configs, (impl, graph), sizes_in_graph)
        return sizes


def _checked_config(impl: str, signature: Signature) -> tuple[Config, str]:
    """Return an own kernel's sizes and what is wrong with them; nothing is checked where only the interpreter runs."""
    sizes = _neighbours(signature).config(impl) or analytic_config(signature)
    if not _has_gpu():
        return sizes, ""
    from narrows.kernels._registry import kernel

    own = cast("OwnKernel", kernel(cast("Kind", signature.kind), impl))
    if not _can_be_known(own, sizes, signature):
        return sizes, (
            "its code is not compiled and checked yet, and a CUDA graph is being captured. "
            "Call it once with these shapes before the capture."
        )
    return sizes, _fault(own, sizes, signature)


def _own_kernel(name: str, signature: Signature) -> OwnKernel | None:
    """Return an own kernel by name; None where this version has no such one or it refuses the call."""
    from narrows.kernels._registry import kernel

    problem = Problem(
        kind=cast("Kind", signature.kind),
        tokens=signature.tokens,
        in_features=signature.in_features,
        out_features=signature.out_features,
        other_tokens=signature.other_tokens or None,
        heads=signature.heads,
        dtype=signature.dtype,
        device=f"cuda:{signature.device}",
    )
    try:
        return cast("OwnKernel", kernel(problem.kind, name, problem))
    except ImplementationError:
        return None


def _neighbours(signature: Signature) -> Neighbours:
    if not _has_gpu():
        return neighbours(signature, ())
    if signature.device not in _entries:
        _entries[signature.device] = tuple(each.entry for each in known(signature.device))
    return neighbours(signature, _entries[signature.device])


def _can_be_known(kernel: OwnKernel, sizes: Config, signature: Signature) -> bool:
    return not _is_capturing() or _verify.is_known(kernel, sizes, signature)


def _has_gpu() -> bool:
    return torch.cuda.is_available()


def _is_capturing() -> bool:
    return _has_gpu() and torch.cuda.is_current_stream_capturing()


def _fault(kernel: OwnKernel, sizes: Config, signature: Signature) -> str:
    """Return what is wrong with an own kernel's sizes, in full; empty when nothing is."""
    reason = _verify.failure(kernel, sizes, signature)
    if not reason:
        return ""
    found = machine(f"cuda:{signature.device}")
    return (
        f"the {signature.kind} kernel {kernel.name!r} with {sizes} failed its self-check on {found.name} with triton "
        f"{found.software.get('triton', '-')}: {reason}. It is not used in this process; impl='auto' runs cuBLAS "
        f"({cublas(signature)!r}) in its place. Measure other sizes: narrows tune --again."
    )


def _warn_once(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, RuntimeWarning, stacklevel=2)


K = TypeVar("K")
V = TypeVar("V")


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    if len(memory) >= MOST:
        memory.clear()
    memory[key] = value
