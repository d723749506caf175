"""How long models take for the same requests, timed side by side in rounds.

Letters: B batch, T tokens.
"""

from __future__ import annotations

import copy
import inspect
import math
import statistics
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from narrows._stats import FEWEST_ROUNDS, paired_ratio
from narrows.errors import InputError
from narrows.models._check_sides import tensor_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from narrows._values import Workload

    Progress = Callable[[str, int, int], None] | None

Name = TypeVar("Name", bound=str)

SAMPLE_NS = 20e6  # a sample takes about 20 ms: long against the clock (0.1 us) and a launch (some us)
BLOCKS = 5  # on a CPU a sample is the median of up to 5 blocks: a stall of 8 to 72 ms sits in one of them
SETTLE_NS = 250e6  # a call this long overwrites any cache many times: a warm-up call changes nothing
MOST_CALLS = 64
MOST_ROUNDS = 40
TARGET_WIDTH = 0.05
SECONDS = 60.0  # after 8 rounds, no further one begins when a workload has taken this long


class Request(Protocol):
    """One request to one model, again and again."""

    held_bytes: int

    def prepare(self, count: int) -> None:
        """Make ready what `count` calls need that is not part of a request."""
        ...

    def __call__(self) -> Tensor:
        """Run one request and return its logits or last hidden states."""
        ...


def check_workload(model: nn.Module, workload: Workload) -> None:
    """Raise InputError where a model reads fewer tokens than a workload has, or writes none and should decode."""
    config: Any = model.config
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    needed = workload.tokens + (workload.phase == "decode")
    if limit is not None and needed > limit:
        raise InputError(f"workload {workload} needs {needed} positions; the model has {limit}. Ask for fewer tokens.")
    if workload.phase == "decode" and not hasattr(model, "prepare_inputs_for_generation"):
        raise InputError(f"workload {workload}: {type(model).__name__} writes no text. Give prefill workloads only.")


def request(model: nn.Module, workload: Workload, *, seed: int) -> Request:
    """Return a request to a model.

    prefill: a forward pass over the prompt; a causal model makes logits of the last token only where it can, and
    keeps no cache. decode: a forward pass over one more token of each sequence, after a cache of `tokens`.

    Args:
        model: of transformers, in evaluation mode, on its device.
        workload: its tokens are drawn at random, the same for every model of the same vocabulary.
        seed: of the tokens.

    Raises:
        InputError: as `check_workload`, or the model keeps no cache of keys and values.
    """
    check_workload(model, workload)
    config: Any = model.config
    shape = (workload.batch, workload.tokens + (workload.phase == "decode"))
    ids_BT = torch.randint(
        int(config.get_text_config().vocab_size), shape, generator=torch.Generator().manual_seed(seed)
    )
    ids_BT = ids_BT.to(next(model.parameters()).device)
    return _Prefill(model, ids_BT) if workload.phase == "prefill" else _Decode(model, ids_BT)


class _Prefill:
    held_bytes = 0

    def __init__(self, model: nn.Module, ids_BT: Tensor) -> None:
        known = inspect.signature(model.forward).parameters
        wanted = {"use_cache": False, "logits_to_keep": 1}
        self._model, self._ids_BT = model, ids_BT
        self._options = {name: value for name, value in wanted.items() if name in known}

    def prepare(self, count: int) -> None:
        del count

    def __call__(self) -> Tensor:
        return _result(self._model(input_ids=self._ids_BT, **self._options))


class _Decode:
    def __init__(self, model: nn.Module, ids_BT: Tensor) -> None:
        known = inspect.signature(model.forward).parameters
        options = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._model, self._last_B1 = model, ids_BT[:, -1:]
        with torch.inference_mode():
            self._cache: Any = model(input_ids=ids_BT[:, :-1], use_cache=True, **options).past_key_values
        self._ready: list[Any] = []
        self.held_bytes = sum(tensor_bytes(part) for layer in self._layers() for part in (layer.keys, layer.values))

    def _layers(self) -> list[Any]:
        layers = getattr(self._cache, "layers", [])
        if not layers or not all(isinstance(getattr(layer, "keys", None), torch.Tensor) for layer in layers):
            raise InputError(
                f"decode: the cache of {type(self._model).__name__} is {type(self._cache).__name__}, not one of keys "
                "and values. Give prefill workloads only."
            )
        return list(layers)

    def prepare(self, count: int) -> None:
        """Copy the records that name the cache's tensors: a call makes new tensors and leaves these as they are."""
        self._ready = []
        for _ in range(count):
            fresh = copy.copy(self._cache)
            fresh.layers = [copy.copy(layer) for layer in self._layers()]
            self._ready.append(fresh)

    def __call__(self) -> Tensor:
        return _result(self._model(input_ids=self._last_B1, past_key_values=self._ready.pop(), use_cache=True))


def _result(output: Any) -> Tensor:
    found: Tensor = output.logits if getattr(output, "logits", None) is not None else output.last_hidden_state
    return found


class Clock:
    """Times one request: wall time on a CPU, events around a loop on a GPU; launches are part of it."""

    def __init__(self, call: Request, device: torch.device) -> None:
        self._call, self._device = call, device
        self._run = self._on_device if device.type == "cuda" else self._on_host
        self._fastest_ns = self._run(1)

    def sample(self) -> float:
        """Return the ns of one call."""
        if self._fastest_ns < SETTLE_NS:
            self._run(1)
        blocks = BLOCKS if self._device.type != "cuda" else 1
        blocks = max(1, min(blocks, math.ceil(SAMPLE_NS / self._fastest_ns)))
        calls = max(1, min(MOST_CALLS, math.ceil(SAMPLE_NS / blocks / self._fastest_ns)))
        times = [self._run(calls) for _ in range(blocks)]
        self._fastest_ns = min(self._fastest_ns, *times)
        return statistics.median(times)

    def _on_host(self, count: int) -> float:
        self._call.prepare(count)
        start = time.perf_counter_ns()
        for _ in range(count):
            self._call()
        return (time.perf_counter_ns() - start) / count

    def _on_device(self, count: int) -> float:
        self._call.prepare(count)
        with torch.cuda.device(self._device):
            start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            start.record()
            for _ in range(count):
                self._call()
            end.record()
            torch.cuda.synchronize()
        return float(start.elapsed_time(end)) * 1e6 / count


@torch.inference_mode()
def times(
    requests: Mapping[Name, Request], device: torch.device, *, what: str = "speed", progress: Progress = None
) -> dict[Name, tuple[float, ...]]:
    """Return ns of one call of each request, sample i of each from round i.

    A round times each request once; who begins moves on by one a round. Rounds repeat, at least 8, until every
    ratio to the first request is known to 5 %, or 60 s or 40 rounds are over.

    Args:
        requests: name -> request; the first is what the others are compared with.
        device: where they run.
        what: is timed, for progress.
        progress: called with (what, rounds done, most rounds).
    """
    clocks = {name: Clock(call, device) for name, call in requests.items()}
    samples: dict[Name, list[float]] = {name: [] for name in clocks}
    names, started = list(clocks), time.monotonic()
    for done in range(MOST_ROUNDS):
        if done >= FEWEST_ROUNDS and (_are_known(samples) or time.monotonic() - started > SECONDS):
            break
        if progress is not None:
            progress(what, done, MOST_ROUNDS)
        first = done % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(clocks[name].sample())
    return {name: tuple(values) for name, values in samples.items()}


def _are_known(samples: Mapping[Name, list[float]]) -> bool:
    dense, *others = samples.values()
    return all(paired_ratio(dense, other).width < TARGET_WIDTH for other in others)
