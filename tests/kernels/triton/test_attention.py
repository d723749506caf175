"""The decode kernels under Triton's interpreter, or on a GPU where there is one: bounds, mutants, repeats."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels.attention_operands import call, options
from narrows.kernels import ATTENTION_TRITON, DecodeConfig
from narrows.kernels._attention_config import RESERVED_BYTES, SHARED_BYTES
from narrows.kernels.triton import _attention
from narrows.kernels.triton._attention import decode, row_strides

# The interpreter's run-time loops read a number out of an array of one.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
WAYS = [
    (torch.float32, DecodeConfig(16, 1)),
    (torch.float32, DecodeConfig(32, 3)),
    (torch.float16, DecodeConfig(16, 1)),
    (torch.float16, DecodeConfig(16, 5)),
    *([(torch.bfloat16, DecodeConfig(16, 5)), (torch.bfloat16, DecodeConfig(64, 1))] if ON_GPU else []),
]
SHAPES = {
    "a head of its own": {"G": 4, "T": 1},
    "groups of two": {"G": 2, "T": 1},
    "groups of four, three queries": {"G": 1, "T": 3},
    "powers of two": {"R": 32, "F": 16, "U": 64},
    "wider keys": {"R": 36, "F": 20, "U": 33},
    "one of everything": {"B": 1, "H": 1, "G": 1, "U": 1, "R": 1, "F": 1},
}


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch):
    """Fill new memory with NaN: what a kernel leaves out then shows."""
    plain = torch.Tensor.new_empty
    monkeypatch.setattr(
        torch.Tensor,
        "new_empty",
        lambda self, size, **options: plain(self, size, **options).fill_(torch.nan if size else 0),
    )


@pytest.mark.parametrize(("dtype", "config"), WAYS, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_shape_is_within_the_derived_bound(shape, dtype, config):
    wanted = call(**shape, dtype=dtype, device=DEVICE)
    assert wanted.error(wanted.run(decode_alike, config=config)) <= 1


@pytest.mark.parametrize(("dtype", "config"), WAYS[1::2], ids=str)
@pytest.mark.parametrize("name", options())
def test_every_option_is_within_the_derived_bound(name, dtype, config):
    wanted = call(T=3, U=45, dtype=dtype, device=DEVICE, **options(dtype, DEVICE, U=45)[name])
    assert wanted.error(wanted.run(decode_alike, config=config)) <= 1


class decode_alike:  # noqa: N801 (stands where a kernel stands)
    run = staticmethod(decode)


def test_a_row_of_the_least_number_is_no_row_that_sees_nothing():
    mask = torch.zeros(3, 40, device=DEVICE)
    mask[1] = torch.finfo(torch.float32).min
    mask[1, 32:] = -torch.inf
    wanted = call(T=3, U=40, device=DEVICE, spread=1e-3, mask=mask)
    wanted.v = wanted.v.abs()
    result = wanted.run(decode_alike, config=DecodeConfig(16, 3))
    mean = wanted.v[:, :, :32].mean(2).repeat_interleave(2, 1)
    assert (result[:, :, 1] - mean).abs().max() <= 1e-3 * wanted.v.max()  # scores of 0.003 are not quite alike


def test_what_lies_beyond_the_lengths_is_not_read():
    wanted = call(lengths=torch.tensor([9, 0], device=DEVICE), device=DEVICE)
    for cache in (wanted.k, wanted.v):
        cache[0, :, 9:] = torch.nan
        cache[1] = torch.nan
    result = wanted.run(decode_alike, config=DecodeConfig(16, 3))
    assert wanted.error(result) <= 1
    assert not result[1].any()


@pytest.mark.parametrize("change", [torch.Tensor.int, torch.Tensor.long, lambda t: torch.stack([t, t + 9], 1)[:, 0]])
def test_lengths_of_either_dtype_and_any_stride_say_the_same(change):
    wanted = call(device=DEVICE, U=40, lengths=change(torch.tensor([33, 9], device=DEVICE)))
    assert wanted.error(wanted.run(decode_alike, config=DecodeConfig(16, 2))) <= 1


def test_the_sizes_by_formula_run():
    wanted = call(U=40, device=DEVICE)
    assert wanted.error(wanted.run(ATTENTION_TRITON)) <= 1


@pytest.mark.parametrize("splits", [1, 4])
def test_equal_scores_give_the_exact_mean_of_integers(splits):
    """Weights of 1, a power of two of them, integers as values: nothing rounds (tier 3)."""
    wanted = call(U=64, dtype=torch.float16, device=DEVICE)
    v = torch.randint(-8, 9, wanted.v.shape, generator=torch.Generator().manual_seed(0)).to(wanted.v)
    result = decode(torch.zeros_like(wanted.q), wanted.k, v, scale=1.0, config=DecodeConfig(16, splits))
    assert torch.equal(result, v.double().mean(-2, keepdim=True).repeat_interleave(2, 1).half())


def test_a_score_far_above_the_others_gives_its_value_itself():
    q, k = torch.full((1, 2, 1, 16), 8.0, device=DEVICE), torch.zeros(1, 1, 50, 16, device=DEVICE)
    k[0, 0, 33] = 8.0
    v = torch.randn(1, 1, 50, 20, device=DEVICE)
    for splits in (1, 3):
        result = decode(q, k, v, scale=1.0, config=DecodeConfig(16, splits))
        assert torch.equal(result, v[:, :, 33:34].expand(1, 2, 1, 20))


LAYOUTS = {
    "a longer cache": lambda t: torch.cat([t, torch.full_like(t, torch.nan)], dim=2)[:, :, : t.shape[2]],
    "keys before heads": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "rows of a wider tensor": lambda t: torch.cat([t, torch.full_like(t, torch.nan)], dim=3)[..., : t.shape[3]],
    "an odd start": lambda t: torch.cat([torch.full_like(t[..., :1], torch.nan), t], dim=3)[..., 1:],
    "one batch for all": lambda t: t[:1].expand_as(t),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_caches_are_read_where_they_lie(layout):
    wanted = call(R=16, F=24, device=DEVICE)
    wanted.q, wanted.k, wanted.v = (layout(t) for t in wanted.tensors)
    assert wanted.error(wanted.run(decode_alike, config=DecodeConfig(16, 3))) <= 1


def test_strides_are_counted_in_the_widest_load():
    assert row_strides(torch.empty(2, 3, 5, 64, dtype=torch.float16)) == (8, (120, 40, 8))
    assert row_strides(torch.empty(2, 3, 5, 20, dtype=torch.float16)) == (4, (75, 25, 5))
    assert row_strides(torch.empty(2, 3, 5, 7)) == (1, (105, 35, 7))
    assert row_strides(torch.empty(1, 3, 5, 64).expand(2, 3, 5, 64)) == (4, (0, 80, 16))
    assert row_strides(torch.empty(1, 1, 5, 8).as_strided((1, 1, 5, 8), (3, 1, 8, 1))) == (4, (0, 0, 2))


def test_repeats_are_bitwise_equal():
    wanted = call(device=DEVICE, dtype=torch.float16)
    first = wanted.run(decode_alike, config=DecodeConfig(16, 5))
    for _ in range(1000 if ON_GPU else 2):
        assert torch.equal(wanted.run(decode_alike, config=DecodeConfig(16, 5)), first)


MUTANTS = {
    "no largest score": ("attention", 'base = tl.where(higher == float("-inf"), 0.0, higher)', "base = higher * 0.0"),
    "largest score not kept": ("attention", "        top = higher\n", ""),
    "sum not shrunk": ("attention", "totals * shrink[:, None] +", "totals +"),
    "values not shrunk": ("attention", "values * shrink[:, None]", "values"),
    "stale length": ("attention", "length = tl.minimum(tl.load(lengths + batch).to(tl.int32), keys)", "length = keys"),
    "causal, one key late": ("attention", "<= length - queries + query", "<= length - queries + 1 + query"),
    "causal, from the first": ("attention", "<= length - queries + query", "<= query"),
    "last key dropped": ("attention", "blocks * (split + 1) // splits).to(tl.int32) * BLOCK_N, length)",
                         "blocks * (split + 1) // splits).to(tl.int32) * BLOCK_N, length - 1)"),
    "keys beyond the end": ("attention", "in_n = start + offs_n < last", "in_n = start + offs_n < last + 1"),
    "padded rank not masked": ("attention", "in_n[None, :] & (offs_r[:, None] < RANK)", "in_n[None, :]"),
    "wrong head": ("attention", "offs_m // queries\n", "(offs_m // queries) * 0\n"),
    "wrong key head": ("attention", "group * k_head", "0 * k_head"),
    "wrong base": ("attention", "* 1.4426950408889634", ""),
    "split dropped": ("combine", "in_s = start + offs_s < splits", "in_s = start + offs_s < splits - 1"),
    "splits not weighted": ("combine", "weights = tl.exp2(part_top - base)", "weights = tl.exp2(part_top - part_top)"),
    "sums not weighted": ("combine", "tl.sum(part_total * weights, 0)", "tl.sum(part_total, 0)"),
    "rows swapped": ("combine", "(part * rows + row)[:, None]", "(part * rows + rows - 1 - row)[:, None]"),
}  # fmt: skip


def telling_calls():
    """Return a call with large scores and all options, and two with even scores; NaN lies around both caches."""
    lengths = torch.tensor([70], device=DEVICE)
    mask = options(B=1, device=DEVICE)["float mask"]["mask"]
    for spread, asked in ((60.0, {"causal": True, "mask": mask}), (1.0, {}), (1.0, {"causal": True})):
        wanted = call(B=1, T=3, device=DEVICE, spread=spread, lengths=lengths, **asked)
        for layout in ("a longer cache", "rows of a wider tensor"):
            wanted.k, wanted.v = (LAYOUTS[layout](t) for t in (wanted.k, wanted.v))
        yield wanted


def worst_of_all():
    return max(wanted.error(wanted.run(decode_alike, config=DecodeConfig(16, 2))) for wanted in telling_calls())


def test_the_kernel_that_is_not_mutated_is_right():
    assert worst_of_all() <= 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy sees the NaN that a mutant makes
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_wrong_kernel_is_caught(mutant, monkeypatch, tmp_path):
    """What the mutated line does must show as NaN or beyond the bound."""
    use_mutant(monkeypatch, tmp_path, *mutant)
    assert worst_of_all() > 1


def use_mutant(monkeypatch, folder, name, line, instead):
    """Put a kernel in which one line is changed in the place of its own."""
    source = Path(_attention.__file__).parent / "device" / f"{name}.py"
    text = source.read_text()
    assert text.count(line) == 1, "the mutant's line is not there once"
    path = folder / f"mutant_{name}.py"
    path.write_text(text.replace(line, instead))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, f"narrows.kernels.triton.device.{name}", module)
    monkeypatch.setattr(sys.modules["narrows.kernels.triton.device"], name, module, raising=False)
    for cached in (_attention._split_launch, _attention._combine_launch):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def _fresh_launches():
    yield
    _attention._split_launch.cache_clear()
    _attention._combine_launch.cache_clear()


def test_a_reset_of_the_mutants_restores_the_kernel(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        use_mutant(patch, tmp_path, *MUTANTS["stale length"])
    _attention._split_launch.cache_clear()
    assert worst_of_all() <= 1


# (R, F, dtype, rows of a key head) of a launch by formula, and how many of its programs fit a multiprocessor. The
# formula plans 2 at most.
SHIPPED = {
    (128, 128, "bf16", 4): 3,
    (64, 128, "bf16", 4): 4,
    (64, 64, "bf16", 4): 3,
    (64, 64, "bf16", 16): 3,
    (32, 128, "bf16", 4): 4,
    (32, 64, "bf16", 4): 4,
    (20, 36, "fp16", 64): 3,
    (64, 64, "bf16", 64): 2,
    (512, 512, "bf16", 64): 1,
    (128, 128, "fp32", 16): 3,
}


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
def test_shipped_sizes_compile_for_sm_90_without_spills_and_with_room_for_their_programs():
    """In a process of its own: here the interpreter was chosen when triton was imported."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_attention.py")
    cases = [",".join(map(str, case)) for case in SHIPPED]
    done = subprocess.run([sys.executable, script, *cases], env=environment, check=True, capture_output=True, text=True)
    for (case, programs), line in zip(SHIPPED.items(), done.stdout.splitlines(), strict=True):
        shared, registers, threads, spilled, widest = map(int, line.split())
        assert spilled == 0, case
        assert programs * (shared + RESERVED_BYTES) <= SHARED_BYTES, (case, shared)
        assert programs * registers * threads <= 65536, (case, registers)
        assert widest == (8 if case[0] == 20 else 16), "bytes of the widest asynchronous copy of keys"


