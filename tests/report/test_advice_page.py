"""The page of an advice and its card: what they say, and what a browser draws of them."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from figure_samples import rows_of
from made_advice import a_probe, an_advice, value
from page_measures import LESS_CONTRAST_THAN, ODD_TEXTS, OUTSIDE_THEIR_PLACE, chart_widths, states
from page_samples import OpenPage

from lightball.forecast.advice import Advice
from lightball.probe import NoiseAhead, PathPoint, SpectralMeasure
from lightball.probe.record import Buffer
from lightball.report.advice.card import card
from lightball.report.advice.charts import forecasts, map_of
from lightball.report.advice.page import advice_page
from lightball.report.advice.words import difference, number, sentence, size
from lightball.report.page import Badge, Figure, Listing, Page, Section, Table, figures_of
from lightball.report.plain import plain_text
from lightball.stats import Decision, Interval, Verdict
from lightball.studies.verification import EqualRatesCheck, TunedCheck, Verification


def section(page: Page, title: str) -> Section:
    (found,) = (each for each in page.sections if each.title == title)
    return found


def with_value(advice: Advice, **changes: object) -> Advice:
    """The advice whose value of momentum at the main phase is another."""
    at = list(advice.by_phase)
    at[advice.main] = replace(at[advice.main], value=value(**changes))
    return replace(advice, by_phase=tuple(at))


def test_the_card_answers_first_in_about_a_dozen_lines() -> None:
    lines = plain_text(card("digits", an_advice())).splitlines()
    assert lines[0] == "Momentum can be dropped at this setting: SGD at lr 0.2 does the same."
    assert len(lines) <= 14
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for said in (
        "regime noise-dominated: noise undoes the descent first",
        "momentum here no value, +0.0021 (+0.0015 to +0.0027) in loss after 100 steps; margin 0.023",
        "best tuned undecided, SGD 0.024 at η = 0.8, SGDM 0.004 at η = 3.2 after 24 epochs",
        "critical batch momentum pays from batch size 67 (48 to 96)",
        "without momentum SGD at lr 0.2 memory saved 38.4 kB",
        "would change it A batch size of 67 or more.",
    ):
        assert said in text


def test_what_is_not_valid_says_why_on_card_and_page() -> None:
    advice = with_value(an_advice(), valid=False)
    reason = "close to stability: η λ_max is 1.4 on the way"
    assert f"momentum here not known over 100 steps: {reason}" in " ".join(plain_text(card("digits", advice)).split())
    page = advice_page("digits", advice)
    assert "+0.0021" not in plain_text(card("digits", advice))
    assert section(page, "Forecast").text == (f"This forecast does not stand by its number: {reason}.",)
    assert section(advice_page("digits", an_advice()), "Forecast").text == ()
    (phases,) = section(page, "By phase").parts
    assert isinstance(phases, Table)
    assert [(row[-3], row[-1]) for row in phases.rows[:2]] == [("+0.0021 (+0.0015 to +0.0027)", "yes"), ("–", "no")]


def test_a_matched_rate_that_sgd_does_not_stand_is_not_given_without_a_word() -> None:
    given = an_advice(matched_lr=1.0)
    said = "SGD at lr 1, which SGD does not stand here: at most 2/λ_max = 0.5"
    assert f"without momentum {said}" in " ".join(plain_text(card("digits", given)).split())
    assert section(advice_page("digits", given), "Without momentum").text[0].startswith(f"{said}. Keep the schedule")
    assert given.to_json()["matched_lr"] == 1.0
    tuned_stands = replace(given, matched_lr=0.7)  # beyond 2/λ_max, but tuned SGD takes 0.8
    assert "does not stand" not in plain_text(card("digits", tuned_stands))


def test_figures_begin_with_the_momentum_that_the_advice_began_with() -> None:
    h = np.array([[0.5, 1.0]])
    moving = Buffer(SpectralMeasure(h, np.array([[0.5, 0.5]])), SpectralMeasure(h, np.array([[0.05, 0.05]])))
    given = an_advice()
    at = list(given.by_phase)
    at[1] = replace(at[1], phase=replace(at[1].phase, probe=a_probe(buffer=moving)))
    cold = replace(given, by_phase=tuple(at))
    warm = replace(cold, warm=True)
    assert figure_rows(forecasts(cold)) == figure_rows(forecasts(given)) != figure_rows(forecasts(warm))
    assert rows_of(map_of(cold).chart, "places") == rows_of(map_of(given).chart, "places")
    assert rows_of(map_of(cold).chart, "places") != rows_of(map_of(warm).chart, "places")


def figure_rows(figure: Figure) -> str:
    return json.dumps(figure.chart.to_dict()["datasets"], sort_keys=True)


def test_missing_answers_are_explained() -> None:
    given = an_advice()
    advice = replace(
        given,
        best_tuned=replace(
            given.best_tuned, sgd_loss=None, sgdm_loss=None, valid=False, reason="the run has one phase"
        ),
        critical_batch_size=replace(given.critical_batch_size, value=None, low=None, high=None, reason="beyond 1,078"),
        more_batches=96,
    )
    text = " ".join(plain_text(card("digits", advice)).split())
    assert "best tuned undecided: the run has one phase" in text
    assert "critical batch beyond 1,078" in text
    assert "not enough data 96 more batches are needed" in text


def test_the_page_shows_each_phase_with_its_terms_and_verdict() -> None:
    page = advice_page("digits", with_value(an_advice(), difference=0.05))
    assert page.title == "digits: momentum 0.9 at torch lr 0.02, batch size 64"
    (terms,) = section(page, "One step").parts
    (phases,) = section(page, "By phase").parts
    assert isinstance(terms, Table)
    assert isinstance(phases, Table)
    assert terms.rows[0] == ("start", "−0.05", "0.0015", "0.0064", "noise-dominated")
    assert phases.rows[1] == (
        "middle",
        "0.8",
        "0.002",
        "4",
        "2,000",
        "4",
        "+0.05 (+0.0494 to +0.0506)",
        Badge("helps", "helps"),
        "yes",
    )
    assert [figure.name for figure in figures_of(page)] == [
        "value-map",
        "forecast",
        "spectra-1",
        "spectra-2",
        "spectra-3",
    ]
    assert "Framed: your setting." in figures_of(page)[0].caption
    assert page.sections[-1].title == "Make it again"


def test_notes_of_the_probes_come_once_with_the_phases_that_they_are_about() -> None:
    given = an_advice()
    at = list(given.by_phase)
    at[2] = replace(at[2], phase=replace(at[2].phase, probe=a_probe(notes=("few batches", at[0].phase.probe.notes[0]))))
    (listing,) = section(advice_page("digits", replace(given, by_phase=tuple(at))), "What it rests on").parts
    assert isinstance(listing, Listing)
    assert listing.items == (
        "Thresholds of the regime: share of noise 0.75.",
        "Curvature is that of the whole training set.",
        "End: Few batches.",
    )


def a_check(agrees: bool | None) -> Verification:
    """Runs beside the forecast of the sample, and beside its best-tuned gap."""
    measured = Interval(0.0024, 0.0017, 0.0031, 0.95, 48)
    decision = Decision(Verdict.HELPS, Interval(0.03, 0.027, 0.033, 0.97, 16), 0.023, 1, True, None)
    best = an_advice().best_tuned
    return Verification(
        EqualRatesCheck(value(), measured, Verdict.NO_VALUE, 0, 0, agrees, "At η = 0.2 they agree."),
        TunedCheck(best, decision, 0.8, 3.2, None, "Best tuned: one is undecided."),
    )


@pytest.mark.parametrize(("agrees", "word"), [(True, "yes"), (False, "no"), (None, "not decided")])
def test_forecast_and_measurement_stand_side_by_side(agrees: bool | None, word: str) -> None:
    check = a_check(agrees)
    said = section(advice_page("digits", an_advice(), check), "Forecast and measurement")
    (table,) = said.parts
    assert isinstance(table, Table)
    here, tuned = table.rows
    assert here[1:] == (
        Badge("no value", "no value"),
        "+0.0021 (+0.0015 to +0.0027)",
        Badge("no value", "no value"),
        "+0.0024 (+0.0017 to +0.0031)",
        word,
    )
    assert tuned[3:] == (Badge("helps", "helps"), "+0.03 (+0.027 to +0.033)", "not decided")
    assert said.text == check.sentences
    assert plain_text(card("digits", an_advice(), check)).endswith("\n\n".join(check.sentences))


def test_what_was_not_measured_has_a_dash() -> None:
    check = a_check(None)
    check = replace(
        check,
        equal_rates=replace(check.equal_rates, forecast=value(valid=False), measured=None),
        tuned=replace(check.tuned, measured=None, predicted=replace(check.tuned.predicted, valid=False)),
    )
    (table,) = section(advice_page("digits", an_advice(), check), "Forecast and measurement").parts
    assert isinstance(table, Table)
    assert [row[1:3] for row in table.rows] == [("not valid", "–")] * 2
    assert [row[4] for row in table.rows] == ["–", "–"]


def test_one_phase_is_enough() -> None:
    given = an_advice()
    page = advice_page("mine", replace(given, by_phase=given.by_phase[1:2], main=0))
    assert [figure.name for figure in figures_of(page)] == ["value-map", "forecast", "spectra-1"]
    plain_text(page)


def test_the_map_ends_where_the_path_does() -> None:
    """At 100 steps a path to the flow time 30 carries η = 0.2 and not 0.4."""
    given = an_advice()
    at = list(given.by_phase)
    noise = NoiseAhead(a_probe().trace_noise, a_probe().noise, None, None)
    names = {each.name for each in fields(PathPoint)}
    point = dict.fromkeys(names, 0.0) | {"loss": 0.8, "sharpness": 4.0, "noise": noise}
    path = tuple(PathPoint(**(point | {"time": time})) for time in (0.0, 30.0))
    at[1] = replace(at[1], phase=replace(at[1].phase, probe=a_probe(path=path)))
    rates = [row["rate"] for row in rows_of(map_of(replace(given, by_phase=tuple(at))).chart, "places")]
    assert max(rates) == pytest.approx(0.2)
    without = [row["rate"] for row in rows_of(map_of(given).chart, "places")]
    assert max(without) == pytest.approx(0.8)
    assert min(rates) == min(without)


def test_numbers_in_words() -> None:
    assert [number(x) for x in (None, 0.0, 0.02345, 1234567.0, 2e-5, float("inf"), float("nan"), -3.14159)] == [
        "–",
        "0",
        "0.0234",
        "1.2e+06",
        "2.0e−05",
        "∞",
        "–",
        "−3.14",
    ]
    assert difference(0.1, None, None) == "+0.1 (interval not known)"
    assert difference(float("nan"), 0.0, 1.0) == "–"
    assert [size(n) for n in (0, 999, 38440, 4.2e9)] == ["0 B", "999 B", "38.4 kB", "4.2 GB"]
    assert [sentence(text) for text in ("", "η is small", "Done.")] == ["", "η is small.", "Done."]


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (400, "light"), (400, "dark")])
def test_in_a_browser(visit: OpenPage, width: int, scheme: str) -> None:
    opened = visit(advice_page("digits", an_advice()), width=width, scheme=scheme)
    assert states(opened) == ["true"] * 5
    assert opened.complaints == []
    assert opened.requests[1:] == []
    assert all(abs(drawn - place) <= 1 for drawn, place in chart_widths(opened))
    assert opened.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.tab.evaluate(OUTSIDE_THEIR_PLACE) == []
    assert opened.tab.evaluate(ODD_TEXTS) == []
    assert opened.tab.evaluate(LESS_CONTRAST_THAN, 4.5)["found"] == []
