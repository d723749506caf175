"""The page of a model's plan: one file without network or foreign markup, measured figures before predicted ones."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from narrows._values import ModelPoint
from narrows.reporting import model_document
from narrows.reporting._model_document import headline, model_sections
from narrows.reporting._model_points import placed
from reporting.models import make_measured, make_options, make_plan, make_points
from reporting.test_html import EVIL, Page, outside_addresses


@pytest.fixture(scope="module")
def model():
    options = make_options(blocks=3)
    plan, points = make_plan(options), make_points(options)
    return plan, points, make_measured(plan, points)


@pytest.fixture(scope="module")
def text(model):
    return model_document(*model)


def test_the_page_is_well_formed_and_asks_the_network_for_nothing(text):
    assert Page(text).problems == []
    assert outside_addresses(text) == []
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_every_link_of_the_page_leads_to_one_place(text):
    page = Page(text)
    identities = page.all("id")
    assert len(identities) == len(set(identities))
    targets = [value[1:] for value in page.all("href") if value.startswith("#")]
    targets += page.all("aria-labelledby") + page.all("aria-describedby")
    assert set(targets) <= set(identities)


def test_hostile_names_stay_text(model):
    plan, points, measured = model
    layers = tuple(replace(one, layer=f"x.{place}.{EVIL}", reason=EVIL) for place, one in enumerate(plan.layers))
    hostile = replace(plan, layers=layers, device_name=EVIL, dtype=EVIL, method=EVIL)
    page = Page(model_document(hostile, points, [replace(one, label=one.label + EVIL, note=EVIL) for one in measured]))
    assert page.problems == []
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert any(EVIL in one for one in page.texts)


def test_every_layer_and_every_reason_is_on_the_page(model, text):
    texts = "\n".join(Page(text).texts)
    assert all(one.layer in texts and one.reason in texts for one in model[0].layers)


def test_the_top_shows_what_was_measured_of_this_plan_with_the_prediction_beside_it(model):
    plan, points, measured = model
    tiles = headline(plan, placed(points, measured))
    names = [tile.name for tile in tiles]
    assert names == ["Numbers kept", "Perplexity / dense, measured", "Speedup, measured", "Bytes of the linears"]
    assert tiles[1].figure == "1.0731x"
    assert "perplexity 25.10 [24.60, 25.70]; predicted 1.0" in tiles[1].detail
    assert tiles[2].detail.startswith("1.120x [1.100, 1.140] at prefill:2048x1; predicted 1.0")


def test_without_measurements_the_top_says_that_its_figures_are_predicted(model):
    plan, points, measured = model
    for found in ((), placed(points, measured[:2])):
        names = [tile.name for tile in headline(plan, found)]
        assert names[1:3] == ["Perplexity / dense, predicted", "Speedup, predicted"]


def test_the_page_says_where_dense_or_int8_wins(model):
    sentences = model_sections(*model)[1].points
    told = "dense beats int8: speedup 1.000x against 0.960x, perplexity 1.0000x against 1.0021x of dense's."
    assert told in sentences
    assert any(one.startswith("int8 beats keep 0.8: ") for one in sentences)
    assert "By quality and speed, nothing measured beats dense, keep 0.8 and keep 0.75." in sentences
    assert "By quality and bytes, nothing measured beats dense and int8." in sentences


def test_without_measurements_there_is_no_section_of_them(model):
    plan, points, _ = model
    assert [section.title for section in model_sections(plan, points)] == [
        "The plan in all",
        "The frontier",
        "Every layer",
    ]


def test_one_measured_model_beats_nobody(model):
    plan, points, _ = model
    assert model_sections(plan, points, [ModelPoint("dense", 1.0, 10, 1.0, perplexity=20.0)])[1].points == ()


QUESTION = """(() => {
  const root = document.documentElement;
  const chart = document.querySelector("[data-chart=quality-speed]");
  const svg = chart.querySelector("svg");
  const box = chart.querySelector("[data-key=choices] .pt").getBoundingClientRect();
  const at = { bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
  svg.dispatchEvent(new PointerEvent("pointermove", at));
  const tip = document.querySelector("#tip").textContent;
  document.querySelector("button[data-key=k1]").click();
  const on = [...document.querySelectorAll(".series.on")].map((one) => one.dataset.series);
  return { problems, tip, on, overflow: root.scrollWidth - root.clientWidth,
           charts: [...document.querySelectorAll(".chart")].map((one) => one.dataset.chart) };
})()"""


@pytest.fixture(scope="module")
def browser(root):
    spec = importlib.util.spec_from_file_location("screenshots", root / "docs" / "screenshots.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.find_chromium() is None:
        pytest.skip("not shown: no Chromium")
    return module


@pytest.mark.parametrize(("width", "is_dark"), [(1200, False), (390, True)])
def test_a_browser_draws_it_without_faults_or_overflow(browser, text, tmp_path, width, is_dark):
    page = tmp_path / "page.html"
    page.write_text(text, encoding="utf-8")
    facts = browser.ask(page, QUESTION, width=width, is_dark=is_dark)
    assert facts["problems"] == []
    assert facts["overflow"] == 0
    assert facts["charts"] == ["quality-speed", "quality-bytes", "kept-block"]
    assert "keep 0.8" in facts["tip"]
    assert facts["on"] == ["k_proj"]
