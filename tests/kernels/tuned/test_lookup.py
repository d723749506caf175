"""What a call gets: from memory in under a microsecond, checked the first time, nothing compiled in a capture."""

from __future__ import annotations

import timeit
import warnings
from types import SimpleNamespace

import pytest
import torch

from kernels.tuned.records import CONFIG, FakeKernel, entry, nothing_written, one_element, signature
from narrows.errors import ImplementationError
from narrows.kernels import _registry, tuned
from narrows.kernels.tuned import Config, Tiles, _lookup, _verify, analytic_config

SMALL = Config(Tiles(16, 32, 32, split=2), Tiles(16, 32, 16))


def call(**changes):
    sizes = {"tokens": 64, "in_features": 200, "out_features": 200, "rank": 20, "dtype": "float32", "mode": "eager"}
    return signature(**sizes | changes)


def known(own=2.0, **changes):
    """Return an entry of `call` whose own kernel has SMALL sizes."""
    from kernels.tuned.records import candidate

    where = call(**changes)._asdict()
    del where["device"]
    return entry(own=None, more={"triton": candidate(own, config=SMALL)}, **where)


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that device 0 is a GPU whose choices and kernels the test sets."""
    state = SimpleNamespace(entries=[], kernel=FakeKernel(), capturing=False, reads=0)

    def read(device):
        state.reads += 1
        return tuple(tuned.Known(each, "measured", ()) for each in state.entries)

    def find(kind, name, problem=None):
        if name != "triton" or (problem is not None and state.kernel.refuses(problem)):
            raise ImplementationError(f"impl={name!r} is not here")
        return state.kernel

    monkeypatch.setattr(_lookup, "known", read)
    monkeypatch.setattr(_lookup, "_has_gpu", lambda: True)
    monkeypatch.setattr(_lookup, "_is_capturing", lambda: state.capturing)
    monkeypatch.setattr(_lookup, "machine", lambda _: SimpleNamespace(name="Test GPU", software={"triton": "3.6.0"}))
    monkeypatch.setattr(_lookup, "analytic_config", lambda _: SMALL)
    monkeypatch.setattr(_registry, "kernel", find)
    tuned.forget()
    yield state
    tuned.forget()


def test_a_measured_winner_runs_with_its_sizes(gpu):
    gpu.entries = [known()]
    assert tuned.implementation(call()) == "triton"
    assert tuned.config("triton", call()) == SMALL
    assert tuned.implementation(call(tokens=4096)) == "two"


def test_choices_are_read_once_and_a_kernel_is_checked_once(gpu):
    gpu.entries = [known()]
    for _ in range(3):
        tuned.implementation(call())
        tuned.config("triton", call())
    assert gpu.reads == 1
    assert len(gpu.kernel.runs) == 2  # a whole and a ragged one
    tuned.forget()
    tuned.implementation(call())
    assert gpu.reads == 2


def test_without_choices_nothing_is_compiled_for_auto(gpu):
    assert tuned.implementation(call()) == "two"
    assert tuned.implementation(call(other_tokens=5)) == "three"
    assert gpu.kernel.runs == []
    assert tuned.config("triton", call()) == SMALL  # a named kernel still gets sizes, and they are checked
    assert len(gpu.kernel.runs) == 2


@pytest.mark.parametrize("spoil", [one_element, nothing_written])
def test_sizes_that_fail_are_one_warning_and_cublas_runs(gpu, spoil):
    gpu.entries = [known(), known(tokens=128)]
    gpu.kernel.spoil = spoil
    text = (
        r"the bilinear kernel 'triton' with Config\(project=.*\) failed its self-check on Test GPU with triton 3\.6\.0:"
        r" \d+ elements of an exact result are wrong at T=32, U=32\. It is not used in this process; impl='auto' runs "
        r"cuBLAS \('two'\) in its place\."
    )
    with pytest.warns(RuntimeWarning, match=text) as seen:
        assert [tuned.implementation(call(tokens=t)) for t in (64, 128, 64)] == ["two"] * 3
    assert len(seen) == 1
    with pytest.raises(ImplementationError, match=f"impl='triton' cannot run this: {text}"):
        tuned.config("triton", call())


def test_a_kernel_that_refuses_or_is_gone_is_not_chosen(gpu):
    gpu.entries = [known()]
    gpu.kernel.refusal = "needs a newer device"
    assert tuned.implementation(call()) == "two"
    assert gpu.kernel.runs == []


def test_one_eager_call_makes_the_graph_form_ready(gpu):
    gpu.entries = [known(own=0.5), known(mode="graph")]
    assert tuned.implementation(call()) == "two"
    gpu.capturing = True
    assert tuned.implementation(call(mode="graph")) == "triton"
    assert tuned.config("triton", call(mode="graph")) == SMALL
    assert tuned.misses() == 0


def test_in_a_capture_nothing_is_checked_auto_takes_cublas_and_counts_it(gpu):
    gpu.entries = [known(mode="graph")]
    gpu.capturing = True
    assert tuned.implementation(call(mode="graph")) == "two"
    assert tuned.implementation(call(mode="graph")) == "two"
    assert tuned.misses() == 2
    assert gpu.kernel.runs == []
    gpu.capturing = False
    tuned.implementation(call())
    gpu.capturing = True
    assert tuned.implementation(call(mode="graph")) == "triton"
    assert tuned.misses() == 2


def test_in_a_capture_a_named_kernel_that_was_not_called_before_says_what_to_do(gpu):
    gpu.capturing = True
    text = (
        "impl='triton' cannot run this: its code is not compiled and checked yet, and a CUDA graph is being captured. "
        "Call it once with these shapes before the capture."
    )
    with pytest.raises(ImplementationError, match=text):
        tuned.config("triton", call(mode="graph"))
    gpu.capturing = False
    tuned.config("triton", call())
    gpu.capturing = True
    assert tuned.config("triton", call(mode="graph")) == SMALL


def test_an_unknown_kernel_is_named(gpu):
    with pytest.raises(ImplementationError, match="impl='cutlass'"):
        tuned.config("cutlass", call())


def test_a_warning_that_is_an_error_changes_nothing_the_second_time(gpu):
    gpu.entries = [known()]
    gpu.kernel.spoil = one_element
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            tuned.implementation(call())
        assert tuned.implementation(call()) == "two"


def test_memory_of_lookups_is_bounded(gpu, monkeypatch):
    monkeypatch.setattr(_lookup, "MOST", 10)
    for tokens in range(1, 30):
        tuned.implementation(call(tokens=tokens))
        tuned.config("triton", call(tokens=tokens))
    assert len(_lookup._implementations) <= 10
    assert len(_lookup._configs) <= 10


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where only the interpreter runs")
def test_without_a_gpu_sizes_come_from_the_formula_and_are_not_checked():
    tuned.forget()
    assert tuned.implementation(signature()) == "two"
    assert tuned.config("triton", signature()) == analytic_config(signature())
    assert not _verify._failures
    assert tuned.config("triton", signature()) is not CONFIG


def test_a_lookup_takes_under_a_microsecond(gpu):
    """The target is 1 us; three times as much is allowed for a busy machine. Each call makes its signature anew."""
    gpu.entries = [known()]
    tuned.implementation(call())
    tuned.config("triton", call())
    where = tuple(call())
    fresh = [tuned.Signature(*where) for _ in range(1000)]
    for question in (tuned.implementation, lambda s: tuned.config("triton", s)):
        seconds = min(timeit.repeat(lambda q=question: [q(s) for s in fresh], number=10, repeat=7)) / 10_000
        assert seconds < 3e-6


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["bilinear", "linear"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("tokens", [64, 4096])
def test_on_a_gpu_the_formulas_sizes_pass_their_check(kind, dtype, tokens):
    from narrows import kernels

    for rank in (64, 100):
        where = signature(kind=kind, tokens=tokens, rank=rank, dtype=dtype)
        assert _verify.failure(kernels.kernel(kind, "triton"), analytic_config(where), where) == ""


@pytest.mark.gpu
def test_on_a_gpu_what_is_shipped_passes_its_check():
    """A dozen of them, from all over: each is a compilation of a second or two."""
    from narrows import kernels

    own = [
        (each.entry.signature(0), name, found.config)
        for each in tuned.known(0)
        for name, found in each.entry.candidates.items()
        if found.config is not None
    ]
    failures = {}
    for where, name, config in own[:: max(1, len(own) // 12)]:
        reason = _verify.failure(kernels.kernel(where.kind, name), config, where)
        failures |= {str(where): reason} if reason else {}
    assert not failures


@pytest.mark.gpu
def test_on_a_gpu_the_silicon_and_the_versions_are_known():
    silicon, software = tuned.silicon(0), tuned.software(0)
    assert silicon.num_multiprocessors > 0
    assert silicon.l2_bytes > 0
    assert software.torch == torch.__version__
    assert software.triton
