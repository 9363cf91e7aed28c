"""Small tables for the tests of figures, and what a figure shows of them once it is drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa

from lightball.report.curves import CURVES, PAIRS
from lightball.report.figures import svg
from lightball.report.tables import DIFFERENCES, RATES, SPEED, label_of

SVG = "{http://www.w3.org/2000/svg}"
BLUE, VERMILION = "#0072B2", "#D55E00"


def rule(batch_size: int, momentum: float) -> dict[str, Any]:
    name = "SGDM" if momentum else "SGD"
    return {"batch_size": batch_size, "rule": name, "momentum": momentum, "label": label_of(momentum)}


def rate(momentum: float, eta: float, loss: float | None, **more: Any) -> dict[str, Any]:
    """A row of rates: a loss with a range of 20 % around it, an accuracy that falls with the loss."""
    known = loss is not None
    losses = {"train_loss": loss, "train_loss_low": loss * 0.8, "train_loss_high": loss * 1.2} if known else {}
    names = ("test_accuracy", "test_accuracy_low", "test_accuracy_high")
    accuracies = dict(zip(names, (0.95, 0.9, 0.97), strict=True)) if known else {}
    counts = {"runs": 16, "failed": 0, "crashed": 0, "phase": "confirmation", "selected": False, "stable": False}
    return {**rule(32, momentum), "effective_lr": eta, **counts, **losses, **accuracies, **more}


def rates(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), RATES)


def two_rules() -> pa.Table:
    """Three rates a rule; SGD fails at the last one; both rules are free of failures up to 0.4."""
    sgd = [rate(0.0, 0.2, 0.1), rate(0.0, 0.4, 0.05, selected=True, stable=True), rate(0.0, 0.8, 2.0, failed=3)]
    sgdm = [rate(0.9, 0.2, 0.1), rate(0.9, 0.4, 0.04, selected=True, stable=True), rate(0.9, 0.8, 2.1, failed=16)]
    return rates([*sgd, *sgdm])


def difference(batch_size: int, mean: float | None, half: float = 0.0, **more: Any) -> dict[str, Any]:
    """A row of differences in loss with a margin of 0.02."""
    row: dict[str, Any] = {"batch_size": batch_size, "momentum": 0.9, "measure": "train_loss", "mean": mean}
    if mean is not None:
        row |= {"low": mean - half, "high": mean + half}
    return {**row, "confidence": 0.99, "margin": 0.02, "verdict": "no value", "pairs": 16, **more}


def differences(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), DIFFERENCES)


def speeds(momenta: Sequence[float] = (0.9,), batch_sizes: Sequence[int] = (8, 32)) -> pa.Table:
    rows = []
    for size in batch_sizes:
        for beta in momenta:
            rows.append({**rule(size, 0.0), "momentum": beta, "level": 0.01, "epochs": 24.0 + beta})
            rows.append({**rule(size, beta), "level": 0.01, "epochs": 12.0 + beta})
    return pa.Table.from_pylist(rows, SPEED)


def curves(epochs: int = 4, last: float = 0.01, momenta: Sequence[float] = (0.0, 0.9)) -> pa.Table:
    """Losses from 2 down to ``last``, an equal factor an epoch."""
    rows = []
    for beta in momenta:
        for k in range(epochs + 1):
            loss = last if k == epochs else 2.0 * (max(last, 0.01) / 2.0) ** (k / epochs)
            ends = {"low": loss * 0.9, "high": loss * 1.1}
            rows.append({**rule(32, beta), "epoch": float(k), "loss": loss, **ends, "runs": 3})
    return pa.Table.from_pylist(rows, CURVES)


def pairs(count: int = 3, losses: Sequence[float] = (2.0, 0.2, 0.02)) -> pa.Table:
    epochs = [float(k) for k in range(len(losses))]
    rows = [
        {**rule(32, beta), "pair": pair, "epoch": epochs, "loss": list(losses)}
        for beta in (0.0, 0.9)
        for pair in range(1, count + 1)
    ]
    return pa.Table.from_pylist(rows, PAIRS)


def spec(chart: Any) -> dict[str, Any]:
    """The specification, which Altair checks against the schema of Vega-Lite, and which JSON can hold strictly."""
    made: dict[str, Any] = json.loads(json.dumps(chart.to_dict(validate=True), allow_nan=False))
    return made


def layer(chart: Any, name: str) -> dict[str, Any]:
    """One layer of the specification."""
    (found,) = (part for part in spec(chart)["layer"] if part.get("name") == name)
    return found


def rows_of(chart: Any, name: str) -> list[dict[str, Any]]:
    """The rows that a layer is given."""
    made = spec(chart)
    (found,) = (part for part in made["layer"] if part.get("name") == name)
    rows: list[dict[str, Any]] = made["datasets"][found["data"]["name"]]
    return rows


def scales(chart: Any, channel: str) -> set[str]:
    """The types of the scales of x or y."""
    encodings = (part["encoding"].get(channel, {}) for part in spec(chart)["layer"])
    return {encoding["scale"]["type"] for encoding in encodings if "scale" in encoding}


def drawn(chart: Any) -> ElementTree.Element:
    """The chart as it is exported."""
    return ElementTree.fromstring(svg(chart))


def marks(chart: Any, name: str) -> list[ElementTree.Element]:
    """The shapes that are drawn for a layer."""
    groups = [group for group in drawn(chart).iter(f"{SVG}g") if f"{name}_marks" in group.get("class", "").split()]
    return [shape for group in groups for shape in group if shape.tag in (f"{SVG}path", f"{SVG}line")]


def texts(chart: Any, role: str) -> list[str]:
    """What is written in one role of Vega's, such as ``axis-label``, and can be seen."""
    return [text for text, _ in placed_texts(chart, role)]


def placed_texts(chart: Any, role: str) -> list[tuple[str, float]]:
    """What is written in one role of Vega's, and how far down its base line is in its group."""
    groups = [group for group in drawn(chart).iter(f"{SVG}g") if f"role-{role}" in group.get("class", "").split()]
    shown = [text for group in groups for text in group.iter(f"{SVG}text") if text.get("opacity") != "0"]
    return [("".join(text.itertext()), place(text)[1]) for text in shown if text.text or len(text)]


def place(mark: ElementTree.Element) -> tuple[float, float]:
    """Where a mark is moved to."""
    numbers = mark.get("transform", "").partition("(")[2].partition(")")[0].split(",")
    return float(numbers[0]), float(numbers[1])


def colours(chart: Any) -> set[str]:
    """All colours of marks."""
    groups = [group for group in drawn(chart).iter(f"{SVG}g") if "role-mark" in group.get("class", "").split()]
    found = {mark.get(name) for group in groups for mark in group.iter() for name in ("fill", "stroke")}
    return {colour for colour in found if colour not in (None, "none", "transparent")}


def finite(value: Any) -> bool:
    """Whether a specification holds no number that is not finite."""
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)
