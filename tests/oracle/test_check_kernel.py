"""check_kernel passes right kernels of every style and catches each wrong one in the tier it should."""

from dataclasses import dataclass

import pytest
import torch

from narrows import Factors
from narrows.errors import InputError
from narrows.testing import (
    bilinear_bound,
    check_kernel,
    emulate,
    exact_operands,
    linear_bound,
    normal_operands,
    statistics,
    worst,
)

ONLY_BF16 = (torch.bfloat16,)


@dataclass(frozen=True)
class Plain:
    """A right kernel of both kinds; subclasses break one step."""

    kind: str = "bilinear"
    name: str = "plain"

    def refuses(self, problem):
        del problem
        return ""

    def pack(self, factors):
        return factors

    def project(self, x, a):
        return x @ a.mT

    def combine(self, p, q):
        return p @ q

    def store(self, result, out):
        return result if out is None else out.copy_(result)

    def run(self, x, factors, y=None, *, out=None, bias=None):
        p = self.project(x, factors.a)
        other = x if y is None else y
        q = factors.b if self.kind == "linear" else self.project(other, factors.b).mT
        result = self.combine(p, q)
        return self.store(result if bias is None else result + bias, out)


class InFloat32(Plain):
    """Keeps the middle in float32, rounds once."""

    def run(self, x, factors, y=None, *, out=None, bias=None):
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        lifted = Factors(factors.a.to(wide), factors.b.to(wide))
        other, add = (None if t is None else t.to(wide) for t in (y, bias))
        return self.store(super().run(x.to(wide), lifted, other, bias=add).to(x.dtype), out)


class SplitSum(Plain):
    """Sums the ranks in two halves, each kept in float32."""

    def combine(self, p, q):
        if p.dtype == torch.float64:
            return p @ q
        half = p.shape[-1] // 2
        p32, q32 = p.float(), q.float()
        return (p32[..., :half] @ q32[..., :half, :] + p32[..., half:] @ q32[..., half:, :]).to(p.dtype)


@pytest.mark.parametrize("kernel", [Plain(), SplitSum(), InFloat32(), InFloat32("linear")])
def test_right_kernels_pass(kernel):
    check_kernel(kernel)


def test_a_bias_that_is_added_after_rounding_is_caught():
    """The declared chain rounds once, after the bias."""
    with pytest.raises(AssertionError, match=r"plain, linear T=.*T1, row-major operands: the worst"):
        check_kernel(Plain("linear"), dtypes=ONLY_BF16)


def test_a_float32_middle_can_be_held_to_its_own_bound():
    check_kernel(InFloat32("linear"), dtypes=(torch.bfloat16, torch.float16), middle=torch.float32)


def test_a_rounded_middle_fails_the_bound_of_a_float32_middle():
    with pytest.raises(AssertionError, match=r"plain, .*(T1|T2)"):
        check_kernel(Plain(), dtypes=ONLY_BF16, middle=torch.float32)


class DropsLastFeature(Plain):
    def project(self, x, a):
        return x[..., :-1] @ a[..., :-1].mT


class DropsLastRank(Plain):
    def combine(self, p, q):
        return p[..., :-1] @ q[..., :-1, :]


class SwapsFactors(Plain):
    """S^T for square weights: the transposed weight."""

    def run(self, x, factors, y=None, *, out=None, bias=None):
        if factors.in_features == factors.out_features:
            factors = Factors(factors.b, factors.a)
        return super().run(x, factors, y, out=out, bias=bias)


class LeavesOneStale(Plain):
    def store(self, result, out):
        if out is None or not out.numel():
            return super().store(result, out)
        last = out[..., -1, -1].clone()
        out.copy_(result)
        out[..., -1, -1] = last
        return out


class ReadsPastTheEdge(Plain):
    """Loads one column too many of a window and multiplies it by zero."""

    def project(self, x, a):
        if x.storage_offset() and x.numel():
            x = x + 0 * x.as_strided(x.shape, x.stride(), x.storage_offset() + 1)
        return x @ a.mT


class IgnoresStrides(Plain):
    def project(self, x, a):
        return torch.as_strided(x, x.shape, (*x.contiguous().stride(),)) @ a.mT


class ChangesItsInput(Plain):
    def project(self, x, a):
        result = x @ a.mT
        if x.numel():
            x.view(-1)[0] = 0 if x.is_contiguous() else x.view(-1)[0]
        return result


class GivesFloat32(Plain):
    def store(self, result, out):
        return super().store(result.float(), out)


