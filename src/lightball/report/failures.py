"""What failed in a study and why, as a table and as points."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from lightball.report.page import Listing, Section, Table
from lightball.report.tables import label_of
from lightball.studies.runs import Outcome, Run
from lightball.studies.store import Damage
from lightball.studies.study import BatchState, Study

_MOST = 60  # rows; lightball.load has every run
_LONGEST = 240  # characters of an error
_HEAD = ("batch size", "rule", "η", "seeds of", "failed", "why")


def failures(study: Study) -> Section:
    """Runs that diverged or crashed, files that are not believed, and where the comparison cannot go on."""
    rows = [row for batch in study.batches for phase, found in _phases(batch) for row in _rows(phase, found)]
    parts: list[Table | Listing] = []
    if rows:
        caption = "A failed run scores what the untrained model does, and its rate cannot be selected."
        if len(rows) > _MOST:
            caption += f" The first {_MOST} of {len(rows)} rows; lightball.load(DIR) has every run."
        parts.append(Table(_HEAD, tuple(rows[:_MOST]), caption, numeric=(2,)))
    stopped = [f"Batch size {b.batch_size} cannot go on: {_shortened(b.stopped)}" for b in study.batches if b.stopped]
    if points := [*stopped, *_damage(study.damaged)]:
        parts.append(Listing(tuple(points)))
    count = sum(o.failed for batch in study.batches for _, found in _phases(batch) for o in found.values())
    title = "What failed, and why" + (f": {count:,} run{'' if count == 1 else 's'}" if count else "")
    text = () if parts else ("No run failed, and every file of runs that is there is sound.",)
    return Section(title, text, tuple(parts), folded=bool(rows and study.result.batches and not points))


def _phases(batch: BatchState) -> tuple[tuple[str, Mapping[Run, Outcome]], ...]:
    return ("tuning", batch.tuned), ("confirmation", batch.confirmed)


def _rows(phase: str, found: Mapping[Run, Outcome]) -> Iterator[tuple[str, ...]]:
    groups: dict[tuple[float, float], list[Outcome]] = {}
    for run, outcome in sorted(found.items()):
        groups.setdefault((run.momentum, run.effective_lr), []).append(outcome)
    for (momentum, rate), outcomes in groups.items():
        failed = [o for o in outcomes if o.failed]
        if failed:
            size = str(failed[0].run.batch_size)
            yield size, label_of(momentum), f"{rate:g}", phase, f"{len(failed)} of {len(outcomes)}", _why(failed)


def _why(failed: Sequence[Outcome]) -> str:
    said = []
    crashed = Counter(_shortened(o.error) for o in failed if o.error)
    said += [f"{count} crashed: {error}" for error, count in crashed.most_common(2)]
    if len(crashed) > 2:
        said.append(f"{crashed.total() - sum(n for _, n in crashed.most_common(2))} crashed otherwise")
    lost = [o for o in failed if not o.error and not math.isfinite(o.final["train_loss"])]
    steps = [o.failed_at for o in lost if o.failed_at is not None]
    if lost:
        since = f", from step {median(steps):,.0f} (median)" if steps else ""
        said.append(f"{len(lost)} with a loss that was not finite{since}")
    no_better = len(failed) - crashed.total() - len(lost)
    if no_better:
        said.append(f"{no_better} ended no better than untrained")
    return "; ".join(said)


def _shortened(error: str) -> str:
    line = error.strip().partition("\n")[0]
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _damage(damaged: Sequence[Damage]) -> list[str]:
    points = [f"{damage.name} is not believed: {damage.reason}" for damage in damaged[:_MOST]]
    if len(damaged) > _MOST:
        points.append(f"{len(damaged) - _MOST:,} more damaged files")
    return points
