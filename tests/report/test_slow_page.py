"""The page of the long horizon, in words and in a browser."""

from __future__ import annotations

from dataclasses import replace

import pytest
from page_measures import LESS_CONTRAST_THAN, OUTSIDE_THEIR_PLACE, chart_widths, states
from page_samples import OpenPage

from lightball.report.page import figures_of
from lightball.report.plain import plain_text
from lightball.report.theory.slow import slow_page
from lightball.theory.slow import Slow, SlowSettings, run_slow


@pytest.fixture(scope="module")
def result() -> Slow:
    return run_slow(SlowSettings("hyperbola", etas=(0.2, 0.1, 0.05), slow_time=1.0, trajectories=500))


def test_it_answers_first(result: Slow) -> None:
    page = slow_page(result)
    assert page.answer.startswith("SGD and SGDM drift alike, as the slow SDE says: as η → 0, x² − y² at slow time 1")
    assert page.answer.endswith("; the SDE gives 2.9205.")
    assert [figure.name for figure in figures_of(page)] == [
        "slow-limit",
        "slow-way-1",
        "slow-way-3",
        "slow-more-1",
        "slow-more-2",
    ]
    text = plain_text(page)
    assert max(map(len, text.splitlines())) <= 80
    assert "→ 0" in text


def test_it_says_what_does_not_agree(result: Slow) -> None:
    elsewhere = replace(result, path=replace(result.path, mean=result.path.mean + 5))
    assert slow_page(elsewhere).answer.startswith(
        "SGD and SGDM do not extrapolate to the slow SDE from these rates: x² − y²"
    )


def test_it_says_what_diverged() -> None:
    page = slow_page(run_slow(SlowSettings("hyperbola", etas=(2.0, 1.5), slow_time=36.0, trajectories=20)))
    assert page.answer == (
        "Whether SGD and SGDM drift alike cannot be told from these runs: trajectories of SGD diverge at all rates but "
        "one or none; lower the learning rates."
    )
    assert any("20 of SGD at η = 2, " in line for line in page.lead)
    assert "diverged" in plain_text(page)


def test_it_says_what_cannot_be_told() -> None:
    few = run_slow(SlowSettings("hyperbola", etas=(0.2, 0.1, 0.05), slow_time=0.5, trajectories=6))
    page = slow_page(few)
    assert page.answer.startswith("Whether SGD and SGDM drift alike cannot be told from these runs: x² − y² at slow")
    assert page.answer.endswith("the slow SDE moves it, to 3.3094; take more trajectories, or a longer slow time.")


def test_survivors_are_no_agreement() -> None:
    page = slow_page(run_slow(SlowSettings("hyperbola", etas=(0.6, 0.5, 0.4), trajectories=400)))
    assert page.answer.startswith("Whether SGD and SGDM drift alike cannot be told from these runs")
    assert page.answer.endswith("lower the learning rates, of which some let trajectories diverge.")
    assert "e+" not in plain_text(page)
    assert any(line.startswith("Trajectories diverged, ") and "of SGD at η = 0.603" in line for line in page.lead)


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (1400, "dark"), (400, "light")])
def test_in_a_browser(result: Slow, visit: OpenPage, width: int, scheme: str) -> None:
    opened = visit(slow_page(result), width=width, scheme=scheme)
    assert states(opened) == ["true"] * 5
    assert opened.complaints == []
    assert opened.requests[1:] == []
    assert all(abs(drawn - place) <= 1 for drawn, place in chart_widths(opened))
    assert opened.tab.evaluate(OUTSIDE_THEIR_PLACE) == []
    assert opened.tab.evaluate(LESS_CONTRAST_THAN, 4.5)["found"] == []
