"""The page of the experiment on ImageNet: SGD and SGDM against the batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from lightball.report.figures.series import Series, series_chart
from lightball.report.making import making
from lightball.report.page import Figure, Figures, Page, Section, Table
from lightball.report.reproduce.common import listed, percent, rate
from lightball.report.reproduce.pairs import MEASURES, SLUGS, ahead, failures, gap_figures, pairs_table, scale
from lightball.reproduce.imagenet import REFERENCE, AtBatchSize, ImagenetResult, ImagenetSettings
from lightball.reproduce.pairs import RULES, Pairs
from lightball.stats.intervals import t_multiplier
from lightball.studies.result import JUDGED, Judged

_PUBLISHED = "23.60 ± 0.12 % at B = 256 and 23.74 ± 0.09 % at 8,192"


def imagenet_page(result: ImagenetResult) -> Page:
    """Scores and gaps by batch size, the rates that were selected, and how to make it again."""
    given = result.settings
    return Page(
        title=f"ImageNet with ResNet-{given.depth}",
        answer=_answer(result),
        lead=(_lead(given), *_notes(result)),
        notice="" if result.finished else _unfinished(result),
        sections=(
            *([_about_pairs(result)] if result.pairs else []),
            *([_rates(result)] if any(batch.choice for batch in result.batches) else []),
            making([(field.name.replace("_", "-"), _shown(getattr(given, field.name))) for field in fields(given)]),
        ),
    )


def _answer(result: ImagenetResult) -> str:
    if not result.pairs:
        return "There are no pairs to compare yet."
    by_said: dict[str, list[str]] = {}
    for one in result.pairs:
        by_said.setdefault(ahead(one.gaps), []).append(f"{one.at:,}")
    said = [f"at batch size {listed(sizes)} {what}" for what, sizes in by_said.items()]
    return f"{said[0][0].upper()}{'; '.join(said)[1:]}."


def _lead(given: ImagenetSettings) -> str:
    return (
        f"ResNet-{given.depth} at {given.size} × {given.size} pixels by the recipe of Goyal et al. (arXiv:1706.02677), "
        f"{given.epochs} epochs, BatchNorm in groups of {given.bn_group}. SGDM (β = {given.momentum:g}) takes the rate "
        "that was best for it by validation accuracy, at each batch size; SGD takes the same effective rate."
    )


def _notes(result: ImagenetResult) -> list[str]:
    said = []
    if edges := [f"{batch.batch_size:,}" for batch in result.batches if batch.choice and batch.choice.at_edge]:
        at = f"at batch size {listed(edges)}"
        said.append(f"SGDM's rate lies at the edge of its grid {at}: a wider one may have a better rate.")
    return [*said, *failures("batch size", result.pairs)]


def _unfinished(result: ImagenetResult) -> str:
    begun = {one.at: one.count for one in result.pairs}
    pairs = listed([f"{begun.get(b, 0)} at batch size {b:,}" for b in result.settings.batch_sizes])
    return f"Not finished: of {result.settings.seeds} pairs there are {pairs}. The same command goes on."


def _about_pairs(result: ImagenetResult) -> Section:
    tables = (pairs_table("batch", result.pairs, measure) for measure in MEASURES)
    figures = Figures(tuple(_scores(result.pairs, measure) for measure in MEASURES))
    text = (_published(result.settings),)
    return Section(
        "SGD and SGDM by batch size", text, (*tables, figures, gap_figures("imagenet", "batch size", result.pairs))
    )


def _published(given: ImagenetSettings) -> str:
    same = (given.depth, given.size, given.epochs, given.hub) == (50, 224, 90, ImagenetSettings.hub)
    but = "" if same else ", with ResNet-50, 90 epochs and 224 × 224 pixels on ImageNet, which these runs are not"
    return f"Published for SGDM, as the error of one crop: {_PUBLISHED} (arXiv:1706.02677){but}."


def _scores(found: Sequence[Pairs], measure: Judged) -> Figure:
    series = []
    for rule in RULES:
        scores = [(one.scores[rule][measure], t_multiplier(0.95, one.count)) for one in found]
        middle, low, high = (
            [scale(measure) * (score.mean + sign * t * score.se) for score, t in scores] for sign in (0, -1, 1)
        )
        series.append(Series(rule, [one.at for one in found], middle, low, high, colour=rule, mark="joined"))
    chart = series_chart(
        series,
        x="batch size (examples)",
        y="test accuracy (%)" if measure == "test_accuracy" else "training loss",
        log_x=True,
        description=f"The {JUDGED[measure]} of SGD and SGDM against the batch size, with 95 % intervals.",
    )
    caption = f"{JUDGED[measure].capitalize()} at the end, means with 95 % intervals."
    return Figure(f"imagenet-{SLUGS[measure]}", chart, caption)


def _rates(result: ImagenetResult) -> Section:
    rows = tuple(row for batch in result.batches if batch.choice for row in _rates_at(batch, result.settings))
    head = ("batch", "η", "SGDM's γ", f"γ · {REFERENCE}/B", "validation accuracy (%)", "failed", "")
    return Section("SGDM's rates", (), (Table(head, rows, "SGDM on tuning seeds", numeric=(0, 1, 2, 3, 4)),))


def _rates_at(batch: AtBatchSize, given: ImagenetSettings) -> list[tuple[str, ...]]:
    choice = batch.choice
    return [
        (
            f"{batch.batch_size}",
            rate(one.effective_lr),
            f"{one.effective_lr * (1 - given.momentum):.3g}",
            f"{given.lr_at_reference(one.effective_lr, batch.batch_size):.3g}",
            percent(one.mean, 2),
            f"{one.failed} of {one.runs}",
            "selected" if choice and one.effective_lr == choice.effective_lr else "",
        )
        for one in (choice.scores if choice else ())
    ]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{one:g}" for one in value)
    return "as it comes" if value is None else str(value)
