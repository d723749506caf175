"""The parent's end of the pipe: starts the child, asks it, notices when it dies or hangs."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Self

from narrows import errors

if TYPE_CHECKING:
    from types import TracebackType

# It is tied to this process before it imports torch, which takes 1.6 s. -P: nothing is imported from the folder that
# the command was called in, which may be a stranger's.
_START = (
    "import sys; from narrows._machine._parent import die_with; die_with(int(sys.argv[1])); "
    "from narrows.bench._worker import main; main()"
)


class WorkerDied(Exception):  # noqa: N818 (an event of the sweep, not an error of the caller)
    """The child ended or was stopped before it answered.

    Attributes:
        status: "killed (signal 9)", "failed" or "timed out", as a row shows it.
        reason: what is known, with the last line the child printed.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status, self.reason = status, reason


class RequestFailed(Exception):  # noqa: N818
    """The child lives, but a backend refused this request (out of memory, not implemented).

    Attributes:
        status: "does not fit" or "failed", as a row shows it.
    """

    def __init__(self, reason: str, *, status: str = "failed") -> None:
        super().__init__(reason)
        self.status = status


def unpacked(answer: dict[str, Any]) -> Any:
    """Return what the child answered, or raise the error that it raised."""
    if "ok" in answer:
        return answer["ok"]
    kind = getattr(errors, answer["error"], None)
    if kind is None:
        status = "does not fit" if answer["is_shortage"] else "failed"
        raise RequestFailed(f"{answer['error']}: {answer['message']}", status=status)
    raise kind(answer["message"])


class Worker:
    """One child process; a context manager that always ends it."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(  # noqa: S603 (its own interpreter, code and number)
            [sys.executable, "-P", "-c", _START, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the parent only, which ends the child in order
        )
        assert self._process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, do: str, *, timeout: float, **request: Any) -> Any:
        """Return the child's answer.

        Args:
            do: name of the request.
            timeout: seconds after which the child is killed.

        Raises:
            WorkerDied: it ended, or did not answer in time.
            RequestFailed: it lives, but could not do it.
            NarrowsError: the error that it raised.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            if not self._selector.select(timeout):
                self._process.kill()
                self._process.wait()
                raise WorkerDied("timed out", f"no answer within {timeout:.0f} s")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._death()
        return unpacked(json.loads(line))

    def _death(self) -> WorkerDied:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        last = f": {lines[-1].strip()[:200]}" if lines else ""
        if code < 0:
            return WorkerDied(f"killed (signal {-code})", f"the child process was ended by signal {-code}{last}")
        return WorkerDied("failed", f"the child process ended with code {code}{last}")

    def close(self) -> None:
        """End the child."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        self._selector.close()
        self._log.close()
