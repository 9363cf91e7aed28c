"""Pages: a list of sections to one HTML file that opens from disk, without a network.

A `Page` is data: an answer in one sentence, and sections of text, figures, tables, facts and commands. `html` turns it
into one string that holds everything it needs, the JavaScript that draws the charts included. All text is escaped:
a name that looks like markup is shown as it was given.

    >>> from lightball.report.page import Page, Section, Table, html
    >>> table = Table(head=("batch size", "pairs"), rows=(("8", "16"),), numeric=(0, 1))
    >>> text = html(Page("digits", "Momentum is of no value.", sections=(Section("Runs", parts=(table,)),)))
    >>> text.startswith("<!doctype html>")
    True

The page of a report forbids itself all loading and every script but its own, by a content security policy with the
hash of that script. Vega's expressions are interpreted, not compiled, so that the policy need not allow code made
from text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from functools import cache, partial
from importlib import resources
from typing import Any, get_args

import altair
import jinja2
import vl_convert

from lightball.errors import InputError
from lightball.report.parts import (
    Badge,
    Chart,
    Code,
    Facts,
    Figure,
    Figures,
    Listing,
    Page,
    Part,
    Section,
    Table,
    figures_of,
)

__all__ = [
    "Badge",
    "Chart",
    "Code",
    "Facts",
    "Figure",
    "Figures",
    "Listing",
    "Page",
    "Part",
    "Section",
    "Table",
    "at_rest",
    "figures_of",
    "html",
]


def html(page: Page) -> str:
    """The page as one HTML document, about 0.9 MB and what its charts hold.

    Its root element gets the attribute ``data-ready`` once every chart is drawn, and each figure ``data-rendered``.

    Raises:
        InputError: a chart holds a number that is not finite, which JSON cannot express.
    """
    script = _script()
    text = _template().render(
        page=page,
        specification=_specification,
        anchor_of=_anchors(page),
        css=_asset("page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return text.lstrip().encode(errors="replace").decode()  # a file's name may hold what is no text


def at_rest(document: str) -> str:
    """What :func:`html` gave, without the reloading."""
    document = re.sub(r'<meta http-equiv="refresh" content="\d+">\n', "", document, count=1)
    return re.sub(r" This page loads itself again every \d+ s\.</p>", "</p>", document, count=1)


def _specification(figure: Figure) -> str:
    """A chart's specification as JSON that cannot end the script element it stands in.

    Unicode's separators of lines and paragraphs become spaces: Vega takes them for the end of a string.
    """
    chart = figure.chart
    # Altair has checked its charts while they were made; to check all of their data again takes seconds.
    content = chart.to_dict(validate=False) if isinstance(chart, altair.TopLevelMixin) else chart.to_dict()
    try:
        text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError as error:
        raise InputError(
            f"the chart {figure.name!r} cannot be written as JSON ({error}): give null for values that are not finite"
        ) from error
    return text.translate({ord("<"): "\\u003c", 0x2028: " ", 0x2029: " "})


def _anchors(page: Page) -> dict[int, str]:
    """An identifier for each section, by its place: its title in small letters, numbered where titles repeat."""
    anchors: dict[int, str] = {}
    for place, section in enumerate(page.sections):
        stem = re.sub(r"\W+", "-", section.title.lower()).strip("-") or "section"
        anchors[place] = stem if stem not in anchors.values() else f"{stem}--{place}"
    return anchors


@cache
def _script() -> str:
    """Vega-Embed and the page's own script in one; a second's work, so done once.

    The sequences that would end or disguise a script element are broken up; within strings and patterns of
    JavaScript, the only places where they can occur, the backslash changes nothing.
    """
    version = "_".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    bundle = vl_convert.javascript_bundle(_asset("page.js"), vl_version=version)
    return re.sub(r"<(?=/script|!--)", r"<\\", bundle, flags=re.IGNORECASE)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["words"] = partial(re.findall, r"\s+|\S+")
    environment.tests.update({kind.__name__.lower(): _is_a(kind) for kind in (*get_args(Part), Badge)})
    return environment.from_string(_asset("page.html.j2"))


def _is_a(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _asset(name: str) -> str:
    return (resources.files("lightball.report") / "assets" / name).read_text(encoding="utf-8")
