"""One run of a case in a process of its own: `python -m soak.crashes.work VERB BASE HOME`."""

from __future__ import annotations

import sys
from pathlib import Path

from soak.crashes.cycle import CASES


def main() -> int:
    """Run, say on standard error what the command would say, and return its exit code."""
    verb, base, home = sys.argv[1:]
    answer = CASES[verb].work(Path(base), Path(home), lambda _: None)
    sys.stderr.write(answer.said)
    return answer.code


if __name__ == "__main__":
    sys.exit(main())
