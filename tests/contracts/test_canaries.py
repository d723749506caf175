"""Every checker has a canary: a test in which it meets something wrong, and says so.

Checks that raise an error of narrows have theirs in test_error_texts.py, which looks for a test of every text. Here
are those that answer, count or assert: what judges results, what scans the project, what the tests share, the parts
of the long run.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from narrows import testing

TESTS = Path(__file__).parents[1]
OPTIMALITY, CHECK_KERNEL = "decompose/test_optimality.py::", "oracle/test_check_kernel.py::"

# What judges results, at run time and in tests -> the test, below tests/, in which it meets something wrong.
JUDGES = {
    "narrows.testing.Arithmetic": "oracle/test_bounds.py::test_an_element_twice_its_bound_away_is_wrong",
    "narrows.testing.BilinearOracle": "oracle/test_bounds.py::test_an_element_twice_its_bound_away_is_wrong",
    "narrows.testing.LinearOracle": "oracle/test_bounds.py::test_an_element_twice_its_bound_away_is_wrong",
    "narrows.testing.Reference": "oracle/test_bounds.py::test_an_exact_element_needs_no_bound_and_a_wrong_one_has_none",
    "narrows.testing.Statistics": CHECK_KERNEL + "test_nan_fails_the_statistics",
    "narrows.testing.bilinear_bound": "oracle/test_bounds.py::test_the_bound_is_a_few_roundings_wide",
    "narrows.testing.check_kernel": CHECK_KERNEL + "test_wrong_kernels_are_caught",
    "narrows.testing.dense_bilinear_bound": "benchmarks/test_chain.py::test_float64_finds_a_wrong_dense_form",
    "narrows.testing.dense_linear_bound": "bench/test_layers.py::test_a_wrong_result_has_no_time",
    "narrows.testing.exact_operands": "oracle/test_exact_data.py::test_leaving_out_one_index_changes_the_result",
    "narrows.testing.linear_bound": "oracle/test_bounds.py::test_the_bound_is_a_few_roundings_wide",
    "narrows.testing.optimal_tail": OPTIMALITY + "test_a_transposed_weight_fails_the_optimality_check",
    "narrows.testing.poisoned": CHECK_KERNEL + "test_wrong_kernels_are_caught",
    "narrows.testing.statistics": CHECK_KERNEL + "test_a_bfloat16_accumulator_is_caught_by_the_statistics",
    "narrows.testing.svd_tolerance": OPTIMALITY + "test_swapped_singular_values_fail_the_optimality_check",
    "narrows.testing.worst": "oracle/test_bounds.py::test_non_finite_results_are_infinitely_wrong",
    "narrows._oracle._attention.attention_bound": "kernels/test_attention.py::test_the_bound_catches",
    "narrows.bench._gate": "bench/test_gate.py::test_a_wrong_kernel_has_no_time",
    "narrows.bench._layers_calls": "bench/test_layers.py::test_a_wrong_result_has_no_time",
    "narrows.kernels.tuned._verify": "kernels/tuned/test_verify.py::test_a_wrong_element_fails_with_its_size",
    "narrows._stats._doubt": "stats/test_doubt.py::test_a_row_faster_than_the_limit_is_named_with_both_times",
    "narrows.models._manifest": "models/test_load.py::test_swapped_shards_are_found",
}
# What of narrows.testing makes operands and judges nothing.
MAKERS = {"Operands", "emulate", "gallery", "normal_operands"}
# What scans the project.
SCANS = {
    "test_canaries.py": "test_a_checker_without_a_canary_is_found",
    "test_docs.py": "test_a_wrong_option_in_a_page_is_found",
    "test_error_texts.py": "test_a_text_that_no_test_matches_is_found",
    "test_floors.py": "test_an_import_from_above_is_reported_with_its_line",
    "test_fresh_imports.py": "test_the_check_sees_an_import",
    "test_gpu_target.py": "test_a_failing_test_stops_everything",
    "test_project.py": "test_the_search_for_words_finds_one",
    "test_public_names.py": "test_an_unknown_name_is_refused_with_the_known_ones",
    "test_readme_gpu.py": "test_a_missed_target_is_said_with_its_figure",
    "test_readme_table.py": "test_a_readme_without_markers_is_refused",
}
# What asserts on behalf of several tests -> its canary.
SHARED = {
    "cli/test_bad_input.py::check": ("cli/test_bad_input.py::test_these_checks_would_see_a_traceback_and_a_wrong_code"),
    "kernels/attention_operands.py::error": "kernels/test_attention.py::test_the_bound_catches",
    "kernels/bounds.py::worst": "kernels/test_chains.py::test_the_bound_catches_one_dropped_rank",
    "kernels/triton/linear_chain.py::assert_right": (
        "kernels/triton/test_linear.py::test_the_bound_of_a_finished_result_catches_one_element_a_dropped_rank_and_nan"
    ),
    "kernels/triton/scores.py::assert_right": (
        "kernels/triton/test_bilinear_mutants.py::test_the_bound_of_an_epilogue_catches"
    ),
    "kernels/triton/test_attention_gradients_gpu.py::assert_gradients_are_right": (
        "kernels/triton/test_attention_gradients_gpu.py::"
        "test_the_bound_of_gradients_catches_a_scale_that_is_off_by_a_tenth"
    ),
    "kernels/triton/test_backward.py::within": (
        "kernels/triton/test_backward.py::test_the_bound_catches_a_dropped_row_and_a_stale_element"
    ),
    "ops/test_direct.py::agree": "ops/test_direct.py::test_another_result_or_layout_does_not_agree",
    "reporting/test_browser.py::distinct_rows": (
        "reporting/test_browser.py::test_the_canary_of_blankness_sees_an_empty_page"
    ),
}
# What asserts what it needs to go on, and checks nothing of narrows.
PREMISES = {
    "contracts/test_docs.py::parse",
    "contracts/test_docs.py::tool",
    "kernels/triton/test_attention.py::use_mutant",
    "models/test_shared.py::compressed",
    "models/test_shared.py::searched",
    "ops/test_direct.py::agree_on",  # of operands, by `agree`'s own comparison
    "ops/test_direct_gpu.py::agree",
    "ops/test_ready_replay.py::recorded",
    "soak/test_crashes.py::passes",
    "soak/test_mutants.py::beginning_with",
}


@cache
def names_of_tests(path: Path) -> set[str]:
    """Return the names of a file's tests."""
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if is_test(node)}


