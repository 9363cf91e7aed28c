"""The pages of variance and of stability: what they say follows from the result; how they look in a browser."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from page_measures import LESS_CONTRAST_THAN, ODD_TEXTS, OUTSIDE_THEIR_PLACE, states
from page_samples import OpenPage

from lightball.report.page import Page
from lightball.report.plain import plain_text
from lightball.report.theory.stability import stability_page
from lightball.report.theory.variance import variance_page
from lightball.theory.stability import Frontier, Stability, StabilitySettings, largest_stable_lr
from lightball.theory.variance import OfMomentum, Ratio, Variance, VarianceSettings, displacement_ratio, update_ratio

STEPS = (1, 10, 100, 1000, 10_000)


def ratios(exact: list[float], off: float) -> tuple[Ratio, ...]:
    return tuple(Ratio(value, value + off, value + off - 0.01, value + off + 0.01) for value in exact)


def variance(*momenta: float, off: float = 0.002) -> Variance:
    results = (
        OfMomentum(
            beta,
            ratios(update_ratio(beta, STEPS).tolist(), off),
            ratios(displacement_ratio(beta, STEPS).tolist(), off),
        )
        for beta in momenta
    )
    return Variance(VarianceSettings(momenta), STEPS, tuple(results))


def stability(*momenta: float) -> Stability:
    limits = [(beta, largest_stable_lr(beta)) for beta in momenta]
    return Stability(
        StabilitySettings(momenta),
        tuple(Frontier(beta, limit, limit, 1.001 * limit, 0.999 * limit) for beta, limit in limits),
    )


PAGES = {
    "variance": variance_page(variance(0.5, 0.9, 0.99)),
    "stability": stability_page(stability(0.0, 0.5, 0.9, 0.95)),
}


def test_the_answer_sets_one_update_beside_many() -> None:
    page = PAGES["variance"]
    assert page.answer.startswith("One update of SGDM at β = 0.9 has 5.26 % of the variance of SGD's, but its displace")
    assert page.answer.endswith("over 10,000 steps has 99.9 %.")
    # where nothing speaks against the folklore, there is no "but"
    one = variance(0.99)
    early = replace(
        one, steps=STEPS[:1], results=tuple(replace(r, displacement=r.displacement[:1]) for r in one.results)
    )
    early = replace(early, results=tuple(replace(r, update=r.update[:1]) for r in early.results))
    assert ", and its displacement over 1 steps" in variance_page(early).answer


def test_the_page_counts_what_agrees() -> None:
    assert "agrees: 30 of 30 of its 95 % intervals" in plain_text(PAGES["variance"])
    assert "does not agree: 0 of 20 of its 95 % intervals" in plain_text(variance_page(variance(0.5, 0.9, off=0.02)))


def test_the_table_says_when_a_path_has_nearly_all_of_the_variance() -> None:
    row = next(line for line in plain_text(PAGES["variance"]).splitlines() if line.startswith("  0.9 "))
    k = int(row.split()[-1])
    assert displacement_ratio(0.9, [k - 1])[0] < 0.95 <= displacement_ratio(0.9, [k])[0]


def test_the_frontier_is_compared_with_sgd() -> None:
    page = PAGES["stability"]
    assert page.answer == (
        "At β = 0.9 SGDM is stable up to an effective learning rate of 37.962 to 38.038 in simulation, 38 in theory: "
        "19 times SGD's."
    )
    assert "in 4 of 4 cases" in plain_text(page)


@pytest.mark.parametrize("name", PAGES)
def test_text_fits_a_terminal(name: str) -> None:
    assert max(map(len, plain_text(PAGES[name]).splitlines())) <= 80


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1200, "dark")])
def test_pages_draw_and_fit(visit: OpenPage, name: str, width: int, scheme: Literal["light", "dark"]) -> None:
    page: Page = PAGES[name]
    seen = visit(page, width=width, scheme=scheme)
    assert states(seen) == ["true"]
    assert seen.tab.evaluate("document.scrollingElement.scrollWidth") <= width
    assert seen.tab.evaluate(ODD_TEXTS) == []
    assert seen.tab.evaluate(OUTSIDE_THEIR_PLACE) == []
    assert seen.tab.evaluate(LESS_CONTRAST_THAN, 4.5)["found"] == []
    assert seen.complaints == []
