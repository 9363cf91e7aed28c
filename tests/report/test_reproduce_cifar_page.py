"""The page of the experiment on CIFAR-10: it says what was found, and reads well in a browser."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from page_measures import LESS_CONTRAST_THAN, OUTSIDE_THEIR_PLACE, states
from page_samples import OpenPage

from lightball.report.page import Badge, Table, figures_of
from lightball.report.plain import plain_text
from lightball.report.reproduce.cifar import cifar_page
from lightball.reproduce.cifar import CifarResult, CifarSettings
from lightball.reproduce.cifar.found import MeanCurve, falls
from lightball.reproduce.pairs import Pairs, pairs_of
from lightball.studies.runs import Outcome, Run
from lightball.studies.study import BatchState
from lightball.studies.tuning import Choice, RateScore

SETTINGS = CifarSettings(ells=(1, 2, 4), epochs=20)
CHOICE = Choice(2.0, True, tuple(RateScore(eta, 0.8 + eta / 20, 0, 1) for eta in (0.5, 1.0, 2.0)))
STEPS = tuple(88.0 * k for k in range(21))


def outcome(run: Run, loss: float, accuracy: float) -> Outcome:
    untrained = {"train_loss": 2.4, "validation_accuracy": 0.1, "test_accuracy": 0.1}
    final = {"train_loss": loss, "validation_accuracy": accuracy, "test_accuracy": accuracy}
    return Outcome(run, (2.4, loss), untrained, final)  # type: ignore[arg-type]


def pairs(ell: int, gap: float, spread: float = 0.002) -> Pairs:
    """Six pairs: SGDM is ahead by ``gap`` in accuracy, and by as much in loss."""
    noise = np.random.default_rng(ell).normal(0, spread, (2, 6))
    confirmed = {}
    for seed in range(6):
        for momentum, ahead in ((0.0, 0.0), (0.9, gap)):
            run = Run(512, 2.0, seed, momentum)
            by = ahead + noise[int(momentum > 0), seed]
            confirmed[run] = outcome(run, 0.6 - by, 0.8 + by)
    made = pairs_of(ell, BatchState(512, {}, confirmed, {}, None, True), 2.0, 0.9)
    assert made is not None
    return made


def curve(ell: int, rule: str, ahead: float) -> MeanCurve:
    losses = tuple(0.5 - ahead + 1.9 * float(np.exp(-step / 400)) for step in STEPS)
    return MeanCurve(ell, rule, 6, STEPS, losses, tuple(0.95 - 0.3 * loss for loss in losses))


def result(gaps: tuple[float, ...] = (0.03, 0.015, 0.004)) -> CifarResult:
    ells = [pairs(ell, gap) for ell, gap in zip((1, 2, 4), gaps, strict=True)]
    curves = [
        curve(ell, rule, ahead)
        for ell, gap in zip((1, 2, 4), gaps, strict=True)
        for rule, ahead in (("SGD", 0.0), ("SGDM", 3 * gap))
    ]
    return CifarResult(SETTINGS, CHOICE, tuple(ells), falls(ells), tuple(curves), True, 100.0, {})


def test_the_answer_is_what_was_measured() -> None:
    answer = cifar_page(result()).answer
    assert answer == (
        "At ℓ = 1 SGDM is ahead by 2.99 points in test accuracy and by 0.0299 in training loss; both gaps are smaller "
        "at ℓ = 4."
    )
    assert cifar_page(result((0.004, 0.015, 0.03))).answer.endswith("both gaps are larger at ℓ = 4.")
    assert cifar_page(result((0.0, 0.0, 0.0))).answer == (
        "At ℓ = 1 the two cannot be told apart in test accuracy and training loss; there is no gap that could fall."
    )
    behind = cifar_page(result((-0.03, -0.01, -0.001))).answer
    assert behind.startswith("At ℓ = 1 SGD is ahead by 3.01 points in test accuracy and by 0.0301 in")
    assert behind.endswith("both gaps are smaller at ℓ = 4.")


def test_an_answer_tells_measures_apart() -> None:
    mixed = result()
    (first, *others), flat = mixed.ells, pairs(1, 0.0)
    first = replace(
        first,
        gaps={**first.gaps, "train_loss": flat.gaps["train_loss"]},
        by_seed={**first.by_seed, "train_loss": flat.by_seed["train_loss"]},
    )
    ells = (first, *others)
    assert cifar_page(replace(mixed, ells=ells, falls=falls(ells))).answer == (
        "At ℓ = 1 SGDM is ahead by 2.99 points in test accuracy, and the two cannot be told apart in training loss. "
        "The gap in test accuracy is smaller at ℓ = 4; in training loss there is no gap that could fall."
    )


def test_a_gap_that_turns_round_has_not_fallen() -> None:
    ells = [pairs(1, 0.01), pairs(4, -0.03)]
    assert falls(ells)["test_accuracy"].change == "undecided"
    assert falls(ells)["test_accuracy"].drop.low > 0


def test_gaps_are_paired_and_signed_so_that_momentum_is_positive() -> None:
    one = pairs(1, 0.03, spread=0.0)
    assert one.gaps["test_accuracy"].mean == pytest.approx(0.03)
    assert one.gaps["train_loss"].mean == pytest.approx(0.03)
    assert one.scores["SGDM"]["test_accuracy"].mean == pytest.approx(0.83)
    assert one.scores["SGDM"]["train_loss"].mean == pytest.approx(0.57)


def test_runs_at_other_rates_and_single_halves_of_pairs_are_no_pairs() -> None:
    def state(*runs: Run) -> BatchState:
        return BatchState(512, {}, {run: outcome(run, 0.5, 0.8) for run in runs}, {}, None, False)

    halves = [Run(512, 2.0, seed, 0.0) for seed in range(6)]
    elsewhere = [Run(512, 1.0, seed, 0.9) for seed in range(6)]
    assert pairs_of(1, state(*halves, *elsewhere), 2.0, 0.9) is None
    found = pairs_of(1, state(*halves, *(Run(512, 2.0, seed, 0.9) for seed in range(3))), 2.0, 0.9)
    assert found is not None
    assert found.count == 3


def test_failed_runs_and_an_edge_are_told() -> None:
    run = Run(512, 2.0, 0, 0.0)
    failed = replace(outcome(run, 9.0, 0.1))  # ends above where it started
    others = {r: outcome(r, 0.5, 0.8) for s in range(6) for r in (Run(512, 2.0, s, 0.0), Run(512, 2.0, s, 0.9))}
    one = pairs_of(1, BatchState(512, {}, {**others, run: failed}, {}, None, True), 2.0, 0.9)
    assert one is not None
    page = cifar_page(replace(result(), ells=(one,), falls={}))
    assert "Runs failed, and score what the untrained model does: 1 of 6 of SGD at ℓ = 1." in page.lead
    assert "SGDM's rate lies at the edge of its grid: a wider one may have a better rate." in page.lead
    assert one.gaps["test_accuracy"].mean == pytest.approx(0.7 / 6)


def test_what_is_not_finished_says_so() -> None:
    nothing = replace(result(), choice=None, ells=(), falls={}, curves=(), finished=False)
    page = cifar_page(nothing)
    assert page.answer == "There are no pairs to compare yet."
    assert page.notice == (
        "Not finished: of 6 pairs there are 0 at ℓ = 1, 0 at ℓ = 2 and 0 at ℓ = 4. The same command goes on."
    )
    half = cifar_page(replace(result(), ells=result().ells[:2], finished=False))
    assert "6 at ℓ = 1, 6 at ℓ = 2 and 0 at ℓ = 4" in half.notice


def test_tables_hold_every_ell() -> None:
    page = cifar_page(result())
    accuracy, loss = (part for part in page.sections[0].parts if isinstance(part, Table))
    assert [row[0] for row in accuracy.rows] == ["1", "2", "4"] == [row[0] for row in loss.rows]
    assert all(len(line) <= 80 for line in plain_text(page).splitlines())
    assert not any(isinstance(cell, Badge) for row in accuracy.rows for cell in row)  # no verdict without a study


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1400, "dark")])
def test_it_reads_well(visit: OpenPage, width: int, scheme: Literal["light", "dark"]) -> None:
    page = cifar_page(result())
    seen = visit(page, width=width, scheme=scheme)
    assert states(seen) == ["true"] * len(figures_of(page))
    assert len(figures_of(page)) == 8
    assert seen.tab.evaluate("document.scrollingElement.scrollWidth") <= width
    assert seen.tab.evaluate(OUTSIDE_THEIR_PLACE) == []
    assert seen.tab.evaluate(LESS_CONTRAST_THAN, 4.5)["found"] == []
    assert seen.complaints == []