def is_test(node: ast.AST) -> bool:
    """Return whether this is a test's definition."""
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def asserting(path: Path) -> set[str]:
    """Return the functions of a file that assert for others: neither tests, fixtures, methods nor inner functions."""
    return {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and not is_test(node)
        and not any("fixture" in ast.unparse(one) for one in node.decorator_list)
        and any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
    }


def shared_checkers(folder: Path) -> set[str]:
    """Return every function below a folder of tests that asserts for several tests."""
    files = sorted(folder.rglob("*.py"))
    found = {f"{path.relative_to(folder).as_posix()}::{name}" for path in files for name in asserting(path)}
    return found | {"kernels/attention_operands.py::error"}  # a method


def without_canary(checkers: set[str]) -> set[str]:
    """Return those that the tables name no canary for."""
    return checkers - set(SHARED) - PREMISES


def exists(test: str) -> bool:
    """Return whether "path::name" is a test."""
    path, name = test.split("::")
    return (TESTS / path).is_file() and name in names_of_tests(TESTS / path)


@pytest.mark.parametrize("checker", [*JUDGES, *SHARED])
def test_a_canary_is_a_test(checker: str) -> None:
    canary = (JUDGES | SHARED)[checker]
    assert exists(canary), f"{checker}: there is no {canary}"


def test_everything_that_users_judge_with_has_one() -> None:
    public = {name for name in vars(testing) if not name.startswith("_")}
    assert public - MAKERS == {name.rpartition(".")[2] for name in JUDGES if name.startswith("narrows.testing.")}


def test_every_scan_of_the_project_has_one() -> None:
    files = {path.name: path for path in sorted((TESTS / "contracts").glob("test_*.py"))}
    assert files.keys() == SCANS.keys()
    missing = [name for name, path in files.items() if SCANS[name] not in names_of_tests(path)]
    assert not missing


def test_every_check_that_tests_share_has_one() -> None:
    assert not without_canary(shared_checkers(TESTS))


def test_no_table_names_what_is_gone() -> None:
    assert not (set(SHARED) | PREMISES) - shared_checkers(TESTS)


def test_every_part_of_the_long_run_is_tested() -> None:
    from soak import __main__ as soak

    names = {path.stem.removeprefix("test_") for path in (TESTS / "soak").glob("test_*.py")}
    assert {*soak.PARTS, *soak.ASKED_FOR} <= names


def test_a_checker_without_a_canary_is_found(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "test_m.py").write_text("def agree(a, b):\n    assert a == b\n\n\ndef test_a():\n    agree(1, 1)\n")
    assert "test_m.py::agree" in without_canary(shared_checkers(tmp_path))
    assert not exists("contracts/test_canaries.py::test_that_is_not_there")