def alike(a, b, size, scale, BLOCK, WIDTH): ...  # the parameters of a kernel


class Compiled:
    """Stands in for a `triton.jit` function and for what it compiled."""

    packed_metadata, function, fn = "metadata", "function", staticmethod(alike)

    def __init__(self):
        self.bound, self.direct = [], []

    def __getitem__(self, grid):
        def launch(*args, **constants):
            self.bound.append((grid, args, constants))
            return self

        return launch

    def run(self, *args):
        self.direct.append(args)


def test_the_second_launch_hands_over_what_the_first_one_bound_whatever_the_numbers():
    compiled = Compiled()
    launch = _attention.VaryingLaunch(compiled, {"WIDTH": 5, "BLOCK": 4, "num_warps": 8})
    tensor = torch.empty(64)
    launch(2, 7, (tensor, None), (3, 0.5))
    launch(9, 7, (None, tensor), (4, 0.25))
    assert compiled.bound == [((2, 1, 1), (tensor, None, 3, 0.5), {"WIDTH": 5, "BLOCK": 4, "num_warps": 8})]
    start = (9, 1, 1, 7, "function", "metadata", None, None, None)
    assert compiled.direct == [(*start, 0, tensor.data_ptr(), 4, 0.25, 4, 5)]


def test_an_odd_address_is_bound_again_and_leaves_no_handle():
    compiled = Compiled()
    launch = _attention.VaryingLaunch(compiled, {"WIDTH": 5, "BLOCK": 4})
    odd, even = torch.empty(64)[1:], torch.empty(64)
    for tensor in (odd, even, odd):
        launch(1, 0, (tensor,), ())
    assert len(compiled.bound) == 3
    launch(1, 0, (even,), ())
    assert len(compiled.direct) == 1
