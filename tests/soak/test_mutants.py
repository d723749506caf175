"""The mutation runs at a small scale: they kill what is wrong, and only that."""

from __future__ import annotations

import ast
import dataclasses
import shutil
import sys

import psutil
import pytest
from soak.mutants import part as mutants
from soak.mutants.cover import Cover, cover
from soak.mutants.edits import edits
from soak.mutants.kernels import commented, planted
from soak.mutants.run import run
from soak.mutants.slot import pool
from soak.mutants.source import mutants as mutants_of
from soak.mutants.source import sample

LOCATE, READ = "src/narrows/_files/_locate.py", "tests/files/test_read.py"
GRADIENTS = "tests/kernels/triton/test_backward.py::test_small_integers_give_the_exact_gradients"


@pytest.fixture(scope="module")
def slots():
    with pool(mutants.ROOT, 1, preloaded=("torch",)) as made:
        yield made


@pytest.fixture(scope="module")
def covered(slots):
    return cover(slots, [READ], None)


def outcome(slots, mutant, tests, **options):
    (found,) = run(slots, [(mutant, tests)], state="", record=None, **options)
    return found


def beginning_with(root, statement):
    """Return the mutant of the small module in which a function begins with this statement."""
    unchanged, head = commented(root, LOCATE), "    if not path.is_dir():\n        check_file(path)\n"
    assert unchanged.text.count(head) == 1
    return dataclasses.replace(unchanged, text=unchanged.text.replace(head, f"    {statement}\n{head}"))


def test_a_sample_of_a_small_module_is_killed_by_the_tests_of_its_lines(slots, covered):
    for mutant in sample(mutants_of(slots.tree, [LOCATE]), 2, seed=1):
        tests = covered.of(mutant)
        assert outcome(slots, mutant, tests).outcome == "killed", f"{mutant}, {len(tests)} tests"


def test_a_change_that_changes_nothing_survives(slots, covered):
    mutant = commented(slots.tree, LOCATE)
    tests = dict(list(covered.of(mutant).items())[:8])
    assert (len(tests), outcome(slots, mutant, tests).outcome) == (8, "survived")


@pytest.mark.parametrize(("statement", "limit_s"), [("while True: pass", 0.5), ("__import__('time').sleep(60)", 0.05)])
def test_a_mutant_that_hangs_is_killed_by_the_limit_of_its_test(slots, covered, statement, limit_s):
    hanging = beginning_with(slots.tree, statement)
    found = outcome(slots, hanging, dict.fromkeys(covered.of(hanging), limit_s))
    assert (found.outcome, found.is_killed) == ("hangs", True)
    assert found.by.startswith(READ)


def test_a_mutant_that_ends_the_process_is_killed_with_the_signal(slots, covered):
    dying = beginning_with(slots.tree, "__import__('os').abort()")
    found = outcome(slots, dying, covered.of(dying))
    assert (found.outcome, found.why) == ("killed", "died of SIGABRT")


def test_a_mutant_that_takes_all_memory_is_killed_before_it_has_it(slots, covered):
    greedy = beginning_with(slots.tree, "bytearray(1 << 33)")
    found = outcome(slots, greedy, covered.of(greedy))
    assert (found.outcome, found.why) == ("killed", "MemoryError")


def test_tests_that_cannot_be_run_are_a_fault_and_kill_nothing(slots):
    with pytest.raises(RuntimeError, match="could not be run: .*ended with 4"):
        outcome(slots, commented(slots.tree, LOCATE), {"tests/files/test_that_is_not_there.py::test": 1.0})


def test_a_mutant_whose_lines_no_test_runs_is_not_killed(slots):
    found = outcome(slots, commented(slots.tree, LOCATE), {})
    assert (found.outcome, found.is_killed) == ("no tests", False)


@pytest.fixture
def small_tree(tmp_path):
    """Return a tree of one module and two tests, of which one never ends."""
    shutil.copytree(mutants.ROOT / "soak", tmp_path / "soak")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "src" / "narrows").mkdir(parents=True)
    (tmp_path / LOCATE).parent.mkdir()
    (tmp_path / LOCATE).write_text("")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text("def test_ends(): pass\ndef test_hangs():\n    while True: pass\n")
    return tmp_path


def test_a_run_that_is_stopped_ends_its_servers_and_what_they_run(small_tree):
    with pool(small_tree, 1, preloaded=()) as own:
        mutant = commented(own.tree, LOCATE)
        running = run(
            own,
            [(mutant, {f"tests/test_x.py::test_{name}": 60.0}) for name in ("ends", "hangs")],
            state="",
            record=None,
        )
        assert next(running).outcome == "survived"
        server = psutil.Process(own._slots[0]._server.pid)
        while not (children := server.children()):
            pass
        running.close()
        assert not server.is_running()
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's interpreter runs on Linux")
def test_a_wrong_kernel_is_caught_and_one_with_a_comment_more_is_not(slots):
    wrong = next(one.mutant for one in planted(slots.tree) if one.mutant.name == "backward: dQ is written over dP")
    assert outcome(slots, wrong, {GRADIENTS: 60.0}).by == GRADIENTS
    assert outcome(slots, commented(slots.tree, wrong.file), {GRADIENTS: 60.0}).outcome == "survived"


