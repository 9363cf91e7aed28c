"""An advice that nobody has measured: every number is made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lightball.forecast.advice import Advice, PhaseAdvice, ValueOfMomentum
from lightball.forecast.best_tuned import BestTuned
from lightball.forecast.critical import CriticalBatchSize
from lightball.forecast.phase import Phase
from lightball.forecast.regime import Regime, Terms
from lightball.probe.eigenvalues import Eigenvalue
from lightball.probe.estimates import Estimate
from lightball.probe.measure import SpectralMeasure
from lightball.probe.record import Probe
from lightball.rules import Setting
from lightball.stats import Verdict


def estimate(value: float, width: float = 0.2) -> Estimate:
    return Estimate(value, value * (1 - width), value * (1 + width), 32)


def a_probe(sharpness: float = 4.0, gradient: float = 0.002, noise: float = 4.0, **changes: Any) -> Probe:
    """Curvatures over four decades, a few of them negative."""
    h = np.concatenate(([-0.02 * sharpness, -0.001], np.geomspace(1e-3, 1.0, 14) * sharpness))[None]
    falling = np.geomspace(1.0, 0.05, h.size)[None]
    shares = np.where(h > 0, falling, 1e-3)
    measured = SpectralMeasure(h, gradient * shares / shares.sum())
    vectors = SpectralMeasure(np.repeat(h, 4, 0), np.repeat(noise * falling[:, ::-1] / falling.sum(), 4, 0))
    values: dict[str, Any] = {
        "loss": 0.8,
        "num_parameters": 9610,
        "training_examples": 1078,
        "gradient_examples": 1078,
        "noise_batches": 34,
        "per_example": False,
        "curvature": "hessian",
        "curvature_examples": 1078,
        "mode": "eval",
        "gradient": measured,
        "noise": vectors,
        "gradient_noise_share": 0.0,
        "buffer": None,
        "gradient_norm_squared": estimate(gradient),
        "trace_noise": estimate(noise),
        "noise_scale": estimate(noise / gradient),
        "preconditioned_noise_scale": estimate(noise / gradient),
        "gradient_curvature": 0.3,
        "noise_curvature": estimate(2.0),
        "trace": estimate(12.0),
        "sharpness": Eigenvalue(sharpness, 1e-6, True),
        "smallest": Eigenvalue(-0.02 * sharpness, 1e-6, True),
        "sharpness_bias": 0.0,
        "update_curvature": None,
        "notes": ("curvature is that of the whole training set",),
        "path": (),
    }
    return Probe(**{**values, **changes})


def value(difference: float = 0.0021, *, valid: bool = True, margin: float = 0.023, **changes: Any) -> ValueOfMomentum:
    reason = "" if valid else "close to stability: η λ_max is 1.4 on the way"
    verdict = Verdict.NO_VALUE if abs(difference) < margin else Verdict.HELPS if difference > 0 else Verdict.HURTS
    made = ValueOfMomentum(verdict, difference, difference - 0.0006, difference + 0.0006, margin, 100, valid, reason)
    return replace(made, **changes)


def at_phase(name: str, time: float, **probe: Any) -> PhaseAdvice:
    thresholds = {"share of noise": 0.75}
    return PhaseAdvice(
        Phase(name, time, a_probe(**probe)),
        Regime("noise-dominated", "noise undoes the descent first", thresholds, estimate(0.1), 0.5),
        Terms(-0.05, 0.0015, 0.0064),
        value(),
    )


def an_advice(**changes: Any) -> Advice:
    """Three phases of digits at batch size 64."""
    made = Advice(
        setting=Setting("torch", 0.02, 0.9),
        batch_size=64,
        sampling="shuffle",
        by_phase=(
            at_phase("start", 0.0, sharpness=0.7),
            at_phase("middle", 12.0),
            at_phase("end", 80.0, gradient=0.0005),
        ),
        main=1,
        best_tuned=BestTuned(
            verdict=Verdict.UNDECIDED,
            difference=0.02,
            low=0.011,
            high=0.031,
            margin=0.023,
            sgd_loss=0.024,
            sgdm_loss=0.004,
            sgd_lr=0.8,
            sgdm_lr=3.2,
            epochs=24,
            num_steps=384,
            valid=True,
            reason="",
        ),
        critical_batch_size=CriticalBatchSize(67.2, 48.0, 96.0, ""),
        matched_lr=0.2,
        matched_schedule="keep the schedule",
        memory_saved_bytes=38440,
        recommendation="momentum can be dropped at this setting: SGD at lr 0.2 does the same",
        what_would_change=("a batch size of 67 or more", "a learning rate above 0.5"),
        more_batches=None,
    )
    return replace(made, **changes)
