"""Pages of weak errors and of schedules: what they say, and what a browser draws of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from page_measures import LESS_CONTRAST_THAN, OUTSIDE_THEIR_PLACE
from page_samples import OpenPage

from lightball.report.page import Page, Table, figures_of
from lightball.report.plain import plain_text
from lightball.report.theory.schedule import schedule_page
from lightball.report.theory.weak import weak_page
from lightball.stats import Slope
from lightball.theory.schedule import ScheduleSettings, run_schedule
from lightball.theory.weak import Weak, WeakSettings, run_weak

ETAS = (2.0**-4, 2.0**-5, 2.0**-6)


@pytest.fixture(scope="module")
def exact() -> Weak:
    return run_weak(WeakSettings((0.0, 0.5, 1.0), etas=ETAS, trajectories=200))


@pytest.fixture(scope="module")
def pages(exact: Weak) -> dict[str, Page]:
    schedules = run_schedule(ScheduleSettings(etas=(2.0**-6, 2.0**-7, 2.0**-8)))
    return {"weak": weak_page(exact), "schedule": schedule_page(schedules)}


def table_of(page: Page) -> Table:
    return next(part for section in page.sections for part in section.parts if isinstance(part, Table))


@pytest.mark.parametrize("name", ["weak", "schedule"])
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (400, "light")])
def test_pages_in_a_browser(name: str, width: int, scheme: str, pages: dict[str, Page], visit: OpenPage) -> None:
    seen = visit(pages[name], width=width, scheme=scheme)
    assert seen.complaints == []
    states = seen.tab.eval_on_selector_all("figure[data-name]", "all => all.map((f) => f.dataset.rendered)")
    assert len(states) == len(figures_of(pages[name]))
    assert set(states) == {"true"}
    assert seen.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen.tab.evaluate(OUTSIDE_THEIR_PLACE) == []
    assert seen.tab.evaluate(LESS_CONTRAST_THAN, 4.5)["found"] == []


def test_the_answer_names_each_order_and_what_is_proven(exact: Weak) -> None:
    page = weak_page(exact)
    assert page.answer.startswith("As η falls, SGD with momentum approaches SGD at the orders ")
    for result in exact.results:
        order = exact.order(result.error)
        assert order is not None
        assert f"{order.order:.2f}".removeprefix("-") in page.answer
    assert "for α = 0, 0.5: not below the proven (1 − α)/2; not for α ≥ 1: order " in page.answer
    assert any("9 of 9 of its 95 % intervals hold the exact error" in said for said in page.lead)
    text = plain_text(page)
    assert "order (to its limit)" in text
    assert [row[0] for row in table_of(page).rows] == ["0", "0.5", "1"]


def test_an_order_below_the_theorem_would_be_said() -> None:
    """Negative control: errors of order 0 at α = 0."""
    found = run_weak(WeakSettings((0.0, 1.0), etas=ETAS, trajectories=0))
    zero, one = found.results
    flat = replace(found, results=(replace(zero, error=one.error), one))
    assert ", 1 of them below the proven (1 − α)/2; not for α ≥ 1" in weak_page(flat).answer


def with_order(found: Weak, order: float, ci95: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> str:
    """The answer where all orders are this one."""
    monkeypatch.setattr(Weak, "order", lambda self, of: Slope(order, ci95))
    return weak_page(found).answer


def test_an_interval_that_holds_the_proven_order_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three states: a wide interval must not pass for an order that is reached."""
    found = run_weak(WeakSettings((0.0,), "log-cosh", etas=ETAS, trajectories=100))
    assert with_order(found, 0.8, (0.6, 1.0), monkeypatch).endswith(": not below the proven (1 − α)/2.")
    assert with_order(found, 0.3, (0.2, 0.4), monkeypatch).endswith(", 1 of them below the proven (1 − α)/2.")
    for order, ci95 in ((0.3, (-3.0, 3.0)), (0.9, (-1.0, 2.8))):
        said = with_order(found, order, ci95, monkeypatch)
        assert said.endswith(", they not decided against the proven (1 − α)/2: intervals too wide.")


def test_an_exact_order_must_reach_the_proven_one_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run_weak(WeakSettings((0.0,), etas=ETAS, trajectories=0))
    assert "not below the proven" in with_order(found, 0.5, (0.5, 1.1), monkeypatch)
    assert "rates still too large" in with_order(found, 0.4, (0.4, 1.1), monkeypatch)
    assert "1 of them below the proven" in with_order(found, 0.4, (0.4, 0.45), monkeypatch)


def test_alphas_that_agree_in_six_digits_have_names_of_their_own() -> None:
    page = weak_page(run_weak(WeakSettings((0.5, 0.5 + 1e-9), etas=ETAS, trajectories=0)))
    assert [row[0] for row in table_of(page).rows] == ["0.5", "0.500000001"]


