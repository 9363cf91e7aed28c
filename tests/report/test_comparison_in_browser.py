"""The page of a study in a browser: every mark is there, whatever the study and its name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_measures import OUTSIDE_THEIR_PLACE
from page_samples import OpenPage, Visit
from playwright.sync_api import expect

from fabricated import UNTRAINED_LOSS, Effect, FakeEngine, World, broken, outcome, study
from lightball import write_report
from lightball.report import curves
from lightball.studies.runs import Outcome, Run, crashed
from lightball.studies.settings import Settings
from lightball.studies.study import read_study

HOSTILE = "<script>alert(1)</script>"
SETTINGS = Settings(batch_sizes=(8, 32), lr=(0.2, 0.4, 0.8, 1.6), stages=(8, 16), max_extensions=0)
EFFECTS = {(8, 0.9): Effect(0, 0.1), (32, 0.9): Effect(9, 0.5)}
COUNTS = """() => Object.fromEntries([...document.querySelectorAll("figure[data-name]")].map((figure) => {
  const counts = {};
  for (const group of figure.querySelectorAll("g.role-mark")) {
    const name = [...group.classList].find((name) => name.endsWith("_marks"))?.replace("_marks", "");
    counts[name] = (counts[name] ?? 0) + group.querySelectorAll("path, line").length;
  }
  return [figure.dataset.name, counts];
}))"""


def some_fail(run: Run) -> Outcome:
    """Momentum helps at 32; at 0.8 SGDM fails on some seeds, at 1.6 all fail or crash."""
    if run.effective_lr == 1.6:
        return crashed(run, HOSTILE) if run.momentum else broken(run)
    if run.effective_lr == 0.8 and run.momentum and run.seed % 3 == 0:
        return outcome(run, math.inf, failed_at=7)
    return World(EFFECTS)(run)


def opened(open_page: OpenPage, folder: Path, **how: object) -> Visit:
    visit = open_page(write_report(folder), **how)
    assert visit.complaints == []
    assert visit.dialogs == []
    assert [address.rpartition("/")[2] for address in visit.requests] == ["report.html"]
    states = visit.tab.eval_on_selector_all("figure[data-name]", "all => all.map((figure) => figure.dataset.rendered)")
    assert set(states) <= {"true"}
    return visit


def test_every_mark_is_drawn_and_a_hostile_name_is_text(open_page: OpenPage, tmp_path: Path) -> None:
    study(SETTINGS, FakeEngine(some_fail), tmp_path, task=HOSTILE)
    tab = opened(open_page, tmp_path).tab
    assert tab.locator("h1").inner_text() == (
        f"On {HOSTILE}, momentum had no value up to batch size 8 and helped from 32 on."
    )
    assert tab.title() == f"Does {HOSTILE} need momentum?"

    counts = tab.evaluate(COUNTS)
    for b in (8, 32):
        for name in (f"loss-by-rate-{b}", f"accuracy-by-rate-{b}"):
            drawn = counts[name]
            assert drawn["points"] == 5  # 2 rules × 4 rates, less 3 at which some run failed
            assert drawn["failures"] == 3
            assert drawn["selected"] == 2
            assert drawn["largest_without_failures_0"] == drawn["largest_without_failures_1"] == 1
            assert drawn["means"] == drawn["bands"] == 2
        assert counts[f"curves-{b}"]["points"] == 2 * 3  # rules × (untrained and 2 epochs)
        assert counts[f"curves-{b}"]["means"] == 2
    for name in ("differences-train-loss", "differences-test-accuracy"):
        assert counts[name]["intervals"] == counts[name]["means"] == 2
    assert counts["value-train-loss"]["means"] == counts["value-test-accuracy"]["means"] == 2
    assert counts["epochs-to-same-loss"]["points"] == 4
    assert len(counts) == 2 + 3 + 4 + 2

    tab.locator(".vega-bindings input").first.check()
    expect(tab.locator(".singles_marks path")).to_have_count(2 * 8)  # rules × pairs of the first stage


def test_what_failed_is_said(open_page: OpenPage, tmp_path: Path) -> None:
    study(SETTINGS, FakeEngine(some_fail), tmp_path)
    text = opened(open_page, tmp_path).tab.locator("body").evaluate("body => body.textContent")
    text = " ".join(text.split())
    assert f"crashed: {HOSTILE}" in text
    assert "with a loss that was not finite, from step 7 (median)" in text
    assert "lightball compare made-up" in text


def half(folder: Path) -> None:
    """Stops in the middle of the confirmation."""

    def stop(run: Run) -> Outcome:
        if len(engine.chunks) > 24:
            raise KeyboardInterrupt
        return World(EFFECTS)(run)

    engine = FakeEngine(stop)
    with pytest.raises(KeyboardInterrupt):
        study(SETTINGS, engine, folder, width=6)


def all_failed(folder: Path) -> None:
    study(SETTINGS, FakeEngine(broken), folder)


def one_batch_size(folder: Path) -> None:
    study(replace(SETTINGS, batch_sizes=(64,)), FakeEngine(World()), folder)


def many(folder: Path) -> None:
    sizes = tuple(2**k for k in range(12))
    effects = {(b, m): Effect(math.log2(b) - 5, 2) for b in sizes for m in (0.5, 0.9, 0.99)}
    settings = replace(SETTINGS, batch_sizes=sizes, momentum=(0.5, 0.9, 0.99), tuning_seeds=2)
    study(settings, FakeEngine(World(effects)), folder)


def without_accuracy_or_curves(folder: Path) -> None:
    """As scripts that report a loss only."""

    def world(run: Run) -> Outcome:
        full = World(EFFECTS)(run)
        nothing = {"validation_accuracy": math.nan, "test_accuracy": math.nan}
        return Outcome(
            run, (), {**nothing, "train_loss": math.nan}, {**nothing, "train_loss": full.final["train_loss"]}
        )

    study(SETTINGS, FakeEngine(world), folder)


def losses_below_zero(folder: Path) -> None:
    """No logarithm of those."""

    def world(run: Run) -> Outcome:
        full = World(EFFECTS)(run)
        return replace(
            full,
            curve=tuple(value - 1 for value in full.curve),
            final={**full.final, "train_loss": full.final["train_loss"] - 1},
            untrained={**full.untrained, "train_loss": UNTRAINED_LOSS - 1},
        )

    study(SETTINGS, FakeEngine(world), folder)


@pytest.mark.parametrize(
    ("make", "answer", "figures"),
    [
        (half, "So far, on made-up", 4),
        (all_failed, "On made-up, there is no verdict: no learning rate trained at any batch size.", 4),
        (one_batch_size, "On made-up, momentum had no value at batch size 64.", 2 + 3 + 2 + 1),
        (many, "On made-up, momentum ", 2 + 3 + 24 + 12),
        (without_accuracy_or_curves, "On made-up, momentum had no value up to batch size 8 and helped", 1 + 1 + 2),
        (losses_below_zero, "On made-up, momentum had no value up to batch size 8 and helped", 2 + 3 + 4 + 2),
    ],
)
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_any_study_has_a_page(
    make: Callable[[Path], None],
    answer: str,
    figures: int,
    width: int,
    scheme: str,
    open_page: OpenPage,
    tmp_path: Path,
) -> None:
    make(tmp_path)
    tab = opened(open_page, tmp_path, width=width, scheme=scheme).tab
    assert tab.locator("h1").inner_text().startswith(answer)
    assert tab.locator("figure[data-name]").count() == figures
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= width
    assert tab.evaluate(OUTSIDE_THEIR_PLACE) == []


def test_ten_thousand_runs_stay_below_five_megabytes(open_page: OpenPage, tmp_path: Path) -> None:
    """With curves of 100 epochs, which are thinned."""
    ramp = np.linspace(0, 1, 101)
    sizes = tuple(2**k for k in range(12))
    effects = {(b, m): Effect(1, 0.5) for b in sizes for m in (0.5, 0.9, 0.99)}  # undecided up to the last stage

    def world(run: Run) -> Outcome:
        short = World(effects)(run)
        noise = np.random.default_rng(run.seed).uniform(0.9, 1.1, size=101)
        noise[-1] = 1.0
        return replace(short, curve=tuple((UNTRAINED_LOSS + ramp * (short.curve[-1] - UNTRAINED_LOSS)) * noise))

    settings = replace(
        SETTINGS, batch_sizes=sizes, momentum=(0.5, 0.9, 0.99), stages=(32, 64), tuning_seeds=13, epochs=100
    )
    study(settings, FakeEngine(world), tmp_path, width=64)
    found = read_study(tmp_path)
    assert found.num_runs >= 10_000
    page = write_report(tmp_path)
    assert page.stat().st_size < 5_000_000
    thinned = curves.curves(found).thinned
    assert "80 of 101 points" in thinned
    assert thinned in opened(open_page, tmp_path).tab.locator("body").inner_text()
