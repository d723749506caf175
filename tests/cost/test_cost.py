"""FLOPs and bytes by formula against a count by hand, and the limit."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from narrows import Problem, kernels
from narrows._cost import Cost, dense_cost, limit_ns, thin_cost
from narrows._values import Ceilings, Factors
from narrows.errors import InputError

T, U, D, E, R, H = 6, 5, 8, 8, 3, 2


def test_the_origins_formulas_are_the_special_case_of_one_head_and_y_equal_x():
    problem = Problem("bilinear", 64, 4096, 4096)
    assert dense_cost(problem, "left").flops == 2 * (64 * 4096**2 + 64**2 * 4096)
    assert thin_cost(problem, 64).flops == 2 * (64 * 4096 * 64 + 64 * 4096 * 64 + 64 * 64 * 64)


@pytest.mark.parametrize("heads", [1, H])
@pytest.mark.parametrize("association", ["left", "right"])
def test_dense_flops_are_what_torch_counts(association, heads):
    problem = Problem("bilinear", T, D, E, other_tokens=U, heads=heads)
    weight = torch.randn(heads, E, D) if heads > 1 else torch.randn(E, D)
    with FlopCounterMode(display=False) as counter:
        kernels.dense_run(association, torch.randn(T, D), weight, torch.randn(U, E))
    assert dense_cost(problem, association).flops == counter.get_total_flops()


@pytest.mark.parametrize("heads", [1, H])
@pytest.mark.parametrize("kind", ["linear", "bilinear"])
def test_thin_flops_are_what_torch_counts(kind, heads):
    problem = Problem(kind, T, D, E, other_tokens=U if kind == "bilinear" else None, heads=heads)
    lead = (heads,) if heads > 1 else ()
    factors = Factors(torch.randn(*lead, R, D), torch.randn(*lead, R, E))
    y = torch.randn(U, E) if kind == "bilinear" else None
    with FlopCounterMode(display=False) as counter:
        kernels.kernels_for(kind)[0].run(torch.randn(T, D), factors, y)
    assert thin_cost(problem, R).flops == counter.get_total_flops()


def test_bytes_count_each_operand_once_and_x_once_where_both_sides_use_it():
    shared = thin_cost(Problem("bilinear", T, D, E), R)
    own = thin_cost(Problem("bilinear", T, D, E, other_tokens=T), R)
    assert shared.bytes_read == 4 * (T * D + R * (D + E))
    assert own.bytes_read - shared.bytes_read == 4 * T * E
    assert shared.bytes_written == own.bytes_written == 4 * T * T


def test_half_precision_halves_every_byte_and_no_flop():
    full, half = (dense_cost(Problem("linear", T, D, E, dtype=d), "linear") for d in ("float32", "bfloat16"))
    assert (half.bytes_read * 2, half.memory_bytes * 2, half.flops) == (full.bytes_read, full.memory_bytes, full.flops)


def test_a_product_as_given_costs_what_its_thin_chain_costs():
    problem = Problem("bilinear", T, D, E, given_rank=R)
    assert dense_cost(problem, "given") == thin_cost(problem, R)


def test_shared_keys_are_counted_once_a_group():
    product = {"heads": 4, "given_rank": R, "other_tokens": U}
    full, shared = (dense_cost(Problem("bilinear", T, D, E, kv_heads=g, **product), "given") for g in (4, 2))
    assert full.flops - shared.flops == 2 * 2 * U * E * R
    assert full.bytes_read - shared.bytes_read == 4 * 2 * R * E


def test_an_association_that_does_not_belong_is_refused_with_its_kind():
    with pytest.raises(InputError, match="association='left' does not belong to kind='linear'"):
        dense_cost(Problem("linear", T, D, E), "left")
    with pytest.raises(InputError, match="association='given' needs a weight that was given as a product"):
        dense_cost(Problem("bilinear", T, D, E, other_tokens=U), "given")
    with pytest.raises(InputError, match="given"):
        dense_cost(Problem("bilinear", T, D, E), "given")


CEILINGS = Ceilings("float32", 10e9, 5e9, 40e9, 20e9, 7e9, 100e9, (1, 1, 1), 1000.0, 100.0, 32 << 20)


def test_the_limit_is_the_larger_of_moving_and_computing_plus_launches():
    moving = Cost(flops=1, bytes_read=10**9, bytes_written=10**9, intermediate_bytes=0)
    computing = Cost(flops=10**12, bytes_read=1, bytes_written=1, intermediate_bytes=0)
    assert limit_ns(moving, 2, CEILINGS, mode="eager", cache="cold") == pytest.approx(0.3e9 + 2000)
    assert limit_ns(computing, 1, CEILINGS, mode="graph", cache="cold") == pytest.approx(10e9 + 100)


def test_hot_rows_are_held_to_the_caches_ceilings_only_while_they_fit():
    fits = Cost(0, 10**6, 10**6, 0)
    too_large = Cost(0, 10**9, 10**6, 0)
    assert limit_ns(fits, 0, CEILINGS, mode="eager", cache="hot") == pytest.approx(1e6 / 40 + 1e6 / 20)
    assert limit_ns(fits, 0, CEILINGS, mode="eager", cache="cold") == pytest.approx(1e6 / 10 + 1e6 / 5)
    assert limit_ns(too_large, 0, CEILINGS, mode="eager", cache="hot") == pytest.approx(1e9 / 10 + 1e6 / 5)


def test_launches_overlap_with_work_on_a_device_that_works_while_the_host_launches():
    cost = Cost(flops=10**12, bytes_read=1, bytes_written=1, intermediate_bytes=0)
    tiny = Cost(flops=1, bytes_read=1, bytes_written=1, intermediate_bytes=0)
    assert limit_ns(cost, 2, CEILINGS, mode="eager", cache="hot", is_asynchronous=True) == pytest.approx(10e9)
    assert limit_ns(tiny, 2, CEILINGS, mode="eager", cache="hot", is_asynchronous=True) == pytest.approx(2000)