def test_rates_that_diverge_are_told_and_drawn_without() -> None:
    found = run_weak(WeakSettings((0.0, 0.5), etas=(2.5, 0.5, 0.25, 0.125), trajectories=0, horizon=3000.0))
    page = weak_page(found)
    assert any("2 of the errors are infinite" in said for said in page.lead)
    plain_text(page)
    assert all(figure.chart.to_dict() for figure in figures_of(page))


def test_simulated_errors_say_so_and_hollow_points_are_explained() -> None:
    found = run_weak(WeakSettings((0.0,), "log-cosh", "student-t", (2.0**-4, 2.0**-6, 2.0**-8), trajectories=300))
    page = weak_page(found)
    assert "log cosh x, 300 trajectories" in page.title
    captions = {figure.name: figure.caption for figure in figures_of(page)}
    assert "Hollow points are limited by noise, and no fit uses them." in captions["weak-errors"]
    # one point makes no order
    assert (
        page.answer == "No order could be measured: too few errors are above their noise: simulate more trajectories."
    )


@pytest.mark.parametrize(
    ("momentum", "says"),
    [
        ("restarts:20", "times closer to SGD with momentum than SGD at"),
        ("linear:0.5,0.9", "times as far from SGD with momentum as SGD at"),
        ("constant:0.9", "is as far from SGD with momentum as SGD at"),
    ],
)
def test_the_schedule_page_says_which_match_is_closer(momentum: str, says: str) -> None:
    page = schedule_page(run_schedule(ScheduleSettings("constant", momentum, (2.0**-7, 2.0**-8))))
    assert says in page.answer
    slow = any("Where rate and momentum change slowly" in said for said in page.lead)
    assert slow == (momentum != "restarts:20")
    assert [row[0] for row in table_of(page).rows] == ["averaged", "γ/(1 − β)", "nothing changes"]


def test_the_schedule_page_counts_what_agrees_and_draws_it() -> None:
    result = run_schedule(ScheduleSettings(etas=(2.0**-6, 2.0**-7), trajectories=400))
    page = schedule_page(result)
    assert any(
        "from η = 2⁻⁶ to 2⁻⁷, agrees: 8 of 8 of its 95 % intervals hold the exact error." in s for s in page.lead
    )
    assert "Points are simulated, with 95 % intervals." in figures_of(page)[0].caption
    wrong = {name: replace(one, errors=tuple(9 * e for e in one.errors)) for name, one in result.naive.errors.items()}
    assert any(
        "does not agree" in said
        for said in schedule_page(replace(result, naive=replace(result.naive, errors=wrong))).lead
    )
    none = schedule_page(run_schedule(ScheduleSettings(etas=(2.0**-6, 2.0**-7), trajectories=0)))
    assert not any("simulation" in said for said in none.lead)
    assert "Points" not in figures_of(none)[0].caption


def test_without_momentum_there_is_nothing_to_match() -> None:
    page = schedule_page(run_schedule(ScheduleSettings(momentum="constant:0", etas=(2.0**-6, 2.0**-7))))
    assert page.answer == (
        "There is nothing to match: SGD with momentum, SGD with the averaged schedule and SGD at the rate γ/(1 − β) "
        "are the same algorithm here, and all errors are 0."
    )
    assert not any("of one order" in said for said in page.lead)
    assert all(figure.chart.to_dict() for figure in figures_of(page))


@pytest.mark.parametrize(
    ("without_error", "same", "other"),
    [
        ("averaged", "with the averaged schedule", "at the rate γ/(1 − β)"),
        ("naive", "at the rate γ/(1 − β)", "with the averaged schedule"),
    ],
)
def test_a_match_without_error_has_an_answer(without_error: str, same: str, other: str) -> None:
    result = run_schedule(ScheduleSettings(etas=(2.0**-6, 2.0**-7), trajectories=0))
    match = getattr(result, without_error)
    zero = {name: replace(one, errors=(0.0, 0.0)) for name, one in match.errors.items()}
    page = schedule_page(replace(result, **{without_error: replace(match, errors=zero)}))
    assert page.answer == f"At η = 2⁻⁷ SGD {same} is the same as SGD with momentum, and SGD {other} is not."


def test_beyond_one_the_page_says_that_nothing_is_proven(exact: Weak) -> None:
    page = weak_page(run_weak(WeakSettings((1.5,), etas=ETAS, trajectories=0)))
    assert "proven" not in page.answer
    assert "Beyond, momentum oscillates and nothing is proven." in page.lead[0]
    assert "Beyond" not in weak_page(exact).lead[0]
    assert table_of(page).rows[0][-1] == "–"


def test_a_schedule_that_diverges_has_an_answer() -> None:
    page = schedule_page(run_schedule(ScheduleSettings("constant", "constant:0.5", (3.0, 2.5), horizon=3000.0)))
    assert page.answer.startswith("One of the runs diverges")
    plain_text(page)


def test_where_only_memory_lasts_no_approach_is_claimed() -> None:
    page = weak_page(run_weak(WeakSettings((1.0, 1.5), etas=ETAS, trajectories=0)))
    assert page.answer.startswith("SGD with momentum does not approach SGD as η falls: orders ")