def test_every_wrong_kernel_is_a_change_of_its_source_that_python_reads():
    found = planted(mutants.ROOT)
    assert len({one.mutant.name for one in found}) == len(found) > 100
    for one in found:
        ast.parse(one.mutant.text)
        assert one.mutant.text != (mutants.ROOT / one.mutant.file).read_text()
        assert all((mutants.ROOT / file).exists() for file in one.tests)


def test_tests_that_run_the_line_come_first_and_where_none_is_seen_to_those_of_the_file_are_taken():
    timed = {"a.py::slow": (2.0, [5]), "a.py::fast": (1.0, [5]), "a.py::other": (0.1, [9]), "b.py::far": (0.2, [9])}
    held = Cover({name: {"seconds": seconds, "lines": {LOCATE: run}} for name, (seconds, run) in timed.items()}, {})
    mutant = commented(mutants.ROOT, LOCATE)
    assert list(held.of(dataclasses.replace(mutant, lines=(4, 6)))) == ["a.py::fast", "a.py::slow", "a.py::other"]
    assert list(held.of(dataclasses.replace(mutant, lines=(7, 8))))[:2] == ["a.py::other", "b.py::far"]
    assert list(held.of(dataclasses.replace(mutant, file="src/narrows/nothing.py"))) == []
    assert held.within(("a.py",), ("other",)) == {"a.py::fast": 13.0, "a.py::slow": 23.0}


class Counted:
    """Answers nothing, and holds what it was asked."""

    def answers(self, tasks):
        self.tasks = [task for task, _ in tasks]
        return iter(())


def test_a_stopped_run_goes_on_and_a_changed_tree_begins_anew(slots, covered, tmp_path):
    mutant = commented(slots.tree, LOCATE)
    record, tests = tmp_path / "record.jsonl", dict(list(covered.of(mutant).items())[:1])
    (first,) = run(slots, [(mutant, tests)], state="one", record=record)
    assert list(run(Counted(), [(mutant, tests)], state="one", record=record)) == [first]
    other = Counted()
    assert not list(run(other, [(mutant, tests)], state="another", record=record))
    assert other.tasks == [{"do": "test", "files": [READ], "limits_s": tests}]


SOURCE = '''
"""A docstring of 1."""
if TYPE_CHECKING:
    x = 1
def f(a: Annotated[int, 1], b=2) -> "1 < 2":
    """Another."""
    assert a < 1
    if a < b and not c:
        raise ValueError(max(1, 2))
    print(f"{1 + 1}")
    for i, j in zip(a, b, strict=True):
        i += min(i, 0.5)
    return g(a, b)
class C:
    @decorated(1)
    def __repr__(self):
        return 1
'''
TEXTS = ["1", "3", "not (a < b and not c)", "<=", ">=", "or", "(c)", "pass", "pass", "b, a", "-=", "max", "1.0"]
TEXTS += ["None", "b, a"]


def test_edits_change_what_runs_and_leave_texts_types_and_invariants_alone():
    assert [edit.text for edit in edits(SOURCE.encode())] == TEXTS


def test_a_mutants_name_outlives_changes_elsewhere_in_its_file(tmp_path):
    (tmp_path / "m.py").write_text("def f(a, b):\n    return a < b\n")
    (tmp_path / "n").mkdir()
    (tmp_path / "n/m.py").write_text("import os\n\n\ndef f(a, b):\n    return a < b\n")
    assert [m.name for m in mutants_of(tmp_path, ["m.py"])] == [m.name for m in mutants_of(tmp_path / "n", ["m.py"])]


def test_a_sample_is_the_same_again_another_with_another_seed_and_mostly_kept_where_a_file_changes():
    every = mutants_of(mutants.ROOT, [LOCATE])
    first = sample(every, 20, seed=0)
    assert sample(every[::-1], 20, seed=0) == first
    assert sample(every, 20, seed=1) != first
    assert len(set(sample(every[1:], 20, seed=0)) & set(first)) >= 19


def test_survivors_that_are_known_still_stand_in_the_source():
    for (file, before, after), reason in mutants.known().items():
        found = [(one.before, one.after) for one in mutants_of(mutants.ROOT, [file])]
        assert (before, after) in found, f"{file} no longer says {before!r}: drop it from soak/mutants/known.toml"
        assert len(reason) > 10
