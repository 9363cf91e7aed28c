"""A page as text: what is printed is what the page says, in 80 columns."""

from __future__ import annotations

from page_samples import one_of_each

from lightball.report.page import Badge, Code, Facts, Listing, Page, Section, Table
from lightball.report.plain import plain_text, text_table


def test_numbers_are_aligned_to_the_right_and_names_to_the_left() -> None:
    table = Table(("rule", "η"), (("SGD", "0.1"), ("SGDM", "12")), caption="Rates", numeric=(1,))
    assert text_table(table) == "Rates\n  rule    η\n  SGD   0.1\n  SGDM   12"


def test_answer_paragraphs_and_tables_come_in_the_order_of_the_page() -> None:
    page = Page(
        "t",
        "The answer.",
        ("Lead.",),
        (
            Section("Shown", ("Text.",), (Table(("a",), ((Badge("helps", "helps"),),)), Listing(("one", "two")))),
            Section("Folded", ("Hidden.",), (Code("lightball"),), folded=True),
            Section("Facts", (), (Facts((("name", "x"), ("longer", "y"))),)),
        ),
    )
    assert plain_text(page) == (
        "The answer.\n\nLead.\n\nText.\n\n  a\n  helps\n\n- one\n- two\n\n  name    x\n  longer  y"
    )


def test_paragraphs_are_filled_to_80_columns() -> None:
    text = plain_text(Page("t", "word " * 60, ("- " + "item " * 40,)))
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[-1].startswith("  item")


def test_long_facts_go_on_under_their_values() -> None:
    lines = plain_text(
        Page("t", "a", (), (Section("s", (), (Facts((("name", "word " * 30), ("none", ""))),)),))
    ).splitlines()
    assert lines[2].startswith("  name  word")
    assert lines[3].startswith("        word")
    assert lines[-1] == "  none"
    assert max(map(len, lines)) <= 80


def test_any_page_has_a_text() -> None:
    assert plain_text(one_of_each()).startswith(one_of_each().answer)
