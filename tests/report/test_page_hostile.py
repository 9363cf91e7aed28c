"""Names from users are shown, never run; charts that fail say so and stop nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import pytest
from page_measures import states
from page_samples import OpenPage, Spec, chart

from lightball.report.page import Badge, Code, Facts, Figure, Figures, Listing, Page, Section, Table, html

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</style></title></noscript><script>alert(3)</script>",
    "<!--<script>",
    '"><img src=x onerror=alert(4)>',
    "javascript:alert(5)//'onmouseover='alert(6)",
    "{{ 7*7 }}{% raw %} &lt;b&gt; & &amp; a\u2028b\u2029c",
]

# Every element that shows text which a user may have given.
PLACES = (
    "h1, .title, .notice, header > p, h2, section > p, details > p, figcaption > p, .wide :is(th, td), dt, dd, code"
)


def hostile_chart(text: str) -> alt.Chart:
    """One bar that fills the plot, with the text wherever a chart can hold one."""
    base = alt.Chart(alt.InlineData(values=[{"name": text, "value": 1}]), title=text, description=text)
    return (
        base.mark_bar()
        .encode(
            x=alt.X("name:N", title=text),
            y="value:Q",
            color=alt.Color("name:N", title=text),
            tooltip=[alt.Tooltip("name:N", title=text)],
        )
        .properties(width=200, height=100)
    )


def hostile_page(text: str) -> Page:
    parts = (
        Figure("alone", hostile_chart(text), text),
        Figures((Figure("grid", hostile_chart(text)),)),
        Table((text, text), ((text, Badge(text, text)),), text),
        Code(text),
        Facts(((text, text),)),
        Listing((text,)),
    )
    return Page(text, text, (text,), (Section(text, (text,), parts), Section(text, (text,), folded=True)), notice=text)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_shown_and_never_run(text: str, visit: OpenPage) -> None:
    seen = visit(hostile_page(text))
    shown = seen.tab.locator(f"{PLACES}, li, figure > figcaption:not(:has(*))").all_text_contents()
    assert [each.strip() for each in shown] == [text] * 18
    assert states(seen) == ["true"] * 2
    drawn = text.replace("\u2028", " ").replace("\u2029", " ")
    assert seen.tab.locator(".role-title-text text").first.text_content() == drawn
    assert seen.tab.locator("script").count() == 3
    seen.tab.locator(".mark-rect path").first.hover()
    assert seen.tab.locator("#vg-tooltip-element.visible td.value").text_content() == drawn
    assert seen.tab.locator("img, #vg-tooltip-element script").count() == 0
    assert seen.dialogs == []
    assert seen.complaints == []
    assert [address.rpartition("/")[2] for address in seen.requests] == ["report.html"]


@pytest.mark.parametrize(
    "markup",
    [
        "<script>alert(1)</script>",
        "<img src=data:, onerror=alert(1)>",
        "<a href=javascript:alert(1)>x</a>",
    ],
)
def test_the_policy_stops_what_would_get_past_the_escaping(markup: str, tmp_path: Path, open_page: OpenPage) -> None:
    guarded = html(Page("title", "answer")).replace("</h1>", f"</h1>{markup}")
    unguarded = guarded.replace("Content-Security-Policy", "x")
    path = tmp_path / "report.html"
    for text, alerts in ((guarded, []), (unguarded, ["1"])):
        path.write_text(text, encoding="utf-8")
        seen = open_page(path)
        for link in seen.tab.locator("a").all():
            link.click()
        seen.tab.wait_for_timeout(200)
        assert seen.dialogs == alerts


def test_a_chart_cannot_lead_to_a_script(visit: OpenPage) -> None:
    linked = hostile_chart("javascript:alert(1)").encode(href="name:N")
    seen = visit(Page("title", "answer", sections=(Section("Charts", parts=(Figure("linked", linked),)),)))
    seen.tab.locator(".mark-rect path").first.click()
    seen.tab.wait_for_timeout(200)
    assert seen.dialogs == []


def failing(**changes: Any) -> Spec:
    return Spec({**chart().to_dict(), **changes})


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (failing(layer=[{}]), "Invalid specification"),
        (failing(transform=[{"calculate": "1 +", "as": "x"}]), "Unexpected end of input"),
        (failing(transform=[{"calculate": "datum.no.such.field", "as": "x"}]), "undefined"),
    ],
    ids=["compiling", "parsing", "computing"],
)
def test_a_chart_that_fails_says_why_and_stops_no_other(spec: Spec, reason: str, visit: OpenPage) -> None:
    figures = (Figure("first", chart()), Figure("broken", spec), Figure("last", chart()))
    seen = visit(Page("title", "answer", sections=(Section("Charts", parts=figures),)))
    assert states(seen) == ["true", "failed", "true"]
    message = seen.tab.locator("#figure\\:broken").inner_text()
    assert message.startswith("This chart could not be drawn: ")
    assert reason in message
    assert seen.tab.locator("#figure\\:broken button").first.is_hidden()
