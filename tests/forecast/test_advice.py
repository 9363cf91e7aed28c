"""Regimes, the value at a setting, and the whole advice, from probes made by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from advice_samples import DIGITS, phases_from, probe_of

from lightball.errors import InputError
from lightball.forecast import forecast
from lightball.forecast.advising import advise
from lightball.forecast.phase import CurvePoint, Phase, Phases
from lightball.forecast.regime import regime_of, terms_of
from lightball.probe import Estimate
from lightball.rules import Setting
from lightball.stats import Verdict

SETTING = Setting("torch", lr=0.01, momentum=0.9)


def test_the_three_terms_are_what_a_step_changes_on_a_quadratic() -> None:
    h, g, sigma = np.array([2.0, 0.5]), np.array([0.3, -0.4]), np.array([1.0, 3.0])
    found = terms_of(probe_of(curvatures=h, gradient=g**2, noise=sigma), 0.1, 8)
    # E of L(x − η(g + ξ)) − L(x), written out.
    descent, curved = -0.1 * (g @ g), 0.5 * 0.01 * (h @ g**2)
    assert (found.descent, found.curvature) == (pytest.approx(descent), pytest.approx(curved))
    assert found.noise == pytest.approx(0.5 * 0.01 * (h @ sigma) / 8)


@pytest.mark.parametrize(
    ("batch_size", "rate", "name"),
    [
        (1, 0.1, "noise-dominated"),  # 2B‖g‖²/tr(HΣ) = 0.2 B, against 2/λ = 1
        (1, 1.5, "mixed"),  # SGD does not stand that rate
        (5, 0.1, "mixed"),
        (64, 0.1, "curvature-dominated"),
    ],
)
def test_the_regime_is_that_of_the_limit_that_comes_first(batch_size: int, rate: float, name: str) -> None:
    probe = probe_of(curvatures=(2.0,), gradient=(0.4,), noise=(2.0,))
    found = regime_of(probe, rate, batch_size)
    assert found.name == name
    assert found.noise_lr.value == pytest.approx(0.2 * batch_size)
    assert found.curvature_lr == 1.0
    assert found.thresholds["apart"] == 3.0
    assert found.more_batches is None


def test_at_the_rate_where_noise_undoes_the_descent_the_terms_cancel() -> None:
    probe = probe_of(curvatures=(2.0,), gradient=(0.4,), noise=(2.0,))
    rate = regime_of(probe, 0.1, 16).noise_lr.value
    terms = terms_of(probe, rate, 16)
    assert terms.noise == pytest.approx(-terms.descent)


def test_wide_intervals_leave_the_regime_open_and_say_how_many_batches_would_tell() -> None:
    wide = probe_of(
        curvatures=(2.0,),
        gradient=(0.4,),
        noise=(2.0,),
        norm=Estimate(0.4, 0.1, 1.6, 10),
        gradient_examples=320,
        noise_batches=10,
        training_examples=100_000,
    )
    found = regime_of(wide, 0.1, 5)
    assert found.name == "not determined"
    assert "too wide to tell" in found.reason
    # With so many batches more, the interval is as narrow as it has to be: log-widths fall with the root.
    width = math.log(16) * math.sqrt(10 / (10 + found.more_batches))
    assert width == pytest.approx(math.log(3), rel=0.02)


def test_a_gradient_that_may_be_zero_needs_more_batches_unless_noise_dominates_at_its_largest() -> None:
    small = Estimate(0.01, -0.02, 0.04, 10)
    few = {"gradient_examples": 320, "noise_batches": 10, "training_examples": 100_000}
    probe = probe_of(curvatures=(2.0,), gradient=(0.4,), noise=(2.0,), norm=small, **few)
    assert regime_of(probe, 0.1, 1).name == "noise-dominated"
    found = regime_of(probe, 0.1, 4096)
    assert found.name == "not determined"
    assert found.more_batches == 10 * 36 - 10  # the half-width, 0.03, has to fall to 0.005


def test_no_more_batches_are_asked_for_than_there_are() -> None:
    few = probe_of(norm=Estimate(0.1, -1, 1.2, 10), gradient_examples=1000, noise_batches=10, training_examples=1100)
    assert regime_of(few, 0.1, 64).more_batches == 1
    all_seen = probe_of(norm=Estimate(0.1, -1, 1.2, 10))
    assert regime_of(all_seen, 0.1, 64).more_batches is None


def test_advice_on_a_quadratic_holds_the_forecast_and_the_conversion() -> None:
    probe = probe_of(loss=1.0, curvatures=(0.5, 1.0), gradient=(0.01, 0.01), noise=(0.2, 0.1))
    found = advise(probe, SETTING, 16, num_steps=50, margin=0.01, sampling="iid")
    expected = forecast(probe, 0.1, 0.9, batch_size=16, num_steps=50, sampling="iid")
    value = found.value_of_momentum
    told = (expected.value.value, expected.value.low, expected.value.high)
    assert (value.difference, value.low, value.high) == pytest.approx(told)
    assert value.valid == expected.validity.valid
    assert value.verdict is (Verdict.NO_VALUE if value.valid else Verdict.UNDECIDED)
    assert found.matched_lr == pytest.approx(0.1)
    assert "averaged_schedule" in found.matched_schedule
    assert found.memory_saved_bytes == 400
    assert (found.best_tuned.valid, found.critical_batch_size.value) == (False, None)


def test_where_only_the_size_is_known_it_decides_with_the_uncertainty_of_what_was_measured() -> None:
    unsure = {"trace_noise": Estimate(0.3, 0.2, 0.4, 8)}
    probe = probe_of(loss=1.0, curvatures=(0.5, 1.0), gradient=(0.01, 0.01), noise=(0.2, 0.1))
    expected = forecast(replace(probe, **unsure), 0.1, 0.9, batch_size=16, num_steps=50, sampling="shuffle")
    assert not expected.validity.valid
    bound, half = expected.validity.bound, (expected.value.high - expected.value.low) / 2
    assert half > 0.1 * bound
    at = {
        m: advise(replace(probe, **unsure), SETTING, 16, num_steps=50, margin=m).value_of_momentum
        for m in (bound * 1.001, (bound + half) * 1.001)
    }
    narrow, wide = at.values()
    assert (narrow.verdict, narrow.valid) == (Verdict.UNDECIDED, False)
    assert (wide.verdict, wide.valid) == (Verdict.NO_VALUE, True)
    assert (wide.low, wide.high) == pytest.approx((-bound - half, bound + half))
    assert wide.reason.startswith("batches without replacement")  # a remark


def test_without_curvature_no_rate_is_said_not_to_be_stood() -> None:
    for noise, told in ((0.0, "nothing limits the rate"), (1.0, "no curvature was found")):
        flat = probe_of(curvatures=(-0.01,), noise=(noise,), noise_curvature=Estimate(noise, noise, noise, 0))
        found = regime_of(flat, 0.1, 16)
        assert told in found.reason
        assert "does not stand" not in found.reason
        assert "inf" not in found.reason
        advice = advise(flat, SETTING, 16, num_steps=10)
        assert "inf" not in " ".join((advice.recommendation, *advice.what_would_change, advice.without_momentum))


def test_the_margin_decides_the_verdict() -> None:
    probe = probe_of(loss=1.0, curvatures=(0.2,), gradient=(0.01,), noise=(1e-6,))
    at = {m: advise(probe, SETTING, 16, num_steps=50, margin=m).value_of_momentum for m in (1e-6, 1.0)}
    assert at[1.0].valid
    assert at[1e-6].difference < 0  # from m₀ = 0 momentum lags behind
    assert at[1e-6].verdict is Verdict.HURTS
    assert at[1.0].verdict is Verdict.NO_VALUE


def test_a_forecast_that_is_not_valid_decides_nothing_and_tells_no_numbers_of_a_divergence() -> None:
    probe = probe_of(loss=1.0, curvatures=(50.0,), gradient=(0.1,), noise=(1.0,))
    found = advise(probe, Setting("ema", 1.0, 0.9), 16, num_steps=100).value_of_momentum
    assert found.verdict is Verdict.UNDECIDED
    assert not found.valid
    assert found.reason
    assert math.isnan(found.difference)
    near = probe_of(loss=1.0, curvatures=(1.5,), gradient=(0.1,), noise=(0.1,))
    found = advise(near, Setting("ema", 1.0, 0.9), 16, num_steps=100, margin=0.5).value_of_momentum
    assert abs(found.difference) < 0.5
    assert (found.verdict, found.valid) == (Verdict.UNDECIDED, False)


@pytest.mark.parametrize(
    ("batch_size", "lr", "words"),
    [(8, 0.001, "Drop momentum: SGD at lr 0.01"), (512, 0.5, "Keep momentum"), (8, 1.0, "but not at this rate")],
)
def test_the_recommendation_follows_the_tuned_runs(batch_size: int, lr: float, words: str) -> None:
    found = advise(phases_from(DIGITS), Setting("torch", lr, 0.9), batch_size)
    assert words in found.recommendation
    direction = "above" if batch_size == 8 else "below"
    assert found.what_would_change[0].startswith(f"A batch size {direction} about")


def test_between_the_ends_of_the_critical_batch_size_it_is_undecided_and_says_so() -> None:
    found = advise(phases_from(DIGITS), Setting("torch", 1.0, 0.9), 64)
    assert found.recommendation.startswith("Undecided")
    assert "yours is 64" in found.recommendation
    assert "neither is stable" in found.recommendation  # η is 10, SGDM stands 19 · 2/λ_max = 9.5


def test_at_a_rate_that_sgd_does_not_stand_momentum_is_said_to_be_needed() -> None:
    found = advise(phases_from(DIGITS), Setting("torch", 0.1, 0.9), 64)
    limit = f"{found.regime.curvature_lr:.2g}"
    assert f"momentum is needed, since SGD stands at most 2/λ_max = {limit}" in found.recommendation
    assert found.without_momentum.endswith(f"which SGD does not stand here: at most 2/λ_max = {limit}")
    assert found.matched_lr == pytest.approx(1.0)
    slow = advise(phases_from(DIGITS), Setting("torch", 0.01, 0.9), 64)
    assert slow.without_momentum == "SGD at lr 0.1"
    assert "needed" not in slow.recommendation


def test_where_the_answer_hangs_on_the_floor_a_larger_batch_is_what_would_change_it() -> None:
    raised = phases_from([(time, loss + 0.5, *others) for time, loss, *others in DIGITS])
    found = advise(raised, SETTING, 32)
    high = found.critical_batch_size.high
    assert found.what_would_change[0].startswith(f"A batch size above about {high:.0f}")


def test_json_has_what_was_promised_and_no_number_that_is_not_finite() -> None:
    found = advise(phases_from(DIGITS), Setting("torch", 1.0, 0.9), 64).to_json()
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert {
        "regime",
        "terms",
        "value_of_momentum",
        "best_tuned",
        "critical_batch_size",
        "matched_lr",
        "memory_saved_bytes",
        "probe",
    } <= set(found)
    assert set(found["terms"]) == {"descent", "curvature", "noise"}
    assert {"verdict", "difference", "ci95", "valid", "reason"} <= set(found["value_of_momentum"])
    assert {"verdict", "difference", "range"} <= set(found["best_tuned"])
    assert {"sharpness", "trace_noise", "noise_scale"} <= set(found["probe"])
    assert [at["name"] for at in found["phases"]] == ["start", "middle", "end"]


def test_the_headline_is_about_the_middle_phase() -> None:
    found = advise(phases_from(DIGITS), SETTING, 64)
    assert found.by_phase[found.main].phase.name == "middle"
    assert found.terms == found.by_phase[1].terms
    assert found.regime == found.by_phase[1].regime


def test_phases_come_in_the_order_of_time() -> None:
    late, early = (Phase(name, time, probe_of()) for name, time in (("late", 9.0), ("early", 1.0)))
    assert [phase.name for phase in advise([late, early], SETTING, 16).phases] == ["early", "late"]


def test_the_default_margin_is_a_hundredth_of_the_descent() -> None:
    curve = (CurvePoint(0.0, 3.0, 1.0), CurvePoint(10.0, 1.0, 1.0))
    phases = Phases((Phase("middle", 5.0, probe_of(loss=2.0)),), curve)
    assert advise(phases, SETTING, 16).value_of_momentum.margin == pytest.approx(0.02)
    from_checkpoint = replace(phases, from_start=False)
    assert advise(from_checkpoint, SETTING, 16).value_of_momentum.margin == pytest.approx(0.02)
    assert advise(probe_of(loss=0.5), SETTING, 16).value_of_momentum.margin == pytest.approx(0.005)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="momentum 0, so there is none to judge"):
        advise(probe_of(), Setting("torch", 0.1), 16)
    with pytest.raises(InputError, match="nesterov True, but forecasts are for the heavy ball"):
        advise(probe_of(), Setting("torch", 0.1, 0.9, nesterov=True), 16)
    with pytest.raises(InputError, match="at least one probe"):
        advise([], SETTING, 16)
    with pytest.raises(InputError, match="from 1 to the 1078 examples"):
        advise(probe_of(), SETTING, 4096)
