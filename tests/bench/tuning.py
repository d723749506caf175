"""A device that is not there: timers with set times, and cases made of them."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch

from kernels.tuned.records import signature


class FakeTimer:
    """Takes `ns`, a little more in every other sample."""

    def __init__(self, ns):
        self.ns, self.samples = ns, 0

    def sample(self):
        self.samples += 1
        return self.ns * (1 + 0.001 * (self.samples % 2)), 1

    def output(self):
        raise AssertionError("a fake case checks nothing")


class FakeCase:
    """Stands in for `Case`: cuBLAS takes 10 us, an own kernel what `ns_of(config)` says."""

    def __init__(self, where=None, ns_of=lambda config: 5000.0, error_of=lambda config: 0.5, base_error=0.25):
        self.signature = where or signature()
        self.device = torch.device("cpu")
        self.ns_of, self.error_of, self.base_error = ns_of, error_of, base_error
        self.quick = []

    def cublas_timer(self, mode):
        return SimpleNamespace(sample=FakeTimer(10_000.0).sample, error=self.base_error)

    def timer(self, kernel, config, mode):
        return SimpleNamespace(sample=FakeTimer(self.ns_of(config)).sample, error=self.error_of(config))

    def quick_ns(self, kernel, config):
        self.quick.append(config)
        ns = self.ns_of(config)
        if math.isinf(ns):
            raise RuntimeError("out of resource: shared memory")
        return ns

    def error(self, timer):
        return timer.error
