"""The forecast: expected losses of SGD and of SGD with momentum from a probe, and the value of momentum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lightball.errors import InputError
from lightball.forecast.cases import cases_of
from lightball.forecast.outlook import Outlook, outlook
from lightball.forecast.validity import Validity, validities
from lightball.probe import Estimate
from lightball.stats.orders import Z95

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int

    from lightball.oracles import SamplingKind
    from lightball.probe import Probe

_RECORDS = 50
_MAP_NODES = 12  # of each noise measure in a map: a thousandth of the value is not seen there


@dataclass(frozen=True)
class Forecast:
    """Expected losses of SGD and SGDM from the probed weights, at one effective learning rate.

    Args:
        effective_lr: η of both.
        momentum: β of SGDM.
        batch_size: B.
        num_steps: K.
        sampling: "iid" (with replacement) or "shuffle" (without).
        warm: whether SGDM goes on with the momentum that the probe found in the optimizer; SGD starts without.
        steps: where losses are told, from 0 to K.
        sgd, sgdm: expected losses there.
        value: SGD's loss minus SGDM's after K steps, positive where momentum helps, as in ``lightball compare``. Its
            interval holds the uncertainty of what was measured, not that of the model, on which ``validity`` speaks.
        from_lag: its part without noise; negative where SGDM is behind, as it is after any start from m₀ = 0.
        from_noise: its part by noise; positive, since momentum smooths.
        validity: whether the forecast stands by it.
    """

    effective_lr: float
    momentum: float
    batch_size: int
    num_steps: int
    sampling: SamplingKind
    warm: bool
    steps: Int[np.ndarray, "record"]
    sgd: Float64[np.ndarray, "record"]
    sgdm: Float64[np.ndarray, "record"]
    value: Estimate
    from_lag: float
    from_noise: float
    validity: Validity

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists; None for what is not finite."""
        return {
            "effective_lr": self.effective_lr,
            "momentum": self.momentum,
            "batch_size": self.batch_size,
            "num_steps": self.num_steps,
            "sampling": self.sampling,
            "warm": self.warm,
            "steps": self.steps.tolist(),
            "sgd": [_plain(loss) for loss in self.sgd],
            "sgdm": [_plain(loss) for loss in self.sgdm],
            "value": _plain(self.value.value),
            "ci95": [_plain(self.value.low), _plain(self.value.high)],
            "from_lag": _plain(self.from_lag),
            "from_noise": _plain(self.from_noise),
            "valid": self.validity.valid,
            "reason": self.validity.reason,
        }


def forecast(
    probe: Probe,
    effective_lr: float,
    momentum: float = 0.9,
    *,
    batch_size: int,
    num_steps: int,
    sampling: SamplingKind = "iid",
    warm: bool | None = None,
) -> Forecast:
    """What SGD and SGDM are expected to reach in ``num_steps`` steps, both at ``effective_lr`` and on the same batches.

    Without a path ahead the loss is the quadratic at the probed weights, for which moments are exact, whatever the
    noise's distribution. With one (``probe(..., horizon=effective_lr · num_steps)``) the mean follows it, to first
    order in η and second in momentum's memory, see :mod:`lightball.probe.path`; noise is that measured along it.
    "shuffle" takes the weights to be at the beginning of an epoch.

    Args:
        warm: whether SGDM goes on with the optimizer's momentum that the probe was given; default where it was.

    Cost: 10 to 100 ms, without the model.

    Raises:
        InputError: values out of range, a batch beyond the training set, or ``warm`` of a probe without a buffer.
    """
    cases = cases_of(probe, [effective_lr], [batch_size], momentum, num_steps, sampling)
    warm = _warm(probe, warm)
    record = tuple(int(step) for step in np.unique(np.linspace(0, num_steps, _RECORDS + 1).round()))
    seen = outlook(probe, cases, warm, record)
    lag, noise = _parts(seen)
    return Forecast(
        float(effective_lr),
        float(momentum),
        int(batch_size),
        int(num_steps),
        sampling,
        warm,
        np.array(record),
        seen.sgd[:, 0],
        seen.sgdm[:, 0],
        _value(probe, seen, float(lag[0]), float(noise[0])),
        float(lag[0]),
        float(noise[0]),
        validities(probe, cases, seen)[0],
    )


