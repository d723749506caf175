"""The files part: a short seeded run of it, and that each of its checks can fail."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import pickle
import socket
import sqlite3
import subprocess
import sys
import time
from random import Random

import pytest
from soak.files import part as files
from soak.files import run as files_run
from soak.files import scan
from soak.files.change import OUTSIDE
from soak.files.json import VALUES, changed_json
from soak.files.names import complaints, drawn, line_complaints, page_complaints, sheet_complaints
from soak.files.run import Case, Run
from soak.files.sqlite import row_bytes
from soak.files.subject import Subject

from narrows.errors import FileError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="not shown: needs Linux")
SCALE = 0.0003  # 30 of 100,000 changed files, 3 of 10,000 bits


@LINUX
def test_a_short_run_finds_no_fault():
    found = list(files.figures(0, SCALE, 1))

    assert [str(one) for one in found if one.status != "ok"] == []
    assert {"mutated compressed", "mutated load-dense", "single bits of narrows.json"} <= {one.name for one in found}


def test_changes_are_drawn_from_the_seed_alone():
    subject = sealed_subject()
    changes = [subject.drawn(3, index) for index in range(50)]

    assert changes == [subject.drawn(3, index) for index in range(50)]
    assert changes != [subject.drawn(4, index) for index in range(50)]
    assert len({one.said for one in changes}) > 25


def test_every_hostile_value_is_put_into_a_document():
    document = json.dumps({"a": 1, "b": {"c": [2, "x"]}}).encode()
    said = {changed_json(document, Random(index))[0] for index in range(3000)}  # noqa: S311 (no secret)

    missing = [name for name in VALUES if not any(text.endswith(f" = {name}") for text in said)]
    assert missing == []
    assert any("twice" in text for text in said)


# Canaries: a reader with each fault, and what the run says of it


def sealed_subject(read=None, **changes):
    """Return a file that holds its own digest, and what reads it."""
    make = {"name": "toy", "share": 1.0, "is_sealed": True, "read": read or read_sealed}
    texts = {"files": {"toy.txt": sealed(b"narrow")}, "others": {"toy.txt": sealed(b"wide")}}
    whole = {"bits": {"toy.txt": (range(len(texts["files"]["toy.txt"])),)}}
    return Subject(**(make | texts | whole | changes))


def sealed(data):
    return hashlib.sha256(data).hexdigest().encode() + data


def read_sealed(folder):
    """Return what the file holds, if it is what its digest says."""
    path = folder / "toy.txt"
    if not path.is_file():
        raise FileError(f"{path} is not a regular file.")
    data = path.read_bytes()
    if sealed(data[64:]) != data:
        raise FileError(f"{path} was changed.")
    return repr(data)


def outcomes(tmp_path, subject, cases):
    return list(Run.of([subject], 0, tmp_path).outcomes(cases, 1))


def bits(number):
    return [Case("toy", index, "toy.txt") for index in range(number)]


@LINUX
def test_a_reader_that_checks_its_digest_passes(tmp_path):
    found = outcomes(tmp_path, sealed_subject(), [*bits(560), *(Case("toy", index) for index in range(200))])

    assert [one for one in found if one.status == "fault"] == []
    assert {one.status for one in found[:560]} == {"refused"}
    assert {one.status for one in found} == {"refused", "same", "other"}


def careless(folder):
    return repr((folder / "toy.txt").read_bytes())


def deaf(folder):
    del folder
    return "always the same"


@LINUX
@pytest.mark.parametrize(
    ("read", "text"),
    [(careless, "reads as something else, and nobody is told"), (deaf, "the flipped bit is not noticed")],
)
def test_a_reader_that_does_not_see_a_flipped_bit_is_told(tmp_path, read, text):
    found = outcomes(tmp_path, sealed_subject(read), bits(20))

    assert [(one.status, one.text) for one in found] == [("fault", text)] * 20


def wrong(fault):
    """Return a reader that does `fault` where it should refuse a file."""

    def read(folder):
        try:
            return read_sealed(folder)
        except FileError:
            return fault(folder)

    return read


def opened_by_c(folder):
    """Open a file as a library that is not written in Python does: no audit event tells of it."""
    libc = ctypes.CDLL(None)
    path = os.fsencode(folder.with_name(OUTSIDE) / "toy.txt")
    os.close(libc.open(path, os.O_RDONLY))
    return read_sealed(folder)


def raised(kind, text):
    def fault(folder):
        raise kind(text.format(folder=folder))

    return fault


FAULTS = {
    "another error": (raised(ValueError, "x"), "raises ValueError: x"),
    "out of memory": (lambda _: bytes(8 << 40), "raises MemoryError"),
    "death": (lambda _: os.abort(), "crashes: the process ended with -6"),
    "an exit": (lambda _: sys.exit(0), "raises SystemExit"),
    "memory": (lambda _: str(len(bytearray(os.urandom(1)) * (200 << 20))), "MiB of memory, 64 are allowed"),
    "a program": (lambda _: str(subprocess.run(["true"], check=True)), "does more than read: subprocess.Popen"),
    "a shell": (lambda _: str(os.system("true")), "does more than read: os.system"),  # noqa: S605
    "code": (lambda _: eval("'1'"), "does more than read: compile of '<string>'"),  # noqa: S307
    "a pickle": (lambda _: str(pickle.loads(b"cbuiltins\nprint\n.")), "does more than read: pickle.find_class"),  # noqa: S301
    "a socket": (lambda _: socket.socket().close(), "does more than read: socket.__new__"),
    "another file": (lambda _: open("/etc/hostname").close(), "does more than read: open '/etc/"),  # noqa: PTH123
    "a file by a library": (opened_by_c, "a file outside of the folder was opened"),
    "a database": (lambda _: sqlite3.connect("/tmp/x.sqlite").close(), "does more than read: sqlite3.connect"),  # noqa: S108
    "an error of two lines": (raised(FileError, "{folder}/toy.txt\nis wrong."), "its message is no sentence"),
    "an error without a name": (raised(FileError, "it is wrong."), "its message names no file: FileError: 'it is"),
    "an endless error": (raised(FileError, "{folder}" + "x" * 3000), "its message is no sentence"),
    "control characters": (raised(FileError, "{folder} \x1b[31m"), "its message is no sentence"),
}


@LINUX
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_reader_is_told_and_the_run_goes_on(tmp_path, fault):
    do, text = FAULTS[fault]
    first, second = outcomes(tmp_path, sealed_subject(wrong(do)), bits(2))

    assert (first.status, second.status) == ("fault", "fault")
    assert text in first.text


def busy(_):
    while True:
        pass


@LINUX
@pytest.mark.parametrize(
    ("limit", "do"), [("SECONDS", lambda _: time.sleep(60)), ("CPU_SECONDS", busy)], ids=["waiting", "working"]
)
def test_a_reader_that_hangs_is_ended_and_told(tmp_path, monkeypatch, limit, do):
    monkeypatch.setattr(files_run, limit, 0.3)
    found = outcomes(tmp_path, sealed_subject(wrong(do)), bits(2))

    limits = {"SECONDS": "10 s of a core or 0.3 s", "CPU_SECONDS": "0.3 s of a core or 60 s"}
    assert [one.text for one in found] == [f"hangs: no end after {limits[limit]} of the clock"] * 2


@LINUX
def test_a_fault_fails_its_figure_with_the_command_that_repeats_it_and_keeps_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "KEPT", tmp_path / "kept")
    run = Run.of([sealed_subject(careless)], 7, tmp_path / "run")
    figure = files.flipped(run, run.subjects["toy"], "toy.txt", 0.02, 1)

    assert (figure.status, figure.count) == ("failed", 11)
    assert "python -m soak.files.repeat toy" in figure.details[0]
    assert "--seed 7 --file toy.txt" in figure.details[0]
    kept = min((tmp_path / "kept").iterdir())
    assert (kept / "toy.txt").read_bytes() != run.subjects["toy"].files["toy.txt"]
    assert "nobody is told" in (kept / "how.txt").read_text()


@LINUX
def test_nothing_is_seen_of_a_folders_own_files_and_of_libraries(tmp_path):
    script = (
        "import sys, pathlib\n"
        "from soak.files.watch import Watch\n"
        "folder, outside = (pathlib.Path(sys.argv[1]) / name for name in ('folder', 'outside'))\n"
        "folder.mkdir(), outside.mkdir()\n"
        "watch = Watch(outside)\n"
        "watch.begin(folder)\n"
        "(folder / 'a').write_text('x')\n"
        "(folder / 'a').unlink()\n"
        "import colorsys\n"
        "print(watch.end())\n"
        "watch.begin(folder)\n"
        "(outside / 'b').write_text('x')\n"
        "print(len(watch.end()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["()", "2"]  # by Python's hook, and by inotify


# Where rows are


def test_the_rows_of_a_database_are_found_to_the_byte(tmp_path):
    path = tmp_path / "x.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE plain (a TEXT, b BLOB)")
        db.execute("CREATE TABLE keyed (a TEXT PRIMARY KEY, b TEXT) WITHOUT ROWID")
        db.execute("INSERT INTO plain VALUES ('first', ?)", (b"p" * 9000,))
        db.execute("INSERT INTO keyed VALUES ('second', ?)", ("k" * 3000,))
    db.close()
    data = path.read_bytes()
    held = b"".join(data[part.start : part.stop] for part in row_bytes(data))

    assert held.count(b"p") == 9000
    assert held.count(b"k") == 3000
    assert b"first" in held
    assert b"second" in held
    assert b"CREATE TABLE" not in held
    assert len(held) == 9000 + len("first") + 5 + 3000 + len("second") + 4  # a row's header: 1 + 1 + 3 and 1 + 1 + 2


# The scan of the source


def test_nothing_in_the_source_reads_what_could_run(root):
    assert scan.findings(root / "src" / "narrows") == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("import pickle", "imports pickle"),
        ("from pickle import loads as read", "imports pickle"),
        ("import shelve as s", "imports shelve"),
        ("import marshal", "imports marshal"),
        ("import dill, os", "imports dill"),
        ("import joblib", "imports joblib"),
        ("import yaml", "imports yaml"),
        ("import torch\ntorch.load('x')", "calls torch.load"),
        ("import torch as t\nt.load('x')", "calls torch.load"),
        ("from torch import load\nload('x')", "calls torch.load"),
        ("import torch\ntorch.jit.load('x')", "calls torch.jit.load"),
        ("import numpy as np\nnp.load('x')", "calls numpy.load without allow_pickle=False"),
        ("from numpy import load\nload('x', allow_pickle=1 > 2)", "calls numpy.load without allow_pickle=False"),
        ("import numpy as np\nnp.savez('x', allow_pickle=True)", "allow_pickle is not False"),
        ("eval('1')", "calls eval"),
        ("exec(text)", "calls exec"),
        ("f(trust_remote_code=True)", "trust_remote_code is not False"),
        ("f(trust_remote_code=given)", "trust_remote_code is not False"),
        ("f(weights_only=False)", "asks for weights_only: torch.load is not for files of strangers"),
    ],
)
def test_the_scan_finds_each_way_to_run_what_a_file_holds(tmp_path, line, what):
    (tmp_path / "planted.py").write_text(f"x = 1\n{line}\n")

    assert what in {one.what for one in scan.findings(tmp_path)}


def test_the_scan_passes_what_is_safe(tmp_path):
    (tmp_path / "safe.py").write_text(
        "import numpy as np, json, re\nfrom safetensors.torch import load\n"
        "np.load('x', allow_pickle=False)\nload(b'')\nre.compile('x')\nmodel.eval()\nf(trust_remote_code=False)\n"
    )

    assert scan.findings(tmp_path) == []


# Names


def test_hostile_names_are_shown_as_text():
    assert list(complaints([drawn(1, index) for index in range(60)])) == []


def test_markup_formulas_and_control_characters_are_found():
    assert list(page_complaints("<td><script>alert(1)</script></td>")) == ["the page holds '<script>alert'"]
    assert list(sheet_complaints("name,error\n=1+1,0.5\n")) == ["the sheet holds the formula '=1+1'"]
    assert list(sheet_complaints("name,error\n'=1+1,-0.5\n")) == []
    assert list(line_complaints("a\x1b[31m")) == ["control characters ['\\x1b'] in a line"]
