"""All finished runs of a study as one table."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pyarrow as pa

from lightball.studies.runs import hash_of
from lightball.studies.store import study_file
from lightball.studies.store.chunk_file import METADATA
from lightball.studies.store.reading import read

_ORDER = ("batch_size", "effective_lr", "momentum", "phase", "seed", "chunk")


def load(folder: str | Path) -> pa.Table:
    """The finished runs in the folder of a study, one row a run, sorted; nothing in the folder is moved.

    The columns are batch_size, effective_lr, momentum, phase ("tune" or "confirm"), seed, failed, failed_at (a step),
    error (of a run that crashed), the untrained and final train_loss, validation_accuracy and test_accuracy, curve (the
    training loss before training and after each epoch) and chunk, the key of the chunk that the run was computed in. A
    run that was computed in two chunks, by commands that group runs differently, has two rows. The metadata of the
    schema holds the study and the versions as JSON, under the key ``lightball``.

    A file that is damaged or foreign is named by a warning and left out.

    Cost: 10,000 chunks take about a second, and once a few seconds more, where more than 200 were not read before.

    Raises:
        InputError: there is no such folder, it holds no study, a newer version wrote it, or a file cannot be read.
    """
    folder = Path(folder)
    study, damaged = study_file.find(folder)
    found = read(folder, hash_of(study["study"]))
    for damage in (*damaged, *found.damaged):
        warnings.warn(f"left out {str(folder / damage.name)!r}: {damage.reason}", stacklevel=2)
    table = found.rows.drop_columns("file").append_column("chunk", pa.array(found.keys, pa.string()))
    facts = {"study": study["study"], "versions": study.get("versions"), "format": study["format"]}
    by = [(name, "ascending") for name in _ORDER]
    return table.sort_by(by).replace_schema_metadata({METADATA: json.dumps(facts)})