@dataclass(frozen=True)
class ValueMap:
    """The value of momentum, SGD's loss minus SGDM's, for rates (rows) and batch sizes (columns).

    ``bound`` is what its size does not exceed, see :class:`Validity`.
    """

    effective_lrs: Float64[np.ndarray, "lr"]
    batch_sizes: Int[np.ndarray, "batch"]
    value: Float64[np.ndarray, "lr batch"]
    valid: Bool[np.ndarray, "lr batch"]
    bound: Float64[np.ndarray, "lr batch"]
    reasons: tuple[tuple[str, ...], ...]


def value_map(
    probe: Probe,
    effective_lrs: Sequence[float],
    batch_sizes: Sequence[int],
    momentum: float = 0.9,
    *,
    num_steps: int,
    sampling: SamplingKind = "iid",
    warm: bool | None = None,
) -> ValueMap:
    """:func:`forecast` for every rate and batch size, without intervals.

    Cost: a tenth of a second for 100 cells of 100 steps.

    Raises:
        InputError: as :func:`forecast`.
    """
    rates, sizes = np.meshgrid(np.asarray(effective_lrs, dtype=float), np.asarray(batch_sizes), indexing="ij")
    cases = cases_of(probe, rates.ravel().tolist(), sizes.ravel().tolist(), momentum, num_steps, sampling)
    seen = outlook(probe, cases, _warm(probe, warm), (num_steps,), _MAP_NODES)
    lag, noise = _parts(seen)
    found = validities(probe, cases, seen)
    return ValueMap(
        rates[:, 0].copy(),
        sizes[0].copy(),
        (lag + noise).reshape(rates.shape),
        np.array([each.valid for each in found]).reshape(rates.shape),
        np.array([each.bound for each in found]).reshape(rates.shape),
        tuple(
            tuple(each.reason for each in found[row * sizes.shape[1] : (row + 1) * sizes.shape[1]])
            for row in range(len(rates))
        ),
    )


def _warm(probe: Probe, warm: bool | None) -> bool:
    """Whether the optimizer's momentum goes on: by default where the probe was given it.

    Raises:
        InputError: it should, but the probe or its path ahead was made without.
    """
    warm = probe.buffer is not None if warm is None else warm
    if warm and probe.buffer is None:
        raise InputError("warm is True, but the probe was given no buffer: probe(..., buffer=optimizer)")
    if warm and probe.path and probe.path[0].warm_lag is None:
        raise InputError(
            "the probe was given a buffer, but its path ahead was followed without: look_ahead(..., buffer=optimizer), "
            "or warm=False for a cold start"
        )
    return warm


def _parts(seen: Outlook) -> tuple[Float64[np.ndarray, "case"], Float64[np.ndarray, "case"]]:
    """What the value owes to the mean, and to noise, at the end."""
    with np.errstate(invalid="ignore"):
        lag = seen.mean_sgd[-1] - seen.mean_sgdm[-1]
        noise = (seen.excess_sgd[-1] - seen.excess_sgdm[-1]).mean(axis=1)
    return lag, noise


def _value(probe: Probe, seen: Outlook, lag: float, noise: float) -> Estimate:
    """With the interval from the spread over noise vectors, the interval of tr Σ, and that of ‖g‖²."""
    value = lag + noise
    if not math.isfinite(value):
        return Estimate(math.nan, -math.inf, math.inf, 0)
    # What varies between vectors beside their norms, whose mean is known to be tr Σ.
    each = seen.excess_sgd[-1, 0] - seen.excess_sgdm[-1, 0] - noise * seen.masses[0]
    spread = float(each.std(ddof=1)) / math.sqrt(len(each)) if len(each) > 1 else 0.0
    half = math.hypot(
        Z95 * spread,
        _uncertain(noise, probe.trace_noise),
        _uncertain(lag, probe.gradient_norm_squared) if probe.gradient_noise_share > 0 else 0.0,
    )
    return Estimate(value, value - half, value + half, len(each))


def _uncertain(part: float, by: Estimate) -> float:
    """What a part that is proportional to an estimate may be off by."""
    width = (by.high - by.low) / 2
    if part == 0 or width == 0:
        return 0.0
    return abs(part) * width / by.value if math.isfinite(width) and by.value > 0 else math.inf


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