@pytest.mark.parametrize(
    ("mutant", "text"),
    [
        (DropsLastFeature, r"T1, .* times its bound"),
        (DropsLastRank, r"T1, .* times its bound"),
        (SwapsFactors, r"T1, .* times its bound"),
        (LeavesOneStale, r"T1, row-major operands, out: the worst \|error\| is inf times its bound"),
        (ReadsPastTheEdge, r"T1, windowed operands: the worst \|error\| is inf"),
        (IgnoresStrides, r"T1, (column-major|windowed) operands"),
        (ChangesItsInput, r"row-major: an operand was changed"),
        (GivesFloat32, r"row-major: the result is torch\.float32, not torch\.bfloat16"),
    ],
)
def test_wrong_kernels_are_caught(mutant, text):
    with pytest.raises(AssertionError, match=rf"plain, bilinear T=.* bfloat16 on cpu, rank \d+, {text}"):
        check_kernel(mutant(), dtypes=ONLY_BF16)


class ScalesBy257Of256(Plain):
    def combine(self, p, q):
        return (p.double() @ q.double() * (1 + 2.0**-8)).to(p.dtype)


def test_a_scale_off_by_two_to_the_minus_eight_is_caught_by_whole_numbers():
    with pytest.raises(AssertionError, match=r"T3, row-major operands: \d+ of \d+ elements of an exact result differ"):
        check_kernel(ScalesBy257Of256(), dtypes=ONLY_BF16)


def test_a_scale_off_by_two_to_the_minus_eight_is_caught_by_the_statistics():
    with pytest.raises(AssertionError, match=r"T2: rms error is 1\.\d+ of what rounding explains"):
        _only_statistics(ScalesBy257Of256())


class SumsInBfloat16(Plain):
    """Partial sums of 8 ranks are rounded to bfloat16."""

    def combine(self, p, q):
        total = p[..., :8] @ q[..., :8, :]
        for start in range(8, p.shape[-1], 8):
            total = total + p[..., start : start + 8] @ q[..., start : start + 8, :]
        return total


def test_a_bfloat16_accumulator_is_caught_by_the_statistics():
    with pytest.raises(AssertionError, match=r"T2: rms error is 1\.\d+ of what rounding explains \(at most 1\.1\)"):
        _only_statistics(SumsInBfloat16())


def test_only_the_statistics_see_a_bfloat16_accumulator():
    """Small whole numbers are exact in bfloat16, and the bound allows its error: why T2 exists."""
    kernel, sizes = SumsInBfloat16(), {"tokens": 64, "in_features": 96, "out_features": 64, "rank": 32}
    exact = exact_operands("bilinear", **sizes, dtype=torch.bfloat16)
    assert torch.equal(kernel.run(exact.x, Factors(exact.a, exact.b), exact.y), exact.expected)
    random = normal_operands("bilinear", **sizes, dtype=torch.bfloat16)
    result = kernel.run(random.x, Factors(random.a, random.b), random.y)
    assert worst(result, bilinear_bound(random.x, random.a, random.b, random.y)) <= 1


class Truncates(Plain):
    """Rounds the result toward zero."""

    def combine(self, p, q):
        exact = p.double() @ q.double()
        near = exact.to(p.dtype)
        zero = torch.zeros((), dtype=p.dtype)
        return torch.where(near.double().abs() > exact.abs(), torch.nextafter(near, zero), near)


def test_truncation_is_caught_by_the_statistics():
    with pytest.raises(AssertionError, match=r"T2: .*bias is 0\.\d+ of what rounding explains \(at most 0\.05\)"):
        _only_statistics(Truncates())


def _only_statistics(kernel):
    """Run T2 on its own: the refusal leaves only its sizes."""

    class Only(type(kernel)):
        def refuses(self, problem):
            return "" if problem.tokens == 128 else "not the size of T2"

    check_kernel(Only(), dtypes=ONLY_BF16)


def test_a_kernel_that_refuses_everything_was_not_checked():
    class Shy(Plain):
        def refuses(self, problem):
            del problem
            return "not today"

    with pytest.raises(AssertionError, match=r"plain refused every case, so nothing was checked\. .*: not today"):
        check_kernel(Shy())


def test_statistics_need_ten_thousand_elements():
    operands = normal_operands("linear", tokens=4, in_features=4, out_features=4, rank=2, dtype=torch.float16)
    reference = linear_bound(operands.x, operands.a, operands.b)
    emulated = emulate(operands)
    assert worst(emulated, reference) <= 1
    with pytest.raises(InputError, match=r"result \(4, 4\) has 16 elements: T2 needs 10000"):
        statistics(emulated, reference, emulated)


def test_nan_fails_the_statistics():
    operands = normal_operands("linear", tokens=128, in_features=8, out_features=96, rank=4, dtype=torch.float16)
    reference = linear_bound(operands.x, operands.a, operands.b)
    emulated = emulate(operands)
    assert not statistics(emulated, reference, emulated).failures
    broken = emulated.clone()
    broken[3, 4] = float("nan")
    assert len(statistics(broken, reference, emulated).failures) == 3
