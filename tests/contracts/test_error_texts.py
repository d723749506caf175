"""Every text that narrows raises is matched by a test, with the values in it."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path

import pytest

from contracts.error_texts import GAP, HOLE, Match, Site, match, matches, plain, sites, strings
from narrows import errors

ROOT = Path(__file__).parents[2]

# Texts that are not written where they are raised, by the text's own words or the place: why no test is looked for.
NOT_WRITTEN = {
    "src/narrows/_files/_read.py": "with another error's text: `_explained` is tested with every kind of file",
    "src/narrows/cli/spectrum.py": "from `missing_name`, whose text is tested in tests/files and tests/models",
    "src/narrows/models/_attention.py": "from `missing_name`",
    "src/narrows/models/_match.py": "from `missing_name`",
    "src/narrows/models/_calibrate_watch.py": "made by one function for two places: tests/models/test_calibrate.py",
    "src/narrows/models/_compress_search.py": "made of the nearest point: tests/models/test_compress_search.py",
    "src/narrows/models/_plausible.py": "with another error's text, the folder before it: tests/models/test_load.py",
    "src/narrows/models/_texts_windows.py": "made by one function for two places: tests/models/test_texts.py",
}
# Texts that no test can reach, by a piece of them.
OUT_OF_REACH = {
    "left is on ": "two devices that hold values: a machine without a GPU has one",
}


@cache
def every_site() -> tuple[Site, ...]:
    """Return every text of an error that narrows defines."""
    kinds = [name for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    return tuple(sites(sorted((ROOT / "src/narrows").rglob("*.py")), ROOT, kinds))


@cache
def found() -> dict[Site, list[Match]]:
    """Return how tests match every text."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if path.parent.name != "contracts"]
    return matches(every_site(), strings(files))


def shown(texts: list[Site]) -> str:
    """Return the texts, one on a line."""
    return "\n".join(f"{site.place}: {site.text.replace(HOLE, '{}')}" for site in texts)


def is_out_of_reach(site: Site) -> bool:
    """Return whether no test can reach a text."""
    return any(piece in site.text for piece in OUT_OF_REACH)


def test_every_text_is_matched_by_a_test() -> None:
    missing = [site for site in every_site() if site.text and not found()[site] and not is_out_of_reach(site)]
    assert not missing, f"no test matches\n{shown(missing)}"


def test_every_text_is_matched_with_a_value_that_stands_in_it() -> None:
    bare = [
        site
        for site, ways in found().items()
        if ways and HOLE in site.text and not any(way.has_value for way in ways) and not is_out_of_reach(site)
    ]
    assert not bare, f"no test shows a value of\n{shown(bare)}"


def test_every_text_is_written_where_it_is_raised_or_is_listed() -> None:
    places = {site.place.rpartition(":")[0] for site in every_site() if not site.text}
    assert places == set(NOT_WRITTEN)


def test_what_is_out_of_reach_is_still_raised() -> None:
    for piece in OUT_OF_REACH:
        assert any(piece in site.text for site in every_site())


def test_the_scan_sees_most_of_what_is_raised() -> None:
    assert len(every_site()) > 450


SITE = Site("m.py:1", "InputError", f"rank={HOLE} is outside 1..{HOLE}. Choose a rank within it.")


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (r"rank=5 is outside 1\.\.4", Match(20, has_value=True)),
        (r"rank=5 is outside 1\.\.4\. Choose a rank", Match(35, has_value=True)),
        (r"is outside 1\.\.", Match(14, has_value=False)),
        (r"rank=\d is outside 1\.\..*Choose a rank within", Match(39, has_value=False)),
        (r"Choose a rank within it", Match(23, has_value=False)),
        (r"rank=5 is inside 1\.\.4", None),
        ("Choose", None),
    ],
)
def test_a_pattern_matches_a_text_by_its_words_and_shows_values_or_does_not(test: str, expected: Match | None) -> None:
    assert match(SITE, plain(test)) == expected


def test_a_text_that_no_test_matches_is_found() -> None:
    other = Site("m.py:2", "InputError", f"width={HOLE} must be a whole number.")
    ways = matches([SITE, other], [plain(r"rank=5 is outside 1\.\.4"), "nothing to do with it"])
    assert ways[SITE]
    assert not ways[other]


def test_texts_are_read_off_a_source(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        'def f(a):\n    text = f"a={a}."\n    raise InputError("long " f"{a!r} x" if a else text + " b" + other())\n'
        'def h(a):\n    what = "lacks" if a else "has"\n    raise InputError(f"it {what} {a}")\n'
        "def g(text):\n    raise InputError(text)\n",
        encoding="utf-8",
    )
    read = [site.text for site in sites([tmp_path / "m.py"], tmp_path, ["InputError"])]
    assert read == [f"long {HOLE} x", f"a={HOLE}. b{HOLE}", f"it lacks {HOLE}", f"it has {HOLE}", ""]


def test_patterns_are_read_as_plain_text() -> None:
    assert plain(r"x \(7, 11\) has \d+ of .*\.") == f"x (7, 11) has {GAP} of {GAP}."
