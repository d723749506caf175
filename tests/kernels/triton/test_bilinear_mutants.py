"""Wrong kernels that must not pass: what the conformance check and the epilogue's bound are worth."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kernels.triton.scores import DEVICE, LARGE, Sized, assert_right, finished, make
from narrows import Factors
from narrows._oracle import _check_kernel
from narrows.kernels._config import Config, Tiles
from narrows.kernels._epilogue import Epilogue
from narrows.kernels.triton._bilinear import BilinearTriton
from narrows.kernels.triton._launch import Launch
from narrows.testing import check_kernel

# What a wrong kernel reads may be anything; the interpreter computes with numpy, which warns.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SPLIT = Config(Tiles(64, 64, 16, split=3), Tiles(64, 64, 64))


class Relaunched(BilinearTriton):
    """Launches one kernel of the chain with other arguments."""

    def __init__(self, launch, change):
        super().__init__()
        object.__setattr__(self, "_launch", launch)
        object.__setattr__(self, "_change", change)

    def _make(self, *args):
        plan = BilinearTriton._make(self, *args)
        launch = getattr(plan, self._launch)
        if launch is None:
            return plan
        scalars, constants = list(launch._scalars), dict(launch._constants)
        self._change(scalars, constants)
        changed = Launch(launch._function, launch._grid, tuple(scalars), constants)
        return dataclasses.replace(plan, **{self._launch: changed})


class Altered(BilinearTriton):
    """Changes a right result, or what goes in."""

    def __init__(self, after=None, before=None):
        super().__init__()
        object.__setattr__(self, "_after", after)
        object.__setattr__(self, "_before", before)

    def run_with(self, config, x, factors, y=None, **options):
        if self._before is not None:
            factors = self._before(factors)
        result = BilinearTriton.run_with(self, config, x, factors, y, **options)
        return result if self._after is None else self._after(result)


class LowSums(BilinearTriton):
    """Rounds the sum over the rank to the dtype after every 8 ranks."""

    def run_with(self, config, x, factors, y=None, *, out=None):
        total = None
        for first in range(0, factors.rank, 8):
            part = Factors(factors.a[..., first : first + 8, :], factors.b[..., first : first + 8, :])
            scores = BilinearTriton.run_with(self, config, x, part, y)
            total = scores if total is None else total + scores
        return total if out is None else out.copy_(total)


def in_8_bits(tensor):
    return tensor.to(torch.float8_e4m3fn).to(tensor.dtype)


def set_constant(name, value):
    def change(scalars, constants):
        constants[name] = value(constants[name])

    return change


def add_to_scalar(index, value):
    def change(scalars, constants):
        scalars[index] += value

    return change


def last_row_again(scores):
    if scores.ndim == 2 and len(scores) > 1:
        scores[-1] = scores[-2]
    return scores


def transposed_tile(scores):
    scores[..., :16, :16] = scores[..., :16, :16].mT.clone() if min(scores.shape[-2:]) >= 16 else scores[..., :16, :16]
    return scores


def toward_zero(scores):
    """Round to 8 bits fewer by truncation, as a store that cuts bits off does."""
    bits = scores.view(torch.int16)
    bits &= -4
    return scores


def one_stale_element(scores):
    if scores.numel() > 1:
        scores[..., -1, 0] = scores[..., 0, -1]
    return scores


MUTANTS = {
    "the last inner element is dropped": Relaunched("project_x", add_to_scalar(1, -1)),
    "the last rank is dropped": Relaunched("scores", set_constant("RANK", lambda rank: max(rank - 1, 1))),
    "the last column is not written": Relaunched("scores", add_to_scalar(1, -1)),
    "the last row is not written": Relaunched("scores", add_to_scalar(0, -1)),
    "reads run past the last inner element": Relaunched("project_x", add_to_scalar(1, 1)),
    "rows of q are taken one too near": Relaunched("scores", add_to_scalar(8, -1)),
    "the last row is a copy of the one before": Altered(last_row_again),
    "one 16 x 16 tile is transposed": Altered(transposed_tile),
    "one element is stale": Altered(one_stale_element),
    "scores are scaled by 1 + 2^-8": Altered(lambda scores: scores.mul_(1 + 2.0**-8)),
    "scores are cut and not rounded": Altered(toward_zero),
    "factors are rounded to 8 bits": Altered(before=lambda f: Factors(in_8_bits(f.a), in_8_bits(f.b))),
}
SELF_MUTANTS = {
    "a pair is not put apart": Relaunched("project_x", set_constant("IS_PAIR", lambda _: False)),
    "a and b are swapped": Altered(
        before=lambda f: Factors(f.b, f.a) if f.in_features == f.out_features and f.rank > 1 else f
    ),
    "sums over the rank are rounded every 8": LowSums(),
}
SPLIT_MUTANTS = {
    "a part of the sum is dropped": Relaunched("reduce", set_constant("SPLIT", lambda split: split - 1)),
    "the sum stops before its last element": Relaunched("reduce", add_to_scalar(0, -1)),
    "a part covers too few features": Relaunched("project_x", set_constant("STEPS", lambda steps: max(steps - 1, 0))),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_the_check_catches(mutant):
    with pytest.raises(AssertionError, match=r"sized, .*(T1|T2|T3)"):
        check_kernel(Sized(LARGE, mutant), dtypes=[torch.float16], device=DEVICE)


@pytest.mark.parametrize("mutant", SELF_MUTANTS.values(), ids=SELF_MUTANTS)
def test_the_cases_of_y_equal_x_catch(mutant, monkeypatch):
    monkeypatch.setattr(_check_kernel, "CASES", tuple(case for case in _check_kernel.CASES if case.is_self)[:1])
    with pytest.raises(AssertionError, match=r"sized, .*(T1|T2|T3)"):
        check_kernel(Sized(LARGE, mutant), dtypes=[torch.float16], device=DEVICE)


@pytest.mark.parametrize("mutant", SPLIT_MUTANTS.values(), ids=SPLIT_MUTANTS)
def test_the_check_catches_in_a_split_sum(mutant):
    with pytest.raises(AssertionError, match=r"sized, .*(T1|T2|T3)"):
        check_kernel(Sized(SPLIT, mutant), dtypes=[torch.float16], device=DEVICE)


EPILOGUE_MUTANTS = {
    "the scale is missing": set_constant("HAS_SCALE", lambda _: False),
    "the softcap is missing": set_constant("HAS_SOFTCAP", lambda _: False),
    "the causal mask is missing": set_constant("IS_CAUSAL", lambda _: False),
    "the mask is missing": set_constant("MASK", lambda _: ""),
    "the scale is off by 2^-8": lambda scalars, constants: scalars.__setitem__(-2, scalars[-2] * (1 + 2.0**-8)),
    "the softcap is off by 2^-8": lambda scalars, constants: scalars.__setitem__(-1, scalars[-1] * (1 + 2.0**-8)),
    "rows of the mask are repeated": lambda scalars, constants: scalars.__setitem__(13, 0),
}
FINISH = Epilogue(0.5, 2.0, make(17, 17), is_causal=True)


def check_finish(kernel, finish=FINISH):
    x, factors = make(17, 12), Factors(make(5, 12), make(5, 12, seed=1))
    result = kernel.run_with(LARGE, x, factors, epilogue=finish)
    assert_right(result, finished(x, factors.a, factors.b, x, FINISH))


def test_a_right_epilogue_passes_the_check_of_its_mutants():
    check_finish(BilinearTriton())


@pytest.mark.parametrize("change", EPILOGUE_MUTANTS.values(), ids=EPILOGUE_MUTANTS)
def test_the_bound_of_an_epilogue_catches(change):
    with pytest.raises(AssertionError):
        check_finish(Relaunched("scores", change))


@pytest.mark.parametrize("diagonal", [-1, 1])
def test_the_bound_of_an_epilogue_catches_a_causal_mask_that_is_off_by_one(diagonal):
    hidden = ~torch.ones(17, 17, dtype=torch.bool, device=DEVICE).tril(diagonal)
    shifted = Epilogue(0.5, 2.0, FINISH.mask.masked_fill(hidden, -torch.inf))
    with pytest.raises(AssertionError):
        check_finish(BilinearTriton(), shifted)
