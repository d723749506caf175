"""Write docs/reference/licences.md: the licence of everything that narrows and its extras install.

python tools/licences.py [FOLDER ...]    write the page; FOLDERs hold what is not installed here (pip install --target)
python tools/licences.py --check         exit 1 where the page does not say what is installed here
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = Path(__file__).parents[1]
PROJECT, PAGE = ROOT / "pyproject.toml", ROOT / "docs" / "reference" / "licences.md"
EXTRAS = ("gpu", "models", "dev")  # what two of them need is named with the first
UNKNOWN = "unknown"
HEAD_CHARACTERS = 20_000
# What may stand beside Apache-2.0 code that imports it: permissive, or bound to the files of that package (MPL).
ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CNRI-Python",
        "ISC",
        "MIT",
        "MPL-2.0",
        "PSF-2.0",
        "Zlib",
    }
)
# What packages write where an SPDX expression is meant.
SPOKEN = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
}
# What the text of a licence is known by, all of a line together; the first that fits.
TEXTS = (
    ("Apache-2.0", ("Apache License", "Version 2.0")),
    ("MPL-2.0", ("Mozilla Public License", "2.0")),
    ("BSD-3-Clause", ("Redistribution and use in source and binary forms", "endorse or promote")),
    ("BSD-2-Clause", ("Redistribution and use in source and binary forms",)),
    ("MIT", ("Permission is hereby granted, free of charge",)),
)
HEAD = f"""<!-- Made by tools/licences.py. -->

# Licences

narrows is under Apache-2.0. These packages are installed with it or with one of its extras; none is part of it, and \
each keeps its own licence. A test fails where one is unknown or is not one of: {", ".join(sorted(ALLOWED))}.

Read from the metadata of what `constraints.txt` pins. Wheels may hold libraries under licences of their own, which \
their licence files name: NumPy's and SciPy's hold OpenBLAS (BSD-3-Clause) and GCC's run-time libraries \
(GPL-3.0-or-later WITH GCC-exception-3.1; libquadmath: LGPL-2.1-or-later). PyTorch's CUDA builds install NVIDIA's \
libraries under NVIDIA's own terms; they are not listed.

| package | version | licence | needed by |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """A package: its name as it is normalised, its version without a local part, its licence, and what needs it."""

    name: str
    version: str
    licence: str
    needed_by: str

    def __str__(self) -> str:
        return f"| {self.name} | {self.version} | {self.licence} | {self.needed_by} |"


def rows(folders: Sequence[str] = ()) -> list[Row]:
    """Return a row for every package that is installed here and that narrows or an extra of it needs."""
    found: dict[str, Row] = {}
    for extra, wanted in roots():
        for one in closure(wanted, folders):
            name, version = canonicalize_name(one.name), one.version.partition("+")[0]
            if not is_vendors(name):
                found.setdefault(name, Row(name, version, licence(one), extra))
    return sorted(found.values())


def roots() -> Iterator[tuple[str, list[Requirement]]]:
    """Yield what needs something, and what it needs: narrows, its extras, its build."""
    told = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    yield "narrows", list(map(Requirement, told["project"]["dependencies"]))
    for extra in EXTRAS:
        yield f"narrows[{extra}]", list(map(Requirement, told["project"]["optional-dependencies"][extra]))
    yield "building it", list(map(Requirement, told["build-system"]["requires"]))


def named() -> set[str]:
    """Return the packages that narrows, its extras and its build name themselves."""
    return {canonicalize_name(one.name) for _, wanted in roots() for one in wanted}


def is_vendors(name: str) -> bool:
    """Say whether a package is one of the CUDA libraries that some builds of PyTorch install."""
    return name != "nvidia-ml-py" and name.startswith(("nvidia-", "cuda-"))


def closure(roots: Iterable[Requirement], folders: Sequence[str]) -> Iterator[Distribution]:
    """Yield all that these require on this machine; what is not installed is passed over."""
    seen: set[tuple[str, str]] = set()
    waiting = list(needed(roots, ""))
    while waiting:
        wanted = waiting.pop()
        one = find(wanted[0], folders)
        if wanted in seen or one is None:
            continue
        seen.add(wanted)
        yield one
        waiting += needed(map(Requirement, one.requires or ()), wanted[1])


def find(name: str, folders: Sequence[str]) -> Distribution | None:
    """Return an installed package, also from these folders; None where there is none."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return next(iter(distributions(name=name, path=list(folders))), None) if folders else None


def needed(wanted: Iterable[Requirement], extra: str) -> Iterator[tuple[str, str]]:
    """Yield (name, extra) of what requirements ask for on this machine, where an extra was asked for ("": none)."""
    for each in wanted:
        if each.marker is None or each.marker.evaluate({"extra": extra}):
            yield from ((canonicalize_name(each.name), asked) for asked in ("", *sorted(each.extras)))


def licence(one: Distribution) -> str:
    """Return a package's licence as an SPDX expression, "unknown" where its metadata do not tell."""
    if expressions := values(one, "License-Expression"):
        return expressions[0]
    classifiers = [text.rpartition(" :: ")[2] for text in values(one, "Classifier") if text.startswith("License")]
    for text in (*values(one, "License"), *classifiers):
        said = SPOKEN.get(text.lower(), text)
        if is_allowed(said):
            return said
    return next(filter(None, map(by_text, texts(one))), UNKNOWN)


def values(one: Distribution, key: str) -> list[str]:
    """Return what a package's metadata say under a key."""
    return [str(value) for value in one.metadata.get_all(key) or ()]


def texts(one: Distribution) -> Iterator[str]:
    """Yield the texts in which a package may tell its licence."""
    yield from values(one, "License")
    for path in one.files or ():
        is_module = path.suffix == ".py" and len(path.parts) == 1  # of one file, whose head holds the licence
        if is_module or re.search(r"dist-info/(.*/)?(LICEN[CS]E|COPYING)[^/]*$", str(path)):
            yield path.read_text(encoding="utf-8")[:HEAD_CHARACTERS]


def by_text(text: str) -> str | None:
    """Return which licence a text is; None where it is not known."""
    return next((name for name, marks in TEXTS if all(mark in text for mark in marks)), None)


def is_allowed(expression: str) -> bool:
    """Say whether an SPDX expression leaves a choice that is allowed (with brackets: everything in it must be)."""
    if "(" in expression:
        expression = re.sub(r" OR ", " AND ", re.sub(r"[()]", "", expression))
    return any(all(term.strip() in ALLOWED for term in part.split(" AND ")) for part in expression.split(" OR "))


def page(found: Iterable[Row]) -> str:
    """Return the page."""
    return HEAD + "\n".join(map(str, found)) + "\n"


def differences(text: str, found: Iterable[Row]) -> list[str]:
    """Return the rows of what is installed that the page does not hold."""
    lines = set(text.splitlines())
    return [str(row) for row in found if str(row) not in lines]


def main(arguments: Sequence[str]) -> int:
    """Write the page, or check it."""
    if list(arguments) == ["--check"]:
        missing = differences(PAGE.read_text(encoding="utf-8"), rows())
        print("\n".join(f"{PAGE} does not say: {row}" for row in missing), end="\n" if missing else "", file=sys.stderr)
        return int(bool(missing))
    found = rows(arguments)
    missing = sorted(named() - {row.name for row in found})
    if missing:
        print(f"not installed: {' '.join(missing)}. pip install --no-deps --target FOLDER them, and give FOLDER.")
        return 1
    PAGE.write_text(page(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
