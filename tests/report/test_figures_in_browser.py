"""Figures as a browser draws them on a page: nothing cut, nothing on top of another, and pairs that light up."""

from __future__ import annotations

import pytest
from figure_samples import curves, difference, differences, pairs, rate, rates, speeds
from page_measures import ODD_TEXTS
from page_samples import OpenPage
from playwright.sync_api import expect

from lightball.report.figures import (
    accuracy_by_rate,
    epochs_to_same_loss,
    loss_by_rate,
    paired_differences,
    training_curves,
    value_by_batch_size,
)
from lightball.report.page import Figure, Page, Section

SIZES, MOMENTA = [2**k for k in range(3, 15)], (0.5, 0.9, 0.99)
LINES = '[...document.querySelectorAll(".singles_marks path")]'
POINT_ON_A_LINE = f"""() => {{
  const path = {LINES}.at(1);
  const there = path.getPointAtLength(path.getTotalLength() * 0.5).matrixTransform(path.getScreenCTM());
  return [there.x, there.y];
}}"""


def page_of(*charts) -> Page:
    figures = tuple(Figure(f"figure-{number}", chart) for number, chart in enumerate(charts))
    return Page(title="Figures", answer="Figures", lead=(), sections=(Section("All", (), figures),))


def crowded() -> Page:
    """Many rates, batch sizes and momenta, and values that reach far."""
    betas = (0.0, *MOMENTA)
    by_rate = rates([rate(beta, 0.05 * 2**k, 1e-9 * 8**k, failed=k // 9) for beta in betas for k in range(12)])
    reach = [("no value", 0.001), ("undecided", 5.0), ("helps", 200.0), ("hurts", -3000.0)]
    far = differences(
        [
            difference(size, reach[(i + j) % 4][1], 0.1, momentum=beta, verdict=reach[(i + j) % 4][0])
            for i, size in enumerate(SIZES)
            for j, beta in enumerate(MOMENTA)
        ]
    )
    return page_of(
        loss_by_rate(by_rate),
        accuracy_by_rate(by_rate),
        paired_differences(far, "train_loss"),
        paired_differences(differences([difference(32, 0.001, 0.002)]), "train_loss"),
        value_by_batch_size(far, "train_loss"),
        epochs_to_same_loss(speeds(MOMENTA, SIZES)),
        training_curves(curves(200, momenta=betas), pairs(0)),
    )


@pytest.mark.parametrize("width", [392, 672])
def test_no_text_is_cut_or_covered_and_nothing_complains(visit: OpenPage, width: int) -> None:
    seen = visit(crowded(), width=width, scheme="dark")
    assert seen.tab.evaluate(ODD_TEXTS) == []
    assert seen.complaints == []


def test_ticking_the_box_shows_pairs_and_pointing_at_one_shows_both_of_it(visit: OpenPage) -> None:
    tab = visit(page_of(training_curves(curves(2), different_pairs())), width=640).tab
    lines = tab.locator(".singles_marks path")
    expect(lines).to_have_count(0)
    tab.locator(".vega-bindings input").check()
    expect(lines).to_have_count(6)
    tab.mouse.move(*tab.evaluate(POINT_ON_A_LINE))
    for line, width in enumerate("131131"):
        expect(lines.nth(line)).to_have_attribute("stroke-width", width)
    expect(lines.nth(0)).to_have_attribute("stroke-opacity", "0.12")  # the others stand back
    tab.mouse.move(1, 1)
    for line in range(6):
        expect(lines.nth(line)).to_have_attribute("stroke-width", "1")
    tab.locator(".vega-bindings input").uncheck()
    expect(lines).to_have_count(0)


def different_pairs():
    """Three pairs whose lines lie apart from each other and from the means."""
    rows = pairs(3).to_pylist()
    for i, row in enumerate(rows):
        row["loss"] = [0.9 * 0.5**i, 0.5 * 0.5**i, 0.3 * 0.5**i]
    return pairs(0).from_pylist(rows, pairs(0).schema)
