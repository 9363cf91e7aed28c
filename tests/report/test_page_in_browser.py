"""Pages in a real browser: they draw, ask for nothing, fit, read well in both schemes and answer to the keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from page_measures import LESS_CONTRAST_THAN, OUTSIDE_THEIR_PLACE, chart_widths, states
from page_samples import OpenPage

from lightball.report.page import Code, Page, Section


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_draws_fits_and_asks_for_nothing(visit: OpenPage, width: int, scheme: Literal["light", "dark"]) -> None:
    seen = visit(width=width, scheme=scheme)
    tab = seen.tab
    assert states(seen) == ["true"] * 5
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= width
    assert all(drawn == pytest.approx(place, abs=1) and drawn > 300 for drawn, place in chart_widths(seen))
    tab.evaluate("document.querySelector('details').open = true")
    assert tab.evaluate(OUTSIDE_THEIR_PLACE) == []
    contrast = tab.evaluate(LESS_CONTRAST_THAN, 4.5)
    assert contrast["found"] == []
    assert contrast["seen"] > 150
    assert seen.complaints == []
    assert [address.rpartition("/")[2] for address in seen.requests] == ["report.html"]


def test_the_checks_of_contrast_and_of_fit_find_what_they_must(visit: OpenPage) -> None:
    tab = visit(width=400).tab
    faint = ".chart .role-axis-title text { fill: #ccc !important }"
    tab.add_style_tag(content="h1 { color: #999; white-space: nowrap }" + faint)
    assert len(tab.evaluate(LESS_CONTRAST_THAN, 4.5)["found"]) == 1 + 2 * 5
    assert len(tab.evaluate(OUTSIDE_THEIR_PLACE)) == 1


def test_wide_tables_scroll_within_themselves(visit: OpenPage) -> None:
    wide = visit(width=400).tab.locator(".wide")
    assert wide.evaluate("e => e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX === 'auto'")
    lines = (
        "cell => { const r = document.createRange(); r.selectNodeContents(cell); return r.getClientRects().length; }"
    )
    assert {each.evaluate(lines) for each in wide.locator("tbody .number").all()} == {1}
    wide.focus()
    wide.press("ArrowRight")
    wide.page.wait_for_timeout(300)
    assert wide.evaluate("e => e.scrollLeft") > 0


def test_small_multiples_stand_side_by_side_where_there_is_room(visit: OpenPage) -> None:
    tops = "[...document.querySelectorAll('.grid figure')].map(f => f.offsetTop)"
    assert len(set(visit(width=1400).tab.evaluate(tops))) == 1
    assert len(set(visit(width=400).tab.evaluate(tops))) == 3


def test_charts_follow_the_window_and_folding(visit: OpenPage) -> None:
    seen = visit(width=1400)
    for width in (500, 1000):
        seen.tab.set_viewport_size({"width": width, "height": 900})
        seen.tab.wait_for_timeout(200)
        seen.tab.evaluate("document.querySelector('details').open = true")
        seen.tab.wait_for_timeout(200)
        assert all(drawn == pytest.approx(place, abs=1) for drawn, place in chart_widths(seen))
        assert seen.tab.evaluate("document.scrollingElement.scrollWidth") <= width
        seen.tab.evaluate("document.querySelector('details').open = false")
    assert seen.complaints == []


def test_charts_follow_their_place_where_the_window_stays(visit: OpenPage) -> None:
    seen = visit(width=1400)
    seen.tab.add_style_tag(content="main { width: 700px; margin: 0 }")
    seen.tab.wait_for_timeout(200)
    assert all(drawn == pytest.approx(place, abs=1) and drawn < 700 for drawn, place in chart_widths(seen))


def test_each_scheme_has_its_colours(visit: OpenPage) -> None:
    colours = """() => {
      const of = (selector, property) => getComputedStyle(document.querySelector(selector))[property];
      const page = [of("body", "backgroundColor"), of("body", "color")];
      return [...page, of(".role-axis-title text", "fill"), of(".chart svg", "backgroundColor")];
    }"""
    light, dark = (visit(scheme=scheme).tab.evaluate(colours) for scheme in ("light", "dark"))
    assert light == ["rgb(255, 255, 255)", "rgb(27, 29, 33)", "rgb(27, 29, 33)", "rgba(0, 0, 0, 0)"]
    assert dark == ["rgb(21, 23, 26)", "rgb(228, 230, 233)", "rgb(228, 230, 233)", "rgba(0, 0, 0, 0)"]


def test_verdicts_are_told_by_sign_and_words(visit: OpenPage) -> None:
    badges = visit().tab.locator("td .badge")
    signs = [each.evaluate("b => getComputedStyle(b, '::before').content") for each in badges.all()]
    assert badges.all_text_contents() == ["no value", "helps", "hurts", "undecided", "failed"]
    assert [sign.partition(" / ")[0] for sign in signs] == ['"="', '"▲"', '"▼"', '"?"', "none"]


def test_the_keyboard_reaches_everything(visit: OpenPage) -> None:
    tab = visit().tab
    reached = []
    for _ in range(30):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent.trim()"))
    assert {"Verdicts", "Save this chart as SVG", "Wide", "More"} <= set(reached)
    tab.locator("summary").press("Enter")
    assert tab.evaluate("document.querySelector('details').open")


def test_charts_are_saved_by_keyboard_under_their_names_on_white(visit: OpenPage, tmp_path: Path) -> None:
    seen = visit(scheme="dark")
    for kind, start in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with seen.tab.expect_download() as download:
            seen.tab.locator(f"#figure\\:verdicts button[data-format={kind}]").press("Enter")
        assert download.value.suggested_filename == f"verdicts.{kind}"
        download.value.save_as(tmp_path / kind)
        assert (tmp_path / kind).read_bytes().startswith(start)
    saved = (tmp_path / "svg").read_text(encoding="utf-8")
    assert 'fill="white"' in saved or "background-color: white" in saved
    assert "var(" not in saved
    assert seen.complaints == []


def test_the_command_copies_as_it_was_given(visit: OpenPage) -> None:
    tab = visit().tab
    tab.evaluate("getSelection().selectAllChildren(document.querySelector('pre'))")
    copied = tab.evaluate("getSelection().toString()").strip()
    assert copied.startswith("lightball compare digits --batch-sizes 8,32,128,512 --momentum 0.9 --out a-long-folder/")
    assert copied == tab.locator("code").text_content()


@pytest.mark.parametrize("width", [360, 400, 440, 700])
def test_a_command_breaks_between_words_only(visit: OpenPage, width: int) -> None:
    command = Section("Again", parts=(Code("run " + "--some-long-option value " * 20),))
    words = visit(Page("title", "answer", sections=(command,)), width=width).tab.locator("pre span")
    assert words.count() == 41
    heights = words.evaluate_all("words => words.map(word => word.getBoundingClientRect().height)")
    assert max(heights) < 1.5 * min(heights)


def test_without_javascript_it_says_so_and_shows_the_rest(visit: OpenPage) -> None:
    seen = visit(javascript=False)
    assert seen.tab.locator("noscript p").is_visible()
    assert seen.tab.locator("table").is_visible()
    assert seen.tab.locator(".save").first.is_hidden()


def test_it_loads_itself_again(visit: OpenPage) -> None:
    seen = visit(Page("title", "answer", reload_seconds=1))
    with seen.tab.expect_event("load", timeout=10_000):
        pass
    assert len(seen.requests) == 2
