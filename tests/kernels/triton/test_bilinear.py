"""Own bilinear kernels, interpreted where there is no GPU: every form, size, layout and epilogue."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from kernels.test_chains import OTHER_SHAPES, SELF_SHAPES
from kernels.triton.scores import DEVICE, LARGE, SPLIT, Sized, assert_right, finished, make
from narrows import Factors, Problem
from narrows._oracle import poisoned
from narrows.errors import ImplementationError
from narrows.kernels import kernel
from narrows.kernels._config import Config, Tiles
from narrows.kernels._epilogue import Epilogue
from narrows.kernels.triton import _bilinear, _bilinear_plan
from narrows.kernels.triton._bilinear import BilinearTriton
from narrows.kernels.triton._support import unsupported
from narrows.testing import check_kernel, exact_operands

DTYPES = [torch.float32, torch.float16]
SHARED_X = {name: shapes for name, shapes in SELF_SHAPES.items() if "x of every head" not in name}
OTHERS = OTHER_SHAPES | {
    "both have batches that differ": ((2, 1, 7, 12), (3, 12), (1, 3, 5, 10)),
    "x shared, heads": ((7, 12), (4, 3, 12), (2, 1, 5, 10)),
}


def operands(shapes, dtype):
    x, a, y = shapes
    width = x[-1] if y is None else y[-1]
    factors = Factors(make(*a, dtype=dtype), make(*a[:-1], width, dtype=dtype, seed=1))
    return make(*x, dtype=dtype, seed=2), factors, None if y is None else make(*y, dtype=dtype, seed=3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_they_pass_the_conformance_check(dtype):
    check_kernel(Sized(LARGE), dtypes=[dtype], device=DEVICE)


def test_they_pass_the_conformance_check_with_a_split_sum(monkeypatch):
    from narrows._oracle import _check_kernel

    monkeypatch.setattr(_check_kernel, "CASES", _check_kernel.CASES[1:9:3])
    check_kernel(Sized(Config(Tiles(64, 64, 32, split=3), Tiles(64, 64, 64))), dtypes=[torch.float16], device=DEVICE)


@pytest.mark.parametrize("config", [LARGE, SPLIT], ids=["whole", "split"])
@pytest.mark.parametrize("is_interleaved", [True, False], ids=["pair", "two factors"])
@pytest.mark.parametrize("shapes", SHARED_X.values(), ids=SHARED_X)
def test_scores_with_itself_are_within_the_bound(shapes, is_interleaved, config):
    x, factors, _ = operands(shapes, torch.float16)
    factors = factors.interleaved() if is_interleaved else factors
    result = BilinearTriton().run_with(config, x, factors)
    assert_right(result, finished(x, factors.a, factors.b, x))
    assert result.is_contiguous()


@pytest.mark.parametrize("config", [LARGE, SPLIT], ids=["whole", "split"])
@pytest.mark.parametrize("shapes", OTHERS.values(), ids=OTHERS)
def test_scores_with_another_are_within_the_bound(shapes, config):
    x, factors, y = operands(shapes, torch.float32)
    result = BilinearTriton().run_with(config, x, factors, y)
    assert_right(result, finished(x, factors.a, factors.b, y))


@pytest.mark.parametrize("config", [LARGE, SPLIT], ids=["whole", "split"])
@pytest.mark.parametrize("rank", [1, 5])
@pytest.mark.parametrize("is_interleaved", [True, False], ids=["pair", "two factors"])
def test_factors_cut_to_a_smaller_rank_run_as_a_view(is_interleaved, rank, config):
    for heads in ((), (3,)):
        full = Factors(make(*heads, 6, 20), make(*heads, 6, 20, seed=1))
        factors = (full.interleaved() if is_interleaved else full).truncate(rank)
        x = make(2, 1, 17, 20)
        result = BilinearTriton().run_with(config, x, factors)
        assert_right(result, finished(x, factors.a, factors.b, x))


@pytest.mark.parametrize(("tokens", "others", "width", "rank"), [(1, 1, 1, 1), (63, 1, 13, 3), (1, 17, 37, 16)])
@pytest.mark.parametrize("config", [LARGE, SPLIT], ids=["whole", "split"])
def test_odd_sizes_give_exact_integers(tokens, others, width, rank, config):
    sizes = {"tokens": tokens, "other_tokens": others, "in_features": width, "out_features": width + 2, "rank": rank}
    data = exact_operands("bilinear", **sizes, dtype=torch.float16, device=DEVICE)
    result = BilinearTriton().run_with(config, data.x, Factors(data.a, data.b), data.y)
    assert torch.equal(result, data.expected)


@pytest.mark.parametrize("group", [2, 3, 8])
def test_rows_of_tiles_that_are_taken_in_groups_are_all_written(monkeypatch, group):
    monkeypatch.setattr(_bilinear_plan, "GROUP", group)
    data = exact_operands("bilinear", tokens=70, in_features=24, out_features=24, rank=4, dtype=torch.float16,
                          other_tokens=23, device=DEVICE)  # fmt: skip
    config = Config(Tiles(16, 16, 16), Tiles(16, 16, 16))  # 5 rows of 2 tiles: no group size divides them
    out = poisoned(data.expected.shape, torch.float16, DEVICE)
    BilinearTriton().run_with(config, data.x, Factors(data.a, data.b), data.y, out=out)
    assert torch.equal(out, data.expected)


EPILOGUES = {
    "scale": lambda shape: Epilogue(scale=-0.3),
    "softcap": lambda shape: Epilogue(softcap=2.5),
    "bool mask": lambda shape: Epilogue(mask=make(*shape) > 0),
    "mask of a row": lambda shape: Epilogue(mask=make(1, shape[-1]) > 0),
    "added mask of a column": lambda shape: Epilogue(mask=make(shape[-2], 1)),
    "added mask of a batch": lambda shape: Epilogue(mask=make(*shape[:-3], 1, *shape[-2:])),
    "mask that is a transposed view": lambda shape: Epilogue(mask=make(*shape).mT.contiguous().mT),
    "causal": lambda shape: Epilogue(is_causal=True),
    "all": lambda shape: Epilogue(0.5, 3.0, make(shape[-2], shape[-1]), is_causal=True),
}


@pytest.mark.parametrize("epilogue", EPILOGUES.values(), ids=EPILOGUES)
@pytest.mark.parametrize("others", [None, 21], ids=["square", "wide"])
def test_an_epilogue_is_applied_in_float32_and_rounded_once(epilogue, others):
    x, a = make(2, 1, 17, 12), make(3, 5, 12)
    y = None if others is None else make(2, 1, others, 12, seed=5)
    factors = Factors(a, make(3, 5, 12, seed=1)).interleaved()
    finish = epilogue((2, 3, 17, others or 17))
    result = BilinearTriton().run_with(LARGE, x, factors, y, epilogue=finish)
    assert_right(result, finished(x, factors.a, factors.b, x if y is None else y, finish))


def test_a_mask_whose_batches_have_no_one_stride_is_right_too():
    x, factors = make(2, 3, 5, 12), Factors(make(2, 12), make(2, 12, seed=1))
    for mask in (make(2, 1, 5, 5), make(1, 3, 5, 5), make(3, 2, 5, 5).transpose(0, 1)):
        finish = Epilogue(mask=mask)
        result = BilinearTriton().run_with(LARGE, x, factors, epilogue=finish)
        assert_right(result, finished(x, factors.a, factors.b, x, finish))


def test_scale_mask_and_causal_are_exact_on_integers():
    data = exact_operands("bilinear", tokens=19, in_features=24, out_features=24, rank=4, dtype=torch.float16,
                          other_tokens=23, device=DEVICE)  # fmt: skip
    mask = (make(19, 23) > -0.5).half() * 3
    for factor in (2.0, -0.5):
        finish = Epilogue(scale=factor, mask=mask, is_causal=True)
        result = BilinearTriton().run_with(SPLIT, data.x, Factors(data.a, data.b), data.y, epilogue=finish)
        assert torch.equal(result, finish.apply_(data.expected.clone()))


def test_a_softcap_is_as_exact_as_float32_near_zero_and_far_away():
    x = torch.cat([torch.logspace(-6, 1.5, 2000), torch.tensor([0.0, 0.6249, 0.625, 0.6251, 88.0, 3e4])])
    x = torch.cat([x, -x]).unsqueeze(1).to(DEVICE)
    one = torch.ones(1, 1, device=DEVICE)
    result = BilinearTriton().run_with(LARGE, x, Factors(one, one), one, epilogue=Epilogue(softcap=1.0))
    exact = torch.tanh(x.double())
    assert ((result.double() - exact).abs() <= 4 * 2.0**-23 * exact.abs()).all()


LAYOUTS = {
    "transposed": lambda t: t.mT.contiguous().mT,
    "every second row": lambda t: torch.stack((t, torch.full_like(t, torch.nan)), dim=-2)[..., 0, :],
    "every second column": lambda t: torch.stack((t, torch.full_like(t, torch.nan)), dim=-1)[..., 0],
    "a window": lambda t: torch.nn.functional.pad(t, (3, 2, 1, 2), value=torch.nan)[..., 1:-2, 3:-2],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("config", [LARGE, SPLIT], ids=["whole", "split"])
def test_operands_of_any_strides_give_the_same_bits(layout, config):
    for lead, heads in (((), ()), ((2, 1), (3,))):
        x, a, b, y = make(*lead, 9, 20), make(*heads, 3, 20), make(*heads, 3, 20, seed=1), make(*lead, 7, 20, seed=2)
        expected = BilinearTriton().run_with(config, x, Factors(a, b), y)
        result = BilinearTriton().run_with(config, layout(x), Factors(layout(a), layout(b)), layout(y))
        assert torch.equal(result, expected)


def test_rows_repeated_by_expand_are_read_as_they_are():
    x = make(1, 20).expand(9, 20)
    factors = Factors(make(3, 20), make(3, 20, seed=1))
    assert torch.equal(
        BilinearTriton().run_with(LARGE, x, factors), BilinearTriton().run_with(LARGE, x.clone(), factors)
    )


@pytest.mark.parametrize("shape", [(0, 12), (2, 0, 12), (0, 7, 12)])
def test_no_rows_give_an_empty_result(shape):
    factors = Factors(make(3, 12), make(3, 12, seed=1))
    x = torch.empty(shape, device=DEVICE)
    assert BilinearTriton().run_with(LARGE, x, factors).shape == (*shape[:-1], shape[-2])
    assert BilinearTriton().run_with(LARGE, make(4, 12), factors, torch.empty(0, 12, device=DEVICE)).shape == (4, 0)


def test_repeats_are_equal_bit_for_bit_and_share_one_plan():
    mine = BilinearTriton()
    x, factors = make(33, 40), Factors(make(5, 40), make(5, 40, seed=1)).interleaved()
    results = [mine.run_with(SPLIT, x, factors) for _ in range(3)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert len(mine._plans) == 1


def test_what_a_call_depends_on_has_a_plan_of_its_own():
    mine = BilinearTriton()
    x, factors = make(8, 12), Factors(make(3, 12), make(3, 12, seed=1))
    calls = [
        (LARGE, x, factors, Epilogue()),
        (SPLIT, x, factors, Epilogue()),
        (LARGE, x, factors.interleaved(), Epilogue()),
        (LARGE, x.half(), factors.to(torch.float16), Epilogue()),
        (LARGE, x[:5], factors, Epilogue()),
        (LARGE, make(8, 13)[:, :12], factors, Epilogue()),
        (LARGE, x, factors, Epilogue(scale=0.5)),
        (LARGE, x, factors, Epilogue(scale=0.25)),
        (LARGE, x, factors, Epilogue(is_causal=True)),
        (LARGE, x, factors, Epilogue(mask=make(8, 8))),
        (LARGE, x, factors, Epilogue(mask=make(8, 8) > 0)),
    ]
    for count, (config, rows, given, finish) in enumerate(calls, start=1):
        result = mine.run_with(config, rows, given, epilogue=finish)
        assert_right(result, finished(rows, given.a, given.b, rows, finish))
        assert len(mine._plans) == count


def test_plans_are_bounded(monkeypatch):
    monkeypatch.setattr(_bilinear, "MOST_PLANS", 2)
    mine, factors = BilinearTriton(), Factors(make(2, 6), make(2, 6, seed=1))
    for tokens in (1, 2, 3, 1):
        assert mine.run_with(LARGE, make(tokens, 6), factors).shape == (tokens, tokens)
        assert len(mine._plans) <= 2


def test_x_that_differs_by_head_is_refused_with_its_sizes():
    x, factors = make(4, 7, 12), Factors(make(4, 3, 12), make(4, 3, 12, seed=1))
    with pytest.raises(ImplementationError, match=r"x \(4, 7, 12\) differs by head \(H=4\)"):
        BilinearTriton().run_with(LARGE, x, factors)
    with pytest.raises(ImplementationError, match=r"y \(4, 7, 12\) differs by head \(H=4\)"):
        BilinearTriton().run_with(LARGE, x[0], factors, x)


def test_what_cannot_run_says_why(monkeypatch):
    problem = Problem("bilinear", 7, 12, 12, dtype="float64", device=DEVICE)
    assert "dtype=float64" in kernel("bilinear", "triton").refuses(problem)
    with pytest.raises(ImplementationError, match="dtype=float64"):
        BilinearTriton().run_with(LARGE, make(3, 12).double(), Factors(make(1, 12).double(), make(1, 12).double()))
    assert "linear" in BilinearTriton().refuses(Problem("linear", 7, 12, 12))
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert unsupported("bfloat16", "cpu") == "triton runs on a CUDA device; this problem is on cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert unsupported("float16", "cuda:5") == "triton needs compute capability 8.0; cuda:5 has 7.5"


def test_bfloat16_is_refused_by_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "interpreter" in unsupported("bfloat16", "cpu")
    assert unsupported("float16", "cpu") == ""


def test_the_implementations_are_named_without_importing_triton():
    code = (
        "import sys, narrows; from narrows.kernels import kernel;"
        "kernel('bilinear', 'triton').refuses(narrows.Problem('bilinear', 4, 8, 8)); print('triton' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False"]
