"""The page of a comparison: its sections, from what the folder of a study tells."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from lightball.report import curves, figures, numbers, tables
from lightball.report.answer import headline, is_reported, unfinished
from lightball.report.failures import failures
from lightball.report.notes import notes
from lightball.report.page import Badge, Figure, Figures, Listing, Page, Part, Section, Table
from lightball.report.settings import making, settings
from lightball.studies.plan import in_words
from lightball.studies.result import JUDGED, BatchResult, Judged, Pairing
from lightball.studies.study import Study

_HEAD = ("batch size", "β", "verdict", "value of momentum", "SGD", "SGDM", "η of SGD", "η of SGDM")
_MANY_NOTES = 12


def comparison_page(study: Study, reload_seconds: int | None = None) -> Page:
    """Everything that a study tells, the answer first.

    Args:
        reload_seconds: how often the page loads itself again, while the study runs.
    """
    asked = study.request
    with figures.unchecked():
        sections = (_verdict(study), _notes(study), _value(study), _rates(study), _curves(study), failures(study))
    return Page(
        title=f"Does {asked.task} need momentum?",
        answer=headline(study),
        lead=(_lead(study),),
        sections=(*(s for s in sections if s.text or s.parts), settings(study), making(study)),
        notice="" if study.finished else _notice(study),
        reload_seconds=reload_seconds,
    )


def _lead(study: Study) -> str:
    asked = study.request
    betas = numbers.listed(asked.settings.momentum)
    number = asked.settings.epochs
    epochs = f", {number} epoch{'' if number == 1 else 's'} each" if asked.plan.steps else ""
    took = f", computed in {in_words(study.seconds)}" if study.seconds else ""
    what = (
        f"SGD against SGD with momentum (SGDM, β = {betas}) at matched effective learning rates: "
        f"{study.num_runs:,} training runs{epochs}{took}."
    )
    if not tables.differences(study).num_rows:
        return what
    shared = "their initial weights and the order of their data"
    shared = "the seed that the script is told" if asked.settings.engine == "command" else shared
    return f"{what} Rates were tuned on other seeds than the verdicts rest on: pairs of fresh runs that share {shared}."


def _notice(study: Study) -> str:
    fewest, most = study.request.plan.runs
    about = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    far = ". ".join(line[0].upper() + line[1:] for line in unfinished(study))
    now = datetime.now(UTC).strftime("%H:%M:%S UTC")
    runs = f"{study.num_runs:,} runs (planned were {about}, before grids grow)"
    return f"This study is not finished: at {now} it had {runs}. {far}."


def _verdict(study: Study) -> Section:
    """Intervals and a table for each measure."""
    result = study.result
    if not result.batches:
        return Section("The verdict")
    forests = tuple(_forests(study))
    text = "No rate could be selected for both rules, so that there is nothing to compare."
    if forests:
        text = (
            "Value of momentum is the mean difference of pairs, positive where momentum is better, with the interval "
            "that the verdict rests on. All intervals of a study hold together with 95 %."
        )
    parts: list[Part] = [Figures(forests)] if forests else []
    parts += [_table(study, measure) for measure in JUDGED if is_reported(result, measure)]
    return Section("The verdict", (text,), tuple(parts))


def _notes(study: Study) -> Section:
    """What the tables do not say; folded where it would stand between a reader and the figures."""
    points = tuple(note[0].upper() + note[1:] for note in notes(study.result))
    return Section("Notes", (), (Listing(points),) if points else (), folded=len(points) > _MANY_NOTES)


def _forests(study: Study) -> Iterator[Figure]:
    for measure, found in _by_measure(study):
        caption = (
            f"Paired differences in {JUDGED[measure]}, in units of the margin: the difference that does not matter. "
            "An interval inside the band says no value, one wholly beyond it helps or hurts. An axis that reaches far "
            "is logarithmic away from zero."
        )
        yield Figure(f"differences-{_stem(measure)}", figures.paired_differences(found, measure), caption)


def _table(study: Study, measure: Judged) -> Table:
    result = study.result
    decisions = [pairing.decisions.get(measure) for batch in result.batches for pairing in batch.pairings]
    values = [decision.margin for decision in decisions if decision]
    margin = f"; the margin is {numbers.margins(values, measure)}" if values else ""
    unit = "" if measure == "train_loss" else ", differences in points"
    rows = tuple(_row(batch, pairing, measure) for batch in result.batches for pairing in batch.pairings)
    caption = f"{JUDGED[measure].capitalize()} at the rates selected for each rule{unit}{margin}."
    return Table(_HEAD, rows, caption, numeric=(0, 1, 3, 4, 5, 6, 7))


def _row(batch: BatchResult, pairing: Pairing, measure: Judged) -> tuple[str | Badge, ...]:
    verdict = str(pairing.verdict(measure))
    return (
        str(batch.batch_size),
        f"{pairing.arm.momentum:g}",
        Badge(verdict, verdict) if measure in pairing.decisions else Badge("no verdict", "none"),
        numbers.difference(pairing.decisions.get(measure), measure),
        numbers.score(batch.sgd, measure),
        numbers.score(pairing.arm, measure),
        numbers.rate(batch.sgd),
        numbers.rate(pairing.arm),
    )


def _value(study: Study) -> Section:
    speed = tables.speed(study)
    charts = []
    for measure, found in _by_measure(study):
        caption = f"Value of momentum in {JUDGED[measure]}, with its interval; the grey band is the margin."
        charts.append(Figure(f"value-{_stem(measure)}", figures.value_by_batch_size(found, measure), caption))
    if speed.num_rows:
        caption = "Epochs until the mean training loss first reaches the final one of the rule that ends higher."
        charts.append(Figure("epochs-to-same-loss", figures.epochs_to_same_loss(speed), caption))
    return Section("The value of momentum by batch size", (), (Figures(tuple(charts)),) if charts else ())


def _rates(study: Study) -> Section:
    rates = tables.rates(study)
    by_batch = [(b, _at(rates, b)) for b in study.request.settings.batch_sizes]
    by_batch = [(b, found) for b, found in by_batch if found.num_rows]
    losses = [Figure(f"loss-by-rate-{b}", figures.loss_by_rate(found)) for b, found in by_batch]
    accuracies = [
        Figure(f"accuracy-by-rate-{b}", figures.accuracy_by_rate(found))
        for b, found in by_batch
        if found["test_accuracy"].null_count < found.num_rows
    ]
    text = (
        "Line and band: mean, smallest and largest over seeds, fresh ones where they are finished, else those of "
        "tuning. × marks a rate at which some run failed, be it while tuning (a failed run scores what the untrained "
        "model does), a dashed line the largest rate below those. A ring is the rate that was selected: the smallest "
        "that is, on the tuning seeds, as good as the best without failures, to a quarter of the margin.",
    )
    grids = tuple(Figures(tuple(charts)) for charts in (losses, accuracies) if charts)
    return Section("Learning rates", text if grids else (), grids)


def _curves(study: Study) -> Section:
    found = curves.curves(study)
    charts = tuple(
        Figure(f"curves-{b}", figures.training_curves(_at(found.means, b), _at(found.pairs, b)))
        for b in study.request.settings.batch_sizes
        if _at(found.means, b).num_rows
    )
    thinned = f" To keep this page small, {found.thinned}." if found.thinned else ""
    text = (
        "Training loss of the confirmation runs at the selected rates: mean, and band from the smallest to the largest "
        f"over seeds. Tick single pairs to see the runs, and point at one to find its partner.{thinned}",
    )
    return Section("Training curves", text if charts else (), (Figures(charts),) if charts else ())


def _by_measure(study: Study) -> Iterator[tuple[Judged, pa.Table]]:
    """The differences in each measure that has any."""
    differences = tables.differences(study)
    for measure in JUDGED:
        found = _of(differences, "measure", measure)
        if found.num_rows:
            yield measure, found


def _at(table: pa.Table, batch_size: int) -> pa.Table:
    return _of(table, "batch_size", batch_size)


def _of(table: pa.Table, name: str, value: object) -> pa.Table:
    return table.filter(pc.equal(table[name], value))


def _stem(measure: Judged) -> str:
    return measure.replace("_", "-")
