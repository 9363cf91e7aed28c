"""Pages to look at, and what a browser tells of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import altair as alt
from playwright.sync_api import Page as Tab

from lightball.report.page import Badge, Code, Facts, Figure, Figures, Listing, Page, Section, Table


@dataclass(frozen=True)
class Visit:
    """A page as a browser shows it, and what happened while it did."""

    tab: Tab
    complaints: list[str] = field(default_factory=list)
    """Console messages that are warnings or errors, and exceptions of scripts."""
    requests: list[str] = field(default_factory=list)
    """Every address asked for, without those that hold their own content (data:, blob:)."""
    dialogs: list[str] = field(default_factory=list)
    """Messages of alert() and the like: something ran that should not."""


OpenPage = Callable[..., Visit]


@dataclass(frozen=True)
class Spec:
    """A chart that is nothing but its specification."""

    content: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return self.content


def chart(title: str = "Batch size 8") -> alt.LayerChart:
    """Two lines with points, with everything a page must fit: title, legend, axis titles, tooltip."""
    values = [
        {"rate": 0.01 * 2**k, "loss": 1.5**-k + shift, "label": label}
        for k in range(8)
        for label, shift in (("SGD", 0.0), ("SGDM β = 0.9", 0.05))
    ]
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("rate:Q", scale=alt.Scale(type="log"), title="effective learning rate η"),
        y=alt.Y("loss:Q", title="final training loss"),
        color=alt.Color("label:N", title=None, legend=alt.Legend(orient="top")),
        tooltip=["label:N", "rate:Q", "loss:Q"],
    )
    look: dict[str, Any] = {"autosize": alt.AutoSizeParams(type="fit-x", contains="padding"), "height": 180}
    return (base.mark_line() + base.mark_point()).properties(
        title=alt.TitleParams(title, subtitle="mean over seeds"), width="container", **look
    )


def one_of_each() -> Page:
    """A page with one of each, a figure in a folded section, and a table too wide for a telephone and for paper."""
    verdicts = ("no value", "helps", "hurts", "undecided", "failed")
    head = ("batch size", "mean", "interval", "verdict", "remark", *(f"measure {k}" for k in range(8)))
    rows = tuple(
        (str(2**k), "0.0012", "−0.0031 … 0.0054", Badge(word, word), "long " * 20 + "x" * 80, *("3.14159",) * 8)
        for k, word in enumerate(verdicts)
    )
    command = "lightball compare digits --batch-sizes 8,32,128,512 --momentum 0.9 --out " + "a-long-folder/" * 12
    table = Table(head, rows, "Wide", numeric=(0, 1, 2))
    facts = Facts((("fingerprint", "0123456789abcdef" * 8), ("verdict", Badge("no value", "no value"))))
    grid = Figures(tuple(Figure(f"rates-{b}", chart(f"Batch size {b}"), "Mean over seeds.") for b in (8, 32, 128)))
    return Page(
        title="digits",
        answer="Momentum is of no value at batch sizes 8 to 128; at 512 it helps.",
        lead=("The difference is 12 % of the margin.",),
        sections=(
            Section("Verdicts", ("By batch size.",), (Figure("verdicts", chart()), table)),
            Section("Learning rates", (), (grid,)),
            Section("Again", (), (Code(command), facts, Listing(("One point.", "Another.")))),
            Section("More", ("Not needed at first.",), (Figure("folded", chart()),), folded=True),
        ),
        notice="Not finished.",
    )
