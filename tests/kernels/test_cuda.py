"""On a GPU: every implementation is right, launches what it says, and survives a graph."""

from __future__ import annotations

import pytest
import torch

from narrows import Problem, factorize, kernels
from narrows._oracle import bilinear_bound, worst
from narrows.ops import bilinear, linear
from narrows.testing import check_kernel

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("kernel", kernels.KERNELS, ids=lambda k: f"{k.kind}-{k.name}")
def test_every_implementation_passes_the_conformance_check(kernel):
    check_kernel(kernel, device="cuda")


@pytest.mark.parametrize("kernel", kernels.KERNELS, ids=lambda k: f"{k.kind}-{k.name}")
def test_an_implementation_launches_as_many_kernels_as_matmuls_at_least(kernel):
    """A matmul may split its sum and launch a reduction beside it, never less than one kernel."""
    factors = kernel.pack(factorize(torch.randn(256, 256, device="cuda"), rank=32).to(torch.bfloat16))
    x = torch.randn(64, 256, device="cuda", dtype=torch.bfloat16)
    kernel.run(x, factors)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profile:
        kernel.run(x, factors)
        torch.cuda.synchronize()
    launched = sum(event.count for event in profile.key_averages() if event.device_time_total > 0)
    assert launched >= kernel.launches(Problem(kernel.kind, 64, 256, 256, dtype="bfloat16", device="cuda"))


@pytest.mark.parametrize("impl", ["three", "two"])
def test_an_operation_is_captured_in_a_graph_and_replays_on_new_data(impl):
    factors = factorize(torch.randn(128, 128, device="cuda"), rank=16).to(torch.bfloat16).interleaved()
    x = torch.randn(64, 128, device="cuda", dtype=torch.bfloat16)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        bilinear(x, factors, impl=impl)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        s = bilinear(x, factors, impl=impl)
    x.copy_(torch.randn_like(x))
    s.fill_(float("nan"))
    graph.replay()
    assert worst(s, bilinear_bound(x, factors.a, factors.b, x)) <= 1


def test_autocast_on_a_gpu_gives_the_dtype_of_autocast():
    factors = factorize(torch.randn(96, 128, device="cuda"), rank=16)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        y = linear(torch.randn(8, 128, device="cuda"), factors)
    assert y.dtype == torch.bfloat16


def test_operands_on_two_devices_are_refused_by_name():
    factors = factorize(torch.randn(96, 128), rank=16)
    with pytest.raises(ValueError, match="cuda"):
        linear(torch.randn(8, 128, device="cuda"), factors)


def test_gradients_on_a_gpu_are_those_of_the_cpu():
    factors = factorize(torch.randn(32, 32, dtype=torch.float64), rank=8)
    x = torch.randn(16, 32, dtype=torch.float64)
    grads = []
    for device in ("cpu", "cuda"):
        leaf = x.to(device).detach().requires_grad_()
        bilinear(leaf, factors.to(device)).sin().sum().backward()
        grads.append(leaf.grad.cpu())
    assert torch.allclose(*grads, rtol=1e-10, atol=1e-10)
