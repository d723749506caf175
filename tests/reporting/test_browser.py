"""The page in a real headless Chromium: charts, hover values, highlighting, dark mode, no overflow, no errors."""

from __future__ import annotations

import importlib.util
import struct
import zlib

import pytest

from narrows.reporting._html import html_page
from reporting.reports import make_report, with_speedup

TOKENS = (64, 512, 4096)
QUESTION = """(() => {
  const root = document.documentElement;
  const facts = { problems, width: innerWidth, overflow: root.scrollWidth - root.clientWidth, charts: {} };
  for (const figure of document.querySelectorAll(".chart")) {
    const box = figure.querySelector("svg").getBoundingClientRect();
    const names = [...figure.querySelectorAll(".series")].map((one) => one.dataset.series);
    (facts.charts[figure.dataset.chart] ??= []).push({ names, width: box.width, height: box.height });
  }
  const figure = document.querySelector("[data-chart=speedup-rank]");
  const svg = figure.querySelector("svg");
  const mark = figure.querySelectorAll("[data-key=t4096] .pt")[0];
  const box = mark.getBoundingClientRect();
  const at = { bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
  svg.dispatchEvent(new PointerEvent("pointermove", at));
  const tip = document.querySelector("#tip");
  facts.tip = [...tip.querySelectorAll("dt")].map((dt) => [dt.textContent, dt.nextSibling.textContent]);
  facts.shown = !tip.hidden;
  svg.dispatchEvent(new PointerEvent("pointerleave"));
  facts.hidden = tip.hidden;
  svg.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  facts.keyboard = tip.textContent;
  svg.dispatchEvent(new FocusEvent("blur"));
  document.querySelector("button[data-key=t512]").click();
  facts.highlighted = figure.classList.contains("highlighted");
  facts.on = [...figure.querySelectorAll(".series.on")].map((one) => one.dataset.series);
  facts.titles = document.querySelectorAll("svg title").length;
  facts.label = svg.getAttribute("aria-label");
  facts.background = getComputedStyle(document.body).backgroundColor;
  facts.ink = getComputedStyle(document.body).color;
  return facts;
})()"""


@pytest.fixture(scope="module")
def browser(root):
    """Return the module that takes the docs' pictures: it knows how to ask a Chromium."""
    spec = importlib.util.spec_from_file_location("screenshots", root / "docs" / "screenshots.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.find_chromium() is None:
        pytest.skip("not shown: no Chromium")
    return module


@pytest.fixture(scope="module")
def report():
    return make_report(
        time_ns=with_speedup(lambda t, r: 8.0 * (t / 4096) ** 0.5 * (64 / r) ** 0.7),
        weights=("gaussian", "<script>alert(1)</script>", "product", "a.very.long.name" * 6),
        tokens=TOKENS,
        ranks=(64, 256, 1024),
        rounds=8,
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory, report):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(html_page(report), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def light(browser, page):
    return browser.ask(page, QUESTION)


@pytest.fixture(scope="module")
def narrow_and_dark(browser, page):
    return browser.ask(page, QUESTION, width=390, is_dark=True)


def test_every_chart_is_there_with_the_right_series(light, report):
    lengths = [f"{tokens} tokens" for tokens in TOKENS]
    charts = {key: [figure["names"] for figure in figures] for key, figures in light["charts"].items()}
    assert charts["speedup-rank"] == charts["time-limit"] == charts["memory-rank"] == [lengths]
    assert charts["speedup-error"] == [lengths] * len(report.weights)
    assert len(charts["best-length"][0]) == len(report.weights) + 2
    assert all(f["width"] > 250 and f["height"] > 150 for figures in light["charts"].values() for f in figures)


@pytest.mark.parametrize("width", ["light", "narrow_and_dark"])
def test_nothing_overflows_and_nothing_fails(width, request):
    facts = request.getfixturevalue(width)
    assert facts["problems"] == []
    assert facts["overflow"] == 0


def test_the_narrow_page_is_really_narrow(narrow_and_dark):
    assert narrow_and_dark["width"] == 390


def test_hovering_shows_the_exact_values_of_the_nearest_point(light):
    shown = dict(light["tip"])
    assert light["shown"]
    assert light["hidden"]
    assert shown["Tokens"] == "4096"
    assert shown["Rank"] == "64"
    assert shown["Speedup [99 %]"].startswith(("8.0", "7.9"))
    assert shown["Error, gaussian"].endswith("%")


def test_hover_shows_hostile_names_as_text(light):
    assert "Error, <script>alert(1)</script>" in dict(light["tip"])


def test_arrow_keys_walk_the_points(light):
    assert "Tokens64" in light["keyboard"]


def test_a_legend_entry_highlights_its_series(light):
    assert light["highlighted"]
    assert light["on"] == ["512 tokens"]


def test_the_browsers_own_tooltips_give_way_and_the_label_stays(light):
    assert light["titles"] == 0
    assert light["label"] == "Speedup against rank"


def test_dark_mode_swaps_ground_and_ink(light, narrow_and_dark):
    def brightness(colour):
        return sum(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(","))

    assert brightness(light["background"]) > 700
    assert brightness(light["ink"]) < 100
    assert brightness(narrow_and_dark["background"]) < 100
    assert brightness(narrow_and_dark["ink"]) > 600


def test_the_self_check_sees_overflow_and_errors(browser, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(
        "<!doctype html><html><head><style></style></head><body><div style='width:2000px'>x</div>"
        "<script>throw new Error('planted')</script></body></html>"
    )
    question = "({problems, overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth})"
    facts = browser.ask(broken, question, width=390)
    assert "planted" in facts["problems"][0]
    assert facts["overflow"] > 1000


def distinct_rows(png):
    """Return how many different filtered scanlines a PNG has; a blank page has one or two."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, colours = struct.unpack(">IIBB", png[16:26])
    data, place = b"", 8
    while place < len(png):
        size, kind = struct.unpack(">I4s", png[place : place + 8])
        data += png[place + 8 : place + 8 + size] if kind == b"IDAT" else b""
        place += 12 + size
    rows = zlib.decompress(data)
    stride = 1 + width * {2: 3, 6: 4}[colours] * depth // 8
    assert len(rows) == stride * height
    return len({rows[i : i + stride] for i in range(0, len(rows), stride)})


def test_a_screenshot_is_not_blank(browser, page, tmp_path):
    browser.shoot(page, tmp_path / "page.png", width=1000, height=900)
    assert distinct_rows((tmp_path / "page.png").read_bytes()) > 200


def test_the_canary_of_blankness_sees_an_empty_page(browser, tmp_path):
    empty = tmp_path / "empty.html"
    empty.write_text("<!doctype html><html><head></head><body></body></html>")
    browser.shoot(empty, tmp_path / "empty.png", width=600, height=300)
    assert distinct_rows((tmp_path / "empty.png").read_bytes()) < 10
