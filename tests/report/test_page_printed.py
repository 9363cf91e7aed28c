"""Pages on paper: light, unfolded, and nothing cut."""

from __future__ import annotations

import pytest
from page_samples import OpenPage, Visit

A4_TEXT_WIDTH = (210 - 2 * 15) / 25.4 * 96  # in CSS pixels, between the margins

# Only while sheets are laid out does the print medium match, so this measures what the PDF shows.
MEASURE_ON_PAPER = """() => matchMedia("print").addEventListener("change", ({ matches }) => {
  if (!matches) return;
  const boxes = (selector) => [...document.querySelectorAll(selector)].map((element) => {
    const box = element.getBoundingClientRect();
    return [box.left, box.right, box.height];
  });
  const charts = [...document.querySelectorAll(".chart svg")];
  window.paper = {
    charts: boxes(".chart svg"),
    tables: boxes("table"),
    texts: boxes("h1, h2, p, pre, dl, li"),
    buttons: boxes(".save button"),
    scales: charts.map((svg) => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width),
    hidden: charts.filter((svg) => !svg.checkVisibility()).length,
    ground: getComputedStyle(document.body).backgroundColor,
    guides: getComputedStyle(document.querySelector(".role-axis-title text")).fill,
  };
})"""


@pytest.fixture
def printed(visit: OpenPage) -> Visit:
    """The page open in the dark on a wide screen, after it was printed."""
    seen = visit(width=1400, scheme="dark")
    seen.tab.evaluate(MEASURE_ON_PAPER)
    assert seen.tab.pdf(format="A4", print_background=True).startswith(b"%PDF")
    return seen


def test_nothing_is_cut_on_light_paper(printed: Visit) -> None:
    paper = printed.tab.evaluate("window.paper")
    assert [len(paper[kind]) for kind in ("charts", "tables")] == [5, 1]
    for left, right, height in paper["charts"] + paper["tables"] + paper["texts"]:
        assert left >= 0
        assert right <= A4_TEXT_WIDTH + 1
        assert height > 0
    assert paper["hidden"] == 0
    assert paper["scales"] == pytest.approx([1] * 5, abs=0.05)  # scaled from a wide screen, words would be small
    assert paper["ground"] == "rgb(255, 255, 255)"
    assert paper["guides"] == "rgb(27, 29, 33)"
    assert all(height == 0 for *_, height in paper["buttons"])


def test_printing_leaves_the_screen_as_it_was(printed: Visit) -> None:
    printed.tab.wait_for_timeout(200)
    assert float(printed.tab.locator(".chart svg").first.get_attribute("width") or 0) > 1300
    assert printed.tab.locator("details[open]").count() == 0
    assert printed.tab.locator("table").evaluate("table => table.style.zoom") == ""
    assert printed.tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert printed.complaints == []


def test_charts_are_scaled_until_they_are_laid_out_anew(visit: OpenPage) -> None:
    """Also where a browser prints without telling the page first."""
    overhang = """() => {
      document.querySelector("main").style.width = "380px";
      const over = (svg) => svg.getBoundingClientRect().right - svg.closest("main").getBoundingClientRect().right;
      return [...document.querySelectorAll(".chart svg")].map(over);
    }"""
    overhangs = visit(width=1400).tab.evaluate(overhang)
    assert len(overhangs) == 5
    assert max(overhangs) <= 0
