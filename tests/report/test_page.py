"""The HTML of a page, read without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from page_samples import Spec, one_of_each

from lightball.errors import InputError
from lightball.report.page import Badge, Code, Figure, Figures, Page, Section, Table, figures_of, html

EMPTY = Page("title", "answer")


def page_with(*parts: Any, **changes: Any) -> Page:
    return replace(EMPTY, sections=(Section("Section", parts=parts),), **changes)


def scripts(text: str) -> list[tuple[str, str]]:
    return re.findall(r'<script type="([^"]*)">(.*?)</script>', text, flags=re.DOTALL)


def ids_in(text: str) -> list[str]:
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value or "" for name, value in attrs if name == "id")

    Reader().feed(text)
    return found


def test_a_page_holds_all_it_needs_in_little() -> None:
    text = html(EMPTY)
    assert len(text.encode()) < 1_300_000
    assert re.search(r'<(link|img|iframe|object|embed)\b|\bsrc="', text.partition("<script")[0]) is None


def test_the_policy_allows_the_one_script_by_its_hash_and_no_code_from_text() -> None:
    text = html(EMPTY)
    [(kind, script)] = scripts(text)
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert kind == "module"
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    assert text.index("Content-Security-Policy") < text.index("<style")


def test_the_same_page_is_the_same_text() -> None:
    assert html(one_of_each()) == html(one_of_each())


def test_a_specification_survives_and_cannot_end_its_element() -> None:
    content = {"data": ["</script><script>alert(1)</script>", "<!--", "\u2028", "η & \"quotes\" 'too'"]}
    text = html(page_with(Figure("chart", Spec(content))))
    [(_, held)] = [script for script in scripts(text) if script[0] == "application/json"]
    assert json.loads(held) == {"data": [each.replace("\u2028", " ") for each in content["data"]]}
    assert "<" not in held


def test_what_json_cannot_hold_is_named() -> None:
    with pytest.raises(InputError, match=r"'loss-8' cannot be written as JSON .* give null"):
        html(page_with(Figure("loss-8", Spec({"data": float("nan")}))))


def test_names_that_are_no_text_can_be_written() -> None:
    assert "<h1>name ?</h1>" in html(replace(EMPTY, answer="name \udcff"))


def test_reloading_is_announced() -> None:
    text = html(replace(EMPTY, notice="Running.", reload_seconds=30))
    assert '<meta http-equiv="refresh" content="30">' in text
    assert "Running. This page loads itself again every 30 s." in text
    assert 'http-equiv="refresh"' not in html(EMPTY)


def test_tables_say_what_heads_a_row_and_what_a_column() -> None:
    text = html(page_with(Table(("size", "verdict"), (("8", Badge("no value", "no value")),), "Caption", numeric=(0,))))
    assert '<th scope="col" class="number">size</th><th scope="col">verdict</th>' in text
    assert '<th scope="row" class="number">8</th>' in text
    assert '<td><span class="badge" data-kind="no value">no value</span></td>' in text
    assert "<figcaption>Caption</figcaption>" in text


def test_sections_have_anchors_of_their_own() -> None:
    titles = ("Rates", "rates!", "Raten η", "§", "§", "Figure: a")
    page = replace(EMPTY, sections=tuple(Section(title, parts=()) for title in titles))
    page = replace(page, sections=(*page.sections, Section("More", parts=(Figure("a", Spec({})),), folded=True)))
    found = ids_in(html(page))
    assert len(found) == len(set(found)) == 8
    assert found[:3] == ["rates", "rates--1", "raten-η"]


def test_figures_are_found_in_order_and_in_grids() -> None:
    assert [f.name for f in figures_of(one_of_each())] == ["verdicts", "rates-8", "rates-32", "rates-128", "folded"]


@pytest.mark.parametrize("name", ["", "../up", "a b", "-a", "A", "a/b", "a\n"])
def test_a_figures_name_must_do_for_a_file(name: str) -> None:
    with pytest.raises(InputError, match="cannot be part of a file name"):
        Figure(name, Spec({}))


def test_names_of_figures_must_differ() -> None:
    with pytest.raises(InputError, match="'a' names more than one figure"):
        page_with(Figure("a", Spec({})), Figures((Figure("a", Spec({})),)))


def test_rows_must_fit_the_head() -> None:
    with pytest.raises(InputError, match=r"a row of a table has 1 cells, \('8',\): it needs 2"):
        Table(("size", "verdict"), (("8",),))


def test_a_command_keeps_its_spaces_and_lines() -> None:
    command = "run  --name '<b>' \\\n    --more"
    [held] = re.findall(r"<pre><code>(.*?)</code></pre>", html(page_with(Code(command))), flags=re.DOTALL)
    assert re.sub(r"</?span>", "", held).replace("&lt;", "<").replace("&gt;", ">").replace("&#39;", "'") == command
