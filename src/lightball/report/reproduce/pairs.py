"""Pairs of SGD and SGDM at several values of something, such as ℓ: tables, and the gaps as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightball.report.figures.series import Series, series_chart
from lightball.report.numbers import UNKNOWN
from lightball.report.page import Badge, Figure, Figures, Table
from lightball.report.reproduce.common import listed, percent, points
from lightball.reproduce.pairs import RULES, Mean, Pairs
from lightball.stats import Interval
from lightball.studies.result import JUDGED, Judged

MEASURES: tuple[Judged, ...] = ("test_accuracy", "train_loss")
SLUGS: Mapping[Judged, str] = {"test_accuracy": "accuracy", "train_loss": "loss"}
_UNITS: Mapping[Judged, str] = {"test_accuracy": "points", "train_loss": "nats"}


def scale(measure: Judged) -> int:
    """Accuracies are shown in per cent."""
    return 100 if measure == "test_accuracy" else 1


def ahead(gaps: Mapping[Judged, Interval]) -> str:
    """Which rule is ahead in which measure, and by how much, where the intervals tell it."""
    by_rule: dict[str, list[str]] = {}
    for measure in MEASURES:
        gap = gaps[measure]
        size = f"{points(abs(gap.mean)).lstrip('+')} points" if measure == "test_accuracy" else f"{abs(gap.mean):.3g}"
        told = not gap.low <= 0 <= gap.high
        rule = "" if not told else "SGDM" if gap.mean > 0 else "SGD"
        by_rule.setdefault(rule, []).append(f"by {size} in {JUDGED[measure]}" if told else JUDGED[measure])
    return ", and ".join(
        f"{rule} is ahead {listed(said)}" if rule else f"the two cannot be told apart in {listed(said)}"
        for rule, said in by_rule.items()
    )


def failures(name: str, found: Sequence[Pairs]) -> list[str]:
    """A sentence on the runs that failed, if any did."""
    failed = [
        f"{count} of {one.count} of {rule} at {name} {one.at}"
        for one in found
        for rule, count in one.failed.items()
        if count
    ]
    return [f"Runs failed, and score what the untrained model does: {listed(failed)}."] if failed else []


def pairs_table(name: str, found: Sequence[Pairs], measure: Judged) -> Table:
    """What each rule scores, and the gap with its interval and verdict; ``name`` is what varies."""
    head = (name, *RULES, "gap (95 %)", "verdict")
    rows = tuple(
        (
            f"{one.at}",
            *(_score(one.scores[rule][measure], measure) for rule in RULES),
            with_interval(one.gaps[measure], measure),
            _verdict(one, measure),
        )
        for one in found
    )
    unit = " in %" if measure == "test_accuracy" else ""
    counts = sorted({one.count for one in found})
    counted = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    caption = (
        f"{JUDGED[measure].capitalize()}{unit}, mean ± standard error over {counted} seeds; gaps are positive where "
        "SGDM is ahead"
    )
    return Table(head, rows, caption, numeric=tuple(range(len(head) - 1)))


def with_interval(gap: Interval, measure: Judged) -> str:
    """A difference, accuracies in points: +0.10 (−0.52, +0.71)."""

    def shown(value: float) -> str:
        return points(value) if measure == "test_accuracy" else f"{value + 0.0:+.4f}".replace("-", "−")

    return f"{shown(gap.mean)} ({shown(gap.low)}, {shown(gap.high)})"


def gap_figures(stem: str, name: str, found: Sequence[Pairs]) -> Figures:
    """The gap in each measure against what varies."""
    return Figures(tuple(_gap_figure(stem, name, found, measure) for measure in MEASURES))


def _gap_figure(stem: str, name: str, found: Sequence[Pairs], measure: Judged) -> Figure:
    gaps = [one.gaps[measure] for one in found]
    columns = zip(*((gap.mean, gap.low, gap.high) for gap in gaps), strict=True)
    mean, low, high = ([scale(measure) * value for value in column] for column in columns)
    chart = series_chart(
        [Series("gap", [one.at for one in found], mean, low, high, colour="limit", mark="joined")],
        x=name,
        y=f"gap in {JUDGED[measure]} ({_UNITS[measure]})",
        log_x=True,
        level=0.0,
        description=f"The gap in {JUDGED[measure]} between SGDM and SGD against {name}, with 95 % intervals; above 0 "
        "SGDM is ahead.",
    )
    caption = f"Gap in {JUDGED[measure]} at the end; above 0 SGDM is ahead. Bars are 95 % intervals."
    return Figure(f"{stem}-gap-{SLUGS[measure]}", chart, caption)


def _score(score: Mean, measure: Judged) -> str:
    if measure == "test_accuracy":
        return f"{percent(score.mean, 2)} ± {percent(score.se, 2)}"
    return f"{score.mean:.4f} ± {score.se:.4f}"


def _verdict(one: Pairs, measure: Judged) -> str | Badge:
    decision = one.decisions.get(measure)
    return Badge(str(decision.verdict), str(decision.verdict)) if decision else UNKNOWN
