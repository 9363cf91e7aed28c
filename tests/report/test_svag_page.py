"""The page of SVAG: it says what was measured, and reads well in a browser."""

from __future__ import annotations

import math
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
        "0.225 at ℓ = 8, and as ℓ^−1.31 between ℓ = 32 and 64."
    )
    far = run_svag(SvagSettings(trajectories=0))
    assert svag_page(far).answer.endswith("to 0.0278 at ℓ = 64, and in proportion to 1/ℓ between ℓ = 256 and 512.")
    apart = svag_page(run_svag(replace(SETTINGS, memory="time", trajectories=0, ells=(1, 64))))
    assert apart.answer == (
        "With less curvature in a step SGD and SGDM stay apart: the gap of their losses goes from 1.59 at ℓ = 1 to "
        "0.478 at ℓ = 64."
    )
    assert "SGDM then tends to the underdamped SDE" in apart.lead[0]


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


def test_without_noise_a_gap_that_rises_is_said_to_rise_and_the_simulation_agrees() -> None:
    page = svag_page(run_svag(SvagSettings(variance=0.0, ells=(1, 2), trajectories=100)))
    assert page.answer == (
        "With less curvature in a step SGD and SGDM come together where ℓ is large: the gap of their losses rises from "
        "0.249 at ℓ = 1 to 0.32 at ℓ = 2, and falls as ℓ^−1.65 between ℓ = 8 and 16."
    )
    assert page.lead[-1].endswith("agrees: 4 of 4 of its 95 % intervals hold the exact gap.")
    table = page.sections[0].parts[0]
    assert isinstance(table, Table)
    assert table.rows[0][2] == "0.248636 ± 0"


def test_simulated_gaps_that_diverge_alone_do_not_agree(result: SvagResult) -> None:
    found = result.final.simulated
    assert found is not None
    lost = replace(found, errors=(math.inf, *found.errors[1:]), standard_errors=(math.inf, *found.standard_errors[1:]))
    said = svag_page(replace(result, final=replace(result.final, simulated=lost))).lead[-1]
    assert "7 of 8 of its 95 % intervals" in said


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1400, "dark")])
def test_it_reads_well(page: Page, visit: OpenPage, width: int, scheme: Literal["light", "dark"]) -> None:
    seen = visit(page, width=width, scheme=scheme)
    assert states(seen) == ["true"] * len(figures_of(page))
    assert seen.tab.evaluate("document.scrollingElement.scrollWidth") <= width
    assert seen.tab.evaluate(OUTSIDE_THEIR_PLACE) == []
    assert seen.tab.evaluate(LESS_CONTRAST_THAN, 4.5)["found"] == []
    assert seen.complaints == []
