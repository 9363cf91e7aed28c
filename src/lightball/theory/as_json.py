"""Errors and orders as plain numbers; null for what is not known or infinite."""

from __future__ import annotations

import math
from typing import Any

from lightball.dynamics.weak_error import WeakError
from lightball.stats import OrderFit, Slope


def slope_json(slope: Slope | None) -> dict[str, Any]:
    """``{"order", "ci95": [low, high]}``."""
    return {"order": slope and slope.order, "ci95": slope and list(slope.ci95)}


def points_json(error: WeakError, found: OrderFit) -> list[dict[str, Any]]:
    """``[{"eta", "error", "se", "used"}]``."""
    columns = zip(error.etas, error.errors, error.standard_errors, found.used, strict=True)
    return [{"eta": eta, "error": finite(e), "se": finite(se), "used": used} for eta, e, se, used in columns]


def mean_json(mean: float, se: float) -> dict[str, float | None]:
    """``{"mean", "se"}``."""
    return {"mean": finite(mean), "se": finite(se)}


def finite(value: float) -> float | None:
    """The number, or None for one that is not finite."""
    return value if math.isfinite(value) else None
