"""Kills and full disks lose nothing that was called kept; and each check can fail."""

from __future__ import annotations

import ast

import pytest
from soak.crashes import part as crashes
from soak.crashes.calls import has_strace, parsed
from soak.crashes.canary import WRONG, order_of, torn_kill
from soak.crashes.child import KEPT, Answer, Ended
from soak.crashes.cycle import Whole, left_well, made_up_for
from soak.crashes.full import needing_room, refused_well, rooms
from soak.crashes.measure import PREVIOUS, REPORT, STORE, Measure
from soak.crashes.order import unforced
from soak.crashes.pool import Pool
from soak.crashes.process import Stopped
from soak.crashes.stops import ctrl_c_faults

SEED = 1
needs_strace = pytest.mark.skipif(not has_strace(), reason="not shown: strace is not installed")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Return one process that has everything imported, and what every case reads."""
    with Pool(tmp_path_factory.mktemp("crashes"), 1) as made:
        yield made


@pytest.fixture(scope="module")
def wholes(pool):
    """Return undisturbed runs."""
    return pool.wholes()


def passes(figure):
    assert figure.status in {"ok", "not shown"}, str(figure)
    return figure


# The runs, a few of each


def test_everything_is_on_the_disk_before_it_is_called_kept(pool, wholes):
    (figure,) = crashes.order_figures(pool, wholes)
    assert passes(figure).count == (11 if has_strace() else 0)


@pytest.mark.parametrize(("verb", "kills"), [("measure", 3), ("compress", 2), ("save", 4), ("tune", 3)])
def test_a_killed_run_loses_nothing_and_the_next_one_makes_up_for_it(pool, wholes, verb, kills):
    assert passes(crashes.kill_figure(pool, verb, wholes[verb], SEED, kills)).count == kills


@pytest.mark.parametrize(("verb", "calls"), [("measure", 2), ("compress", 2), ("save", 4), ("tune", 2)])
def test_a_full_disk_is_one_error_and_nothing_is_halved(pool, wholes, verb, calls):
    passes(crashes.full_figure(pool, verb, wholes[verb], SEED, calls))


@pytest.mark.parametrize(("verb", "sizes"), [("measure", 2), ("save", 4)])
def test_a_small_disk_is_one_error_and_nothing_is_halved(pool, wholes, verb, sizes):
    passes(crashes.disk_figure(pool, verb, wholes[verb], SEED, sizes))


# The checks can fail


@needs_strace
@pytest.mark.parametrize("name", WRONG)
def test_a_writer_that_does_not_force_what_it_writes_is_reported(pool, name):
    faults = pool.canary(order_of, name)
    wanted = {
        "without_fsync": [
            ".a.tmp was not forced before it got the name a",
            "the folder of a was not forced to the disk",
        ],
        "fsync_after_the_rename": [".a.tmp was not forced before it got the name a"],
        "without_the_folder": ["the folder of a was not forced to the disk before it was told: wrote a"],
        "in_place": ["the folder of deep was not forced to the disk before it was told: wrote deep/a"],
    }
    assert len(faults) == len(wanted[name])
    assert all(fault.startswith(text) for fault, text in zip(faults, wanted[name], strict=True))


def test_a_torn_file_a_lie_and_a_leftover_are_reported(pool):
    found = " ".join(pool.canary(torn_kill, "seed"))
    for text in ("lost: kept line", "final is neither", "done again: kept line", "the second run: left over: ."):
        assert text in found


LOG = """\
openat(AT_FDCWD</h>, "/h/.a.tmp", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 3</h/.a.tmp>
write(3</h/.a.tmp>, "say \\"x\\", y", 5) = 5
fsync(3</h/.a.tmp>)                       = 0
rename("/h/.a.tmp", "/h/a")             = 0
fsync(3</h>)                            = 0
sendto(4<UNIX-STREAM:[1->2]>, "wrote a\\n", 8, 0, NULL, 0) = 8
"""


@pytest.mark.parametrize(
    ("gone", "fault"),
    [
        (None, None),
        ("fsync(3</h/.a.tmp>)", ".a.tmp was not forced before it got the name a"),
        ("fsync(3</h>)", "the folder of a was not forced to the disk before it was told: wrote a"),
    ],
)
def test_the_order_is_read_off_a_log(gone, fault):
    lines = [line for line in LOG.splitlines() if gone is None or not line.startswith(gone)]
    assert unforced(parsed("\n".join(lines)), "/h") == (() if fault is None else (fault,))


def test_a_call_that_failed_forces_nothing():
    log = LOG.replace("fsync(3</h>)                            = 0", "fsync(3</h>) = -1 EIO (Input/output error)")
    assert unforced(parsed(log), "/h") == ("the folder of a was not forced to the disk before it was told: wrote a",)


def test_a_log_without_a_word_shows_nothing():
    with pytest.raises(ValueError, match="the run in /h told of nothing that is kept"):
        unforced(parsed("\n".join(LOG.splitlines()[:-1])), "/h")


def ended(said="", code=0, told=()):
    return Ended(0, told, Answer(code, said), 1.0)


@pytest.fixture
def home(tmp_path):
    """Return a home of a measurement that has not begun, and what stands there before and after."""
    case, place = Measure(), tmp_path / "home"
    place.mkdir()
    case.prepare(tmp_path, place)
    before = case.state(place)
    return place, Whole(before, {REPORT: "new"}, frozenset({REPORT}), 1.0, (), ())


def test_a_fact_that_is_not_in_the_store_is_lost(home):
    place, whole = home
    assert left_well(Measure(), place, whole, ()) == []
    assert left_well(Measure(), place, whole, [f"{KEPT}check key"]) == ["lost: kept check key"]


def test_half_a_report_is_neither_the_previous_nor_the_new_one(home):
    place, whole = home
    (place / REPORT).write_text(PREVIOUS[:5])
    (fault,) = left_well(Measure(), place, whole, ())
    assert fault.startswith("report.json is neither the previous one nor the new one")


def test_a_store_that_sqlite_cannot_read_is_reported(home):
    place, whole = home
    (place / STORE).write_bytes(b"SQLite format 3\0" + bytes(5000))
    (fault,) = left_well(Measure(), place, whole, ())
    assert fault.startswith("the store cannot be read: ")


def test_a_second_run_that_does_something_again_or_ends_otherwise_is_reported(home):
    place, whole = home
    first, again = ended(told=(f"{KEPT}x",)), ended(told=(f"{KEPT}x",))
    (place / "more").write_text("")
    assert made_up_for(Measure(), place, whole, first, again) == [
        "the second run: done again: kept x",
        "the second run: report.json is not that of an undisturbed run",
        "the second run: left over: more",
    ]
    assert "the second run: ended with 0: " in made_up_for(Measure(), place, whole, first, ended(code=3))[0]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("error: {home}/a: No space left on device. Free some.", None),
        ("error: {home}/a was not written.", "does not name the cause"),
        ("error: No space left on device", "does not name the path"),
        ("error: {home}/a: No space left on device. This is a fault in narrows", "is not one clear error"),
        ("Traceback: {home}/a: No space left on device", "is not one clear error"),
    ],
)
def test_an_error_must_name_path_and_cause(home, said, fault):
    place, whole = home
    found = refused_well(Measure(), place, whole, ended(said.format(home=place), code=3))
    assert [one.split(":")[0] for one in found] == ([] if fault is None else [fault])


def test_a_full_disk_that_nobody_noticed_is_only_sound_if_all_is_there(home):
    place, whole = home
    assert refused_well(Measure(), place, whole, ended()) == []
    (place / ".a.abcdefgh.tmp").write_text("")
    assert refused_well(Measure(), place, whole, ended(code=2)) == [
        "left over: .a.abcdefgh.tmp",
        "ended with 0: Answer(code=2, said='')",
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"took": 1.5}, "took 1.50 s to end, 0.00 s of them waiting for a processor"),
        ({"took": 1.5, "queued": 1.0}, None),
        ({"code": 1}, "ended with 1"),
        ({"said": "interrupted"}, "does not say how to go on: interrupted"),
        ({"said": "Traceback ... run the same command to continue"}, "shows a traceback"),
        ({"code": -2, "said": "Traceback", "kept": frozenset()}, None),
        ({"code": -2, "said": "wrote report.json"}, None),
        ({"code": -2}, "ended with -2"),
        ({"code": 0, "said": "wrote report.json"}, None),
        ({"code": 0}, "ended with 0"),
    ],
)
def test_ctrl_c_must_be_quick_and_say_how_to_go_on(change, fault):
    fields = {"code": 130, "said": "run the same command to continue", "took": 0.5, "queued": 0.0}
    end = Stopped(**fields | {"seconds": 2.0, "orphans": (), "kept": frozenset({"kept x"})} | change)
    found = ctrl_c_faults(end, frozenset())
    assert [one[: len(fault or "")] for one in found] == ([] if fault is None else [fault])


def test_draws_are_the_same_for_the_same_seed_and_cover_the_range():
    assert rooms(40960, 5, "a") == rooms(40960, 5, "a") != rooms(40960, 5, "b")
    assert rooms(40960, 100, "a") == [4096 * one for one in range(11)]


@needs_strace
def test_every_call_that_needs_room_is_among_the_draws(wholes):
    for whole in wholes.values():
        names = {whole.calls[place].name for place in needing_room(whole)}
        assert names >= {"fsync", "openat", "rename"} or names >= {"fsync", "openat", "renameat2"}
        assert names & {"write", "pwrite64"}


# Nothing writes by another way

WRITING = {"write_text", "write_bytes", "tofile", "savez", "savez_compressed", "NamedTemporaryFile"}
ELSEWHERE = {
    "src/narrows/models/_save.py": {"write_bytes", "write_text"},  # into a folder that `whole_folder` forces
    "src/narrows/cli/spectrum.py": {"savez"},  # into memory
}


def test_nothing_writes_to_disk_but_by_the_ways_that_force_it(root):
    found = {}
    for path in (root / "src" / "narrows").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {
            one.func.attr for one in calls if isinstance(one.func, ast.Attribute) and "'/proc/" not in ast.unparse(one)
        }
        name = path.relative_to(root).as_posix()
        if path.parent.name != "_files" and (names & WRITING) - ELSEWHERE.get(name, set()):
            found[name] = names & WRITING
    assert found == {}
