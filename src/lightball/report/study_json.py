"""What a folder tells of a study, as one JSON object."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lightball.report.answer import headline
from lightball.studies.result_json import as_json
from lightball.studies.study import Study


def study_json(study: Study) -> dict[str, Any]:
    """As :func:`lightball.studies.as_json` of its result so far, with the answer and how far the study is."""
    value = as_json(study.result)
    runs = {"finished": study.num_runs, "crashed": study.result.crashed_runs}
    unfinished = [
        {
            "batch_size": batch.batch_size,
            "tuned": len(batch.tuned),
            "confirmed": len(batch.confirmed),
            "rates_selected": bool(batch.choices),
            "stopped": batch.stopped,
        }
        for batch in study.batches
        if not batch.finished
    ]
    return {
        **value,
        "answer": headline(study),
        "finished": study.finished,
        "unfinished": unfinished,
        "runs": runs,
        "seconds": study.seconds,
        "damaged": [asdict(damage) for damage in study.damaged],
    }
