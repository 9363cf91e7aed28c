"""What a page is made of: figures, tables, commands, facts and lists, in sections. Data only, nothing is drawn here."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

from lightball.errors import InputError


class Chart(Protocol):
    """What can be drawn: anything that gives a Vega-Lite specification, as every Altair chart does."""

    def to_dict(self) -> dict[str, Any]:
        """The specification, as JSON would hold it."""
        ...


@dataclass(frozen=True)
class Figure:
    """A chart with a caption.

    Charts should have ``width="container"``: they then take the width that the page gives them, and follow it. The
    page colours axes, titles and legends to suit its scheme; a mark that should follow too is coloured `currentColor`.

    Args:
        name: unique on its page; the stem of files saved from it, so lower-case letters, digits, ``.``, ``_``, ``-``.
        chart: what to draw.
        caption: what there is to see.

    Raises:
        InputError: the name could not be the stem of a file.
    """

    name: str
    chart: Chart
    caption: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.name):
            raise InputError(
                f"a figure is named {self.name!r}, which cannot be part of a file name: use lower-case letters, "
                "digits, '.', '_' and '-' only, and begin with a letter or a digit"
            )


@dataclass(frozen=True)
class Figures:
    """Figures side by side where the page is wide enough: small multiples."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Badge:
    """A verdict as a chip.

    Args:
        text: what it says.
        kind: "no value", "helps", "hurts" or "undecided" choose its sign and colour; any other is neutral.
    """

    text: str
    kind: str


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Args:
        head: the names of the columns.
        rows: as many cells each as there are columns.
        caption: what the table holds.
        numeric: the places of the columns, from 0, that hold numbers; they are aligned to the right.

    Raises:
        InputError: a row has more or fewer cells than there are columns.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str | Badge, ...], ...]
    caption: str = ""
    numeric: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise InputError(
                    f"a row of a table has {len(row)} cells, {row}: it needs {len(self.head)}, one for each of the "
                    f"columns {self.head}"
                )


@dataclass(frozen=True)
class Code:
    """A command to copy."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and their values, such as settings."""

    items: tuple[tuple[str, str | Badge], ...]


@dataclass(frozen=True)
class Listing:
    """Points, one below the other."""

    items: tuple[str, ...]


Part = Figure | Figures | Table | Code | Facts | Listing


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Args:
        title: the heading; it has an anchor.
        text: paragraphs, before the parts.
        parts: what is shown.
        folded: closed until a reader opens it; open in print.
    """

    title: str
    text: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """A page: the answer first, then what it rests on.

    Args:
        title: what the page is about; the name of its window, and a small line above the answer.
        answer: the answer in a sentence.
        lead: paragraphs under the answer.
        sections: the rest.
        notice: something to know before reading, such as that a study is not finished.
        reload_seconds: how often the page loads itself again, for one that is written anew while a study runs.

    Raises:
        InputError: two figures have the same name.
    """

    title: str
    answer: str
    lead: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    notice: str = ""
    reload_seconds: int | None = None

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(figure.name for figure in figures_of(self)).items() if count > 1]
        if twice:
            raise InputError(f"{twice[0]!r} names more than one figure of a page: give each a name of its own")


def figures_of(page: Page) -> list[Figure]:
    """All figures of a page, in order, those in grids included; for saving each to a file."""
    found = []
    for section in page.sections:
        for part in section.parts:
            if isinstance(part, Figure):
                found.append(part)
            elif isinstance(part, Figures):
                found += part.figures
    return found
