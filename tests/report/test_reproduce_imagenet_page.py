"""The page of the experiment on ImageNet: it says what was found, and reads well in a browser."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from page_measures import LESS_CONTRAST_THAN, OUTSIDE_THEIR_PLACE, states
from page_samples import OpenPage

from lightball.report.page import Page, Table, figures_of
from lightball.report.plain import plain_text
from lightball.report.reproduce.imagenet import imagenet_page
from lightball.reproduce.imagenet import AtBatchSize, ImagenetResult, ImagenetSettings
from lightball.reproduce.pairs import pairs_of
from lightball.studies.runs import Outcome, Run
from lightball.studies.study import BatchState
from lightball.studies.tuning import Choice, RateScore

SETTINGS = ImagenetSettings(batch_sizes=(64, 1024, 16384))


def at(batch_size: int, gap: float, finished: bool = True) -> AtBatchSize:
    """Six pairs, SGDM ahead by ``gap`` in accuracy and twice as much in loss."""
    noise = np.random.default_rng(batch_size).normal(0, 0.001, (2, 6))
    rate = batch_size / 256
    untrained = {"train_loss": 6.9, "validation_accuracy": 0.001, "test_accuracy": 0.001}
    confirmed = {}
    for seed in range(6):
        for momentum, by in ((0.0, 0.0), (0.9, gap)):
            ahead = by + noise[int(momentum > 0), seed]
            final = {"train_loss": 1.2 - 2 * ahead, "validation_accuracy": 0.76, "test_accuracy": 0.76 + ahead}
            run = Run(batch_size, rate, seed, momentum)
            confirmed[run] = Outcome(run, (6.9, 1.2), untrained, final)  # type: ignore[arg-type]
    choice = Choice(rate, batch_size == 64, tuple(RateScore(k * rate, 0.7 + k / 100, 0, 1) for k in (0.5, 1.0)))
    pairs = pairs_of(batch_size, BatchState(batch_size, {}, confirmed, {}, None, True), rate, 0.9)
    return AtBatchSize(batch_size, choice, pairs, finished)


def result() -> ImagenetResult:
    return ImagenetResult(SETTINGS, (at(64, 0.0), at(1024, 0.0), at(16384, 0.02)), True, 100.0, {})


def rates(page: Page) -> Table:
    (table,) = (part for section in page.sections if section.title == "SGDM's rates" for part in section.parts)
    assert isinstance(table, Table)
    return table


def test_the_answer_is_by_batch_size() -> None:
    page = imagenet_page(result())
    assert page.answer.startswith(
        "At batch size 64 and 1,024 the two cannot be told apart in test accuracy and training loss; at batch size "
        "16,384 SGDM is ahead by "
    )
    assert "SGDM's rate lies at the edge of its grid at batch size 64: a wider one may have a better rate." in page.lead


def test_rates_are_given_at_the_reference_batch_size_too() -> None:
    rows = rates(imagenet_page(result())).rows
    assert [row[:4] for row in rows[:2]] == [("64", "0.125", "0.0125", "0.05"), ("64", "0.25", "0.025", "0.1")]
    assert rows[-1][:4] == ("16384", "64", "6.4", "0.1")
    assert [row[-1] for row in rows] == ["", "selected"] * 3


def test_the_published_error_is_beside_what_it_is_of() -> None:
    said = imagenet_page(result()).sections[0].text[0]
    assert "23.60 ± 0.12 % at B = 256" in said
    assert "which these runs are not" not in said
    smaller = replace(result(), settings=replace(SETTINGS, depth=18))
    assert "which these runs are not" in imagenet_page(smaller).sections[0].text[0]


def test_what_is_not_finished_says_so() -> None:
    tuning = AtBatchSize(64, None, None, False)
    page = imagenet_page(replace(result(), batches=(tuning,), finished=False))
    assert page.answer == "There are no pairs to compare yet."
    assert page.notice == (
        "Not finished: of 6 pairs there are 0 at batch size 64, 0 at batch size 1,024 and 0 at batch size 16,384. The "
        "same command goes on."
    )


def test_the_text_fits_a_terminal() -> None:
    assert all(len(line) <= 80 for line in plain_text(imagenet_page(result())).splitlines())


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1400, "dark")])
def test_it_reads_well(visit: OpenPage, width: int, scheme: Literal["light", "dark"]) -> None:
    page = imagenet_page(result())
    seen = visit(page, width=width, scheme=scheme)
    assert states(seen) == ["true"] * len(figures_of(page))
    assert len(figures_of(page)) == 4
    assert seen.tab.evaluate("document.scrollingElement.scrollWidth") <= width
    assert seen.tab.evaluate(OUTSIDE_THEIR_PLACE) == []
    assert seen.tab.evaluate(LESS_CONTRAST_THAN, 4.5)["found"] == []
    assert seen.complaints == []
