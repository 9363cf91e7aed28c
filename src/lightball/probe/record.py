"""What a probe found, frozen, as JSON and back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightball.errors import InputError, reason_of
from lightball.probe.ahead import PathPoint
from lightball.probe.as_json import decoded, encoded
from lightball.probe.eigenvalues import Eigenvalue
from lightball.probe.estimates import Estimate
from lightball.probe.measure import SpectralMeasure

FORMAT = "lightball probe"
VERSION = 1


@dataclass(frozen=True)
class Buffer:
    """Measures of an optimizer's canonical momentum buffer m.

    Args:
        own: mass (uᵢᵀm)² at hᵢ.
        cross: mass (uᵢᵀg)(uᵢᵀm) at hᵢ, by polarisation, so that its weights have both signs.
    """

    own: SpectralMeasure
    cross: SpectralMeasure


@dataclass(frozen=True)
class Probe:
    """Noise and curvature of a loss at the current weights x, from N of its M training examples.

    H is the Hessian of the mean loss (or its Gauss–Newton part) over the curvature examples, g the gradient of the
    training set, ĝ the measured mean gradient, Σ the covariance of the gradient of one example. Intervals hold 95 %.

    Args:
        loss: mean loss of the N examples.
        num_parameters: of the trainable ones.
        training_examples: M.
        gradient_examples: N.
        noise_batches: how many microbatches, or examples with ``per_example``, the noise comes from.
        per_example: whether it comes from single examples.
        curvature: which matrix H is.
        curvature_examples: how many examples it is a mean over.
        mode: "eval", "train", or "mixed" where modules differ.
        gradient: measure of ĝ, mass (uᵢᵀĝ)² at hᵢ: as it is, with its noise; see :meth:`gradient_integral`.
        noise: measure of Σ, mass uᵢᵀΣuᵢ at hᵢ, from several vectors, scaled to ``trace_noise``.
        gradient_noise_share: how much of Σ is in ĝĝᵀ: (1/N)(M − N)/(M − 1).
        buffer: of the optimizer's momentum, None at a cold start.
        gradient_norm_squared: ‖g‖², debiased, so that it may be negative.
        trace_noise: tr Σ.
        noise_scale: tr Σ/‖g‖², the simple one, a ratio of means; not determined where g may be 0.
        preconditioned_noise_scale: tr(HΣ)/gᵀHg, likewise.
        gradient_curvature: gᵀHg, debiased.
        noise_curvature: tr(HΣ).
        trace: tr H.
        sharpness: the largest eigenvalue of H.
        smallest: the smallest one.
        sharpness_bias: by how much ``sharpness`` is likely to exceed that of the whole training set, since the largest
            eigenvalue of a mean over few examples is too large; measured on halves of the curvature examples, 0 where
            they are the training set, None for a single example.
        update_curvature: uᵀHu/uᵀu along the last update u, if it was given.
        notes: what a reader of these numbers should know, in sentences.
        path: the path ahead, as :func:`lightball.probe.look_ahead` adds it; empty without.
    """

    loss: float
    num_parameters: int
    training_examples: int
    gradient_examples: int
    noise_batches: int
    per_example: bool
    curvature: Literal["hessian", "ggn"]
    curvature_examples: int
    mode: str
    gradient: SpectralMeasure
    noise: SpectralMeasure
    gradient_noise_share: float
    buffer: Buffer | None
    gradient_norm_squared: Estimate
    trace_noise: Estimate
    noise_scale: Estimate
    preconditioned_noise_scale: Estimate
    gradient_curvature: float
    noise_curvature: Estimate
    trace: Estimate
    sharpness: Eigenvalue
    smallest: Eigenvalue
    sharpness_bias: float | None
    update_curvature: float | None
    notes: tuple[str, ...]
    path: tuple[PathPoint, ...] = ()

    def gradient_integral(self, f: Callable[[np.ndarray], np.ndarray]) -> float:
        """∫ f dμ_g, debiased: that of ĝ less the noise's share."""
        return self.gradient.integral(f) - self.gradient_noise_share * self.noise.integral(f)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and text; inf and nan as text. Numbers come back exactly."""
        return {"format": FORMAT, "version": VERSION, "probe": encoded(self)}

    @classmethod
    def from_json(cls, value: Any) -> Probe:
        """The probe that :meth:`to_json` wrote.

        Raises:
            InputError: something else, damaged, or of a newer version.
        """
        return _read(value, "the JSON value")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a JSON file, whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        place = Path(path)
        draft = place.with_name(f"{place.name}.{os.getpid()}.part")
        try:
            draft.write_text(json.dumps(self.to_json(), allow_nan=False), encoding="utf-8")
            draft.replace(place)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise InputError(f"cannot write the probe {str(place)!r}: {error.strerror or reason_of(error)}") from error


def load_probe(path: str | os.PathLike[str]) -> Probe:
    """The probe in a JSON file.

    Raises:
        InputError: there is none, or it is damaged, something else, or of a newer version.
    """
    name = f"the file {str(path)!r}"
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is damaged or no probe: {reason_of(error)} (probe again)") from error
    return _read(value, name)


def _read(value: Any, name: str) -> Probe:
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise InputError(f"{name} is no probe: it must be an object with format {FORMAT!r}, as Probe.save writes it")
    version = value.get("version")
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"{name} was written by a newer lightball (version {version}, this one reads {VERSION}): update lightball"
        )
    try:
        if version != VERSION:
            raise ValueError(f"version is {version!r}")
        return decoded(Probe, value.get("probe"), "probe")
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{name} is damaged: {reason_of(error)} (probe again)") from error
