"""A page as plain text: what a command prints is what its page says."""

from __future__ import annotations

import textwrap

from lightball.report.parts import Badge, Facts, Listing, Page, Part, Section, Table

WIDTH = 80


def plain_text(page: Page) -> str:
    """The answer, the paragraphs and the tables of a page, in at most 80 columns where its tables allow it.

    Figures, commands and sections that are folded on the page are left to the page.
    """
    blocks = [page.answer, *page.lead]
    for section in page.sections:
        if not section.folded:
            blocks += _section(section)
    return "\n\n".join(_wrapped(block) for block in blocks if block)


def text_table(table: Table) -> str:
    """A table in columns, numbers to the right; a caption stands above it."""
    rows = [[cell.text if isinstance(cell, Badge) else cell for cell in row] for row in (table.head, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if place in table.numeric else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*([table.caption] if table.caption else []), *(f"  {line}" for line in lines)])


def _section(section: Section) -> list[str]:
    shown = [text for text in map(_part, section.parts) if text]
    return [*section.text, *shown]


def _part(part: Part) -> str:
    if isinstance(part, Table):
        return text_table(part)
    if isinstance(part, Listing):
        return "\n".join(f"- {item}" for item in part.items)
    if isinstance(part, Facts):
        width = max((len(name) for name, _ in part.items), default=0)
        return "\n".join(
            _filled(f"{name:<{width}}  {value.text if isinstance(value, Badge) else value}", "  ", " " * (width + 4))
            for name, value in part.items
        )
    return ""


def _wrapped(block: str) -> str:
    """Paragraphs are filled; lines that begin with a space are rows, which stay as they are."""
    lines = block.split("\n")
    return "\n".join(
        line if line.startswith(" ") else _filled(line, "", "  " if line.startswith("- ") else "") for line in lines
    )


def _filled(line: str, first: str, others: str) -> str:
    return textwrap.fill(
        line, WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
