"""The page is one file that asks the network for nothing, escapes every name and reads without scripts."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from narrows.reporting import _html
from narrows.reporting._part import parts
from narrows.reporting._plot import NUM_NAMED, NUM_ORDERED
from narrows.reporting._records import Document, Section
from narrows.reporting._table import Cell, Column, Table
from reporting.reports import make_report, with_speedup

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
VOID = {"meta", "link", "path", "rect"}


class Page(HTMLParser):
    """Counts tags, attributes and text; `problems` holds tags that do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.problems, self._open = [], [], [], [], []
        self.feed(text)
        self.problems += self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID and (not self._open or self._open.pop() != tag):
            self.problems.append(tag)

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


def outside_addresses(text):
    """Return everything in a page that a browser would fetch or follow off the page."""
    page = Page(text)
    linked = [v for name in ("src", "href", "action", "srcset", "poster", "data") for v in page.all(name) if v]
    linked += re.findall(r"url\(\s*['\"]?([^)'\"]+)|@import\s+['\"]?([^'\";]+)", text)
    return [value for value in linked if not str(value).startswith(("#", "data:,"))]


@pytest.fixture(scope="module")
def text():
    return _html.html_page(make_report(tokens=(64, 512), ranks=(64, 1024), rounds=8))


def page_of(section, monkeypatch, title="t"):
    monkeypatch.setattr(_html, "document", lambda _report: Document(title, (), (section,)))
    return _html.html_page(make_report(tokens=(64,), ranks=(64,), rounds=2))


def palettes():
    """Return the colours of the light and of the dark page by name."""
    style = files("narrows.reporting").joinpath("_page.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--(\w[\w-]*): (#[0-9a-f]{6})", part)) for part in style.split("@media", 2)[:2])
    return {"light": light, "dark": light | dark}


