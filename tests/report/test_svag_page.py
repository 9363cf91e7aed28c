"""The page of SVAG: it says what was measured, and reads well in a browser."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from page_measures import LESS_CONTRAST_THAN, OUTSIDE_THEIR_PLACE, states
from page_samples import OpenPage

from lightball.report.page import Page, Table, figures_of
from lightball.report.theory.svag import svag_page
from lightball.theory.sde import SdeSettings, run_sde
from lightball.theory.svag import SvagResult, SvagSettings, run_svag

SETTINGS = SvagSettings(ells=(1, 2, 4, 8), trajectories=400)


@pytest.fixture(scope="module")
def result() -> SvagResult:
    return run_svag(SETTINGS)


@pytest.fixture(scope="module")
def page(result: SvagResult) -> Page:
    return svag_page(result, run_sde(SdeSettings(etas=(1 / 8, 1 / 16), trajectories=100)))


def test_the_answer_is_what_was_measured(result: SvagResult) -> None:
    assert svag_page(result).answer == (
        "With less curvature in a step SGD and SGDM come together: the gap of their losses falls from 1.59 at ℓ = 1 to "
        "0.225 at ℓ = 8, as ℓ^−1.31 where ℓ is large."
    )
    far = run_svag(SvagSettings(trajectories=0))
    assert svag_page(far).answer.endswith("to 0.0278 at ℓ = 64, in proportion to 1/ℓ where ℓ is large.")
    apart = svag_page(run_svag(replace(SETTINGS, memory="time", trajectories=0, ells=(1, 64))))
    assert apart.answer == (
        "With less curvature in a step SGD and SGDM stay apart: the gap of their losses goes from 1.59 at ℓ = 1 to "
        "0.478 at ℓ = 64."
    )
    assert "SGDM then tends to the underdamped SDE" in apart.lead[1]


def test_divergence_is_said() -> None:
    page = svag_page(run_svag(SvagSettings(lr=30, horizon=6_000, ells=(1, 2), trajectories=40)))
    assert page.answer == ("SGD diverges up to ℓ = 2 at so large a learning rate: choose a smaller one, or larger ℓ.")
    assert page.lead[1].startswith("At ℓ = 1, 2, 4, 8 the rate η/ℓ times the largest curvature is 2 or more")
    assert len(page.lead) == 2  # there is nothing to agree with
    table = page.sections[0].parts[0]
    assert isinstance(table, Table)
    assert table.rows[0][1:] == ("∞", "diverges", "∞", "diverges")


def test_agreement_is_counted(result: SvagResult) -> None:
    said = svag_page(result).lead[-1]
    assert "A simulation of 400 coupled trajectories" in said
    assert said.endswith("8 of 8 of its 95 % intervals hold the exact gap.")
    doubled = replace(result.final.exact, errors=tuple(9 * error for error in result.final.exact.errors))
    wrong = svag_page(replace(result, final=replace(result.final, exact=doubled))).lead[-1]
    assert " of 8 of its 95 % intervals" in wrong
    assert "does not agree" in wrong


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1400, "dark")])
def test_it_reads_well(page: Page, visit: OpenPage, width: int, scheme: Literal["light", "dark"]) -> None:
    seen = visit(page, width=width, scheme=scheme)
    assert states(seen) == ["true"] * len(figures_of(page))
    assert seen.tab.evaluate("document.scrollingElement.scrollWidth") <= width
    assert seen.tab.evaluate(OUTSIDE_THEIR_PLACE) == []
    assert seen.tab.evaluate(LESS_CONTRAST_THAN, 4.5)["found"] == []
    assert seen.complaints == []
