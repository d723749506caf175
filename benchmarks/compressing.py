# ruff: noqa: D400 (the first line is the whole question)
"""How long does compressing a real model take, how much memory, and what does it answer?

Runs `narrows compress` with the arguments after the record's name, in a process of its own, and records wall time, the
largest resident set of that process, its exit status, its tables, the last line that it says, and for every step that
tells of its progress the seconds from the start to the last time it did.

    python benchmarks/compressing.py build/keep.json models/smollm2 build/narrow --texts models/texts --budget keep=0.9

Exit status: that of `narrows compress` (1: no choice meets the budget, which is an answer, too).
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from _gpu import command, save

STEP = re.compile(r"[^:]+(: .*)?: \d+ of \d+$")  # "calibration tokens: 512 of 32768"
KIB = 1024  # bytes: Linux counts resident sets in KiB


def main() -> int:
    """Run, record."""
    import narrows
    from narrows._machine import conditions, machine

    output, *arguments = sys.argv[1:]
    device = arguments[arguments.index("--device") + 1] if "--device" in arguments else "cpu"
    opened = {
        "question": (__doc__ or "").splitlines()[0],
        "command": command(),
        "machine": asdict(machine(device)),
        "conditions": conditions(device),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": narrows.__version__,
    }
    began = time.perf_counter()
    status, tables, last, steps = compressed(arguments, began)
    record = {
        **opened,
        "seconds": round(time.perf_counter() - began, 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * KIB,
        "threads": os.cpu_count(),
        "steps": steps,
        "status": status,
        "said": last,
        "tables": tables,
        "conditions_after": conditions(device),
    }
    save(output, record)
    print(f"{record['seconds']} s, at most {int(record['peak_bytes']) / 2**30:.2f} GiB, exit status {status}")
    return status


def compressed(arguments: list[str], began: float) -> tuple[int, object, str, dict[str, float]]:
    """Run `narrows compress`; return its exit status, tables, the last line of what it says, and seconds by step."""
    words = [sys.executable, "-m", "narrows", "compress", *arguments, "--json"]
    with (
        tempfile.TemporaryFile("w+") as tables,  # a pipe would fill while the other one is read
        subprocess.Popen(words, stdout=tables, stderr=subprocess.PIPE, text=True) as child,
    ):
        assert child.stderr is not None
        last, steps = "", {}
        for line in child.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
            if STEP.match(line):
                steps[line.partition(":")[0]] = round(time.perf_counter() - began, 1)
        child.wait()
        tables.seek(0)
        said = tables.read().strip()
    return child.returncode, parsed(said), without_folders(last), steps


def parsed(said: str) -> object:
    """Return the tables, or what was printed where that is no JSON: a library may print to the same stream."""
    try:
        return json.loads(said) if said else {}
    except ValueError:
        return said


def without_folders(text: str) -> str:
    """Return a line with the names only of absolute paths."""
    return " ".join(Path(word).name if word.startswith("/") else word for word in text.split(" "))


if __name__ == "__main__":
    sys.exit(main())