def luminance(colour):
    """Return the relative luminance of WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_knows_its_ends():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#777777") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_ground(scheme):
    colours = palettes()[scheme]
    text = ["ink", "soft", "link", *(f"o{i}" for i in range(NUM_ORDERED))]
    lines = ["faint", *(f"n{i}" for i in range(NUM_NAMED))]
    assert {name: c for name in text if (c := contrast(colours[name], colours["bg"])) < 4.5} == {}
    assert {name: c for name in lines if (c := contrast(colours[name], colours["bg"])) < 3} == {}
    for badge in ("good", "bad", "unsure"):
        assert contrast(colours[badge], colours[f"{badge}-wash"]) >= 4.5


@pytest.mark.parametrize(("scheme", "sign"), [("light", -1), ("dark", 1)])
def test_longer_sequences_differ_in_lightness_so_that_hue_is_not_needed(scheme, sign):
    ramp = [sign * luminance(palettes()[scheme][f"o{i}"]) for i in range(NUM_ORDERED)]
    assert ramp == sorted(ramp)


def test_the_page_is_well_formed(text):
    assert Page(text).problems == []


def test_the_canary_of_well_formedness_sees_a_missing_end():
    assert Page("<p><b>x</p>").problems != []


def test_the_page_asks_the_network_for_nothing(text):
    assert outside_addresses(text) == []
    assert "script-src 'unsafe-inline'" in text
    assert "default-src 'none'" in text
    assert text.index("Content-Security-Policy") < text.index("<style>")


@pytest.mark.parametrize(
    "planted",
    [
        "<script src='https://a.example/x.js'></script>",
        "<style>p{background:url(https://a.example/x)}</style>",
        "<img src=x>",
    ],
)
def test_the_canary_of_addresses_sees_a_planted_one(text, planted):
    assert outside_addresses(text + planted) != []


def test_hostile_weight_names_stay_text():
    report = make_report(weights=(EVIL, "power"), tokens=(64, 512), ranks=(64, 1024), rounds=8)
    page = Page(_html.html_page(report))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert any(EVIL in text for text in page.texts)


def test_hostile_words_of_machine_and_document_stay_text(monkeypatch):
    table = Table(EVIL, EVIL, (Column("n", EVIL, "left"),), ((Cell(EVIL, EVIL),),), note=EVIL)
    monkeypatch.setattr(
        _html, "document", lambda _r: Document(EVIL, (EVIL,), (Section(EVIL, (EVIL,), (EVIL,), (table,)),))
    )
    report = make_report(tokens=(64,), ranks=(64,), rounds=2)
    machine = replace(report.machine, name=EVIL, software={EVIL: EVIL}, features=(EVIL,), caches={EVIL: 1})
    page = Page(_html.html_page(replace(report, machine=machine, conditions={EVIL: EVIL}, created=EVIL, version=EVIL)))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert page.problems == []


def test_verdicts_are_badges(monkeypatch):
    columns = (Column("statement", "Statement", "left"), Column("verdict", "Verdict", "left"))
    rows = tuple((Cell(v, f"s {v}"), Cell(v, v)) for v in ("holds", "refuted", "cannot tell"))
    text = page_of(Section("Statements", tables=(Table("s", "S", columns, rows),)), monkeypatch)
    assert '<span class="badge holds">holds</span>' in text
    assert '<span class="badge refuted">refuted</span>' in text
    assert '<span class="badge unsure">cannot tell</span>' in text
    assert text.count('class="badge') == 3


@pytest.mark.parametrize(("num_rows", "expected"), [(0, "a note"), (60, 'class="scroll"'), (61, 'class="scroll tall"')])
def test_an_empty_table_is_its_note_and_a_long_one_scrolls(monkeypatch, num_rows, expected):
    rows = tuple((Cell(i, str(i)),) for i in range(num_rows))
    table = Table("t", "T", (Column("a", "The head"),), rows, note="a note")
    text = page_of(Section("S", tables=(table,)), monkeypatch)
    section = text[text.index('id="s0"') : text.index('id="environment"')]
    assert expected in section
    assert ("The head" in section) == (num_rows > 0)


def test_sections_keep_their_order_and_are_linked(monkeypatch):
    text = page_of(Section("Memory", ("A sentence.",), ("A point.",)), monkeypatch, title="The title")
    assert '<a href="#s0">Memory</a>' in text
    assert "<title>The title</title>" in text
    places = [
        text.index(part) for part in ("<h1>", 'id="charts"', 'id="s0"', "A sentence.", "A point.", 'id="environment"')
    ]
    assert places == sorted(places)


def test_every_link_of_the_page_leads_to_one_place(text):
    page = Page(text)
    identities = page.all("id")
    assert len(identities) == len(set(identities))
    targets = [value[1:] for value in page.all("href") if value.startswith("#")]
    targets += page.all("aria-labelledby") + page.all("aria-describedby")
    assert set(targets) <= set(identities)


def test_headlines_show_the_error_beside_the_speedup():
    report = make_report(
        time_ns=with_speedup(lambda _t, r: 4.0 if r == 64 else 2.0),
        errors=lambda w, _t, r: 0.9 if r == 64 or w == "power" else 0.005,
        weights=("gaussian", "power"),
        tokens=(64,),
        ranks=(64, 1024),
        rounds=8,
        noise=0.001,
    )
    tiles = _html.headline(parts(report))
    assert [tile.name for tile in tiles] == [
        "Fastest, at any error",
        "gaussian, error at most 5%",
        "power, error at most 5%",
    ]
    assert tiles[0].figure.startswith(("4.00", "3.99", "4.01"))
    assert "rank 64, eager, hot; error 91.8% (gaussian)" in tiles[0].detail
    assert tiles[1].figure.startswith(("2.00", "1.99", "2.01"))
    assert "error 0.51% (gaussian)" in tiles[1].detail
    assert tiles[2].figure == "stay dense"


def test_a_tie_within_the_error_is_no_headline():
    report = make_report(
        time_ns=with_speedup(lambda _t, _r: 1.0), errors=lambda *_: 0.001, tokens=(64,), ranks=(64,), rounds=8
    )
    assert [tile.figure for tile in _html.headline(parts(report))][1:] == ["stay dense"] * 3


def test_the_environment_names_machine_ceilings_software_and_run(text):
    for fact in ("Synthetic CPU", "150 GFLOP/s", "2.13.0", "2026-01-02T03:04:05+00:00", "load average"):
        assert fact in text[text.index('id="environment"') :]


def test_a_report_without_rows_is_a_page_without_charts():
    report = make_report(tokens=(64,), ranks=(64,), rounds=2)
    text = _html.html_page(replace(report, rows=(), ceilings=None))
    assert 'id="charts"' not in text
    assert "<svg" not in text
    assert Page(text).problems == []


def test_a_full_report_of_four_conditions_stays_under_a_megabyte_and_a_half():
    report = make_report(modes=("eager", "graph"), caches=("hot", "cold"), variants=("two",), rounds=2)
    text = _html.html_page(report)
    assert text.count('class="group"') == 4
    assert len(text.encode()) < 1_500_000
