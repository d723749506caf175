"""What a reader does beside reading its folder: other paths, programs, code, sockets; and how much memory it takes.

Python's audit hook sees what Python opens and starts; inotify sees whoever opens a file of the folder outside, also
the libraries that are not written in Python.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from soak.files.change import OUTSIDE

PATHS = frozenset(
    {
        "open",
        "os.chmod",
        "os.chown",
        "os.link",
        "os.listdir",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.scandir",
        "os.symlink",
        "os.truncate",
        "os.utime",
        "shutil.rmtree",
        "sqlite3.connect",
        "tempfile.mkdtemp",
        "tempfile.mkstemp",
    }
)
FORBIDDEN = (
    "code.__new__",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pickle.find_class",
    "socket.",
    "sqlite3.enable_load_extension",
    "sqlite3.load_extension",
    "subprocess.Popen",
    "urllib.Request",
)
CODE = frozenset({"compile", "exec"})
MAKERS = ("dataclasses.py", "collections/__init__.py", "ast.py", "enum.py", "typing.py")  # code that libraries write
SYSTEM = (
    "/proc/",
    "/sys/",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/etc/mime.types",
)
NOT_BLOCKING, OPENED, READ = 0o4000, 0x20, 0x01  # IN_NONBLOCK, IN_OPEN, IN_ACCESS


class Watch:
    """Sees everything that this process opens and starts while it is on; installed once, for good."""

    def __init__(self, *outside: Path) -> None:
        self._libraries = tuple({sys.prefix, sys.base_prefix, str(Path(__file__).parents[2] / "src")})
        self._allowed: tuple[str, ...] = ()
        self._is_on = False
        self._seen: list[str] = []
        self._queue = _watched(*outside)
        sys.addaudithook(self._hook)

    def begin(self, *folders: Path) -> None:
        """Look from now on; only the folders, libraries and what the system tells may be opened."""
        self._allowed = (*self._libraries, *SYSTEM, *map(str, folders))
        self._seen = []
        self._outside_events()
        self._is_on = True

    def end(self) -> tuple[str, ...]:
        """Look no more; return what was seen that must not be, each once."""
        self._is_on = False
        if self._outside_events() and not any(one.endswith(OUTSIDE) for one in self._allowed):
            self._seen.append("a file outside of the folder was opened")
        return tuple(dict.fromkeys(self._seen))

    def _hook(self, event: str, values: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        if event in PATHS:
            self._see_path(event, _path(event, values))
        elif event in CODE:
            self._see_code(event, values)
        elif event.startswith(FORBIDDEN):
            self._seen.append(f"{event} {values!r:.200}")

    def _see_path(self, event: str, given: Any) -> None:
        if isinstance(given, int):
            return
        text = os.fsdecode(given).removeprefix("file://").split("?mode=")[0]
        if text == ":memory:":
            return
        path = os.path.realpath(text)
        if event == "os.listdir" and path in map(os.path.realpath, sys.path):  # Python looks for a module
            return
        if not path.startswith(self._allowed):
            self._seen.append(f"{event} {path!r}")

    def _see_code(self, event: str, values: tuple[Any, ...]) -> None:
        source = values[1] if event == "compile" else values[0].co_filename
        name = os.fsdecode(source) if isinstance(source, (str, bytes)) else repr(source)
        if name.startswith((*self._libraries, "<frozen")) or _is_made_by_library():
            return
        self._seen.append(f"{event} of {name!r}")

    def _outside_events(self) -> bool:
        """Return whether a file outside was opened since the last call."""
        try:
            return bool(os.read(self._queue, 65536))
        except BlockingIOError:
            return False


def _path(event: str, values: tuple[Any, ...]) -> Any:
    """Return the path of an event; one that is relative to an open folder, as `shutil.rmtree` gives it, as a whole."""
    if event in {"os.remove", "os.rmdir"} and values[1] != -1:
        return os.path.join(os.path.realpath(f"/proc/self/fd/{values[1]}"), os.fsdecode(values[0]))  # noqa: PTH118 (text)
    return values[0]


def _is_made_by_library() -> bool:
    """Return whether one of Python's own modules makes the code, as `dataclass` does, or only parses (ast)."""
    frame = sys._getframe(3)  # noqa: SLF001 (the frame that raised the event)
    return frame.f_code.co_filename.endswith(MAKERS)


def _watched(*folders: Path) -> int:
    """Return a file whose bytes tell that something in one of the folders was opened or read."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = int(libc.inotify_init1(NOT_BLOCKING))
    done = [libc.inotify_add_watch(queue, os.fsencode(folder), OPENED | READ) for folder in folders]
    if min(queue, *done) < 0:
        raise OSError(ctypes.get_errno(), "inotify is not there")
    return queue


def reset_peak() -> int:
    """Return the bytes of memory in use now, from which the peak is counted from now on."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:  # noqa: PTH123 (a write every millisecond)
        file.write("5")  # the peak becomes what is in use
    return _status("VmRSS:")


def peak() -> int:
    """Return the most bytes of memory that were in use at a time since `reset_peak`."""
    return _status("VmHWM:")


def virtual() -> int:
    """Return the bytes of address space in use."""
    return _status("VmSize:")


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 (read every millisecond)
        for line in file:
            if line.startswith(name):
                return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status has no {name}")
