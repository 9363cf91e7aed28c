"""Rows of a text task: from Parquet files in a folder, or from the Hugging Face hub."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightball.errors import InputError, reason_of
from lightball.workloads.data_folder import VARIABLE, data_folder
from lightball.workloads.text.tasks import Split, TextTask

if TYPE_CHECKING:
    import pyarrow as pa

_CONVERTED = "refs/convert/parquet"  # the branch with Parquet files of data sets that are a script on the hub
_BRACKETS = (("-lrb-", "("), ("-rrb-", ")"))


@dataclass(frozen=True)
class Rows:
    """Texts, one or two a row, and labels as numbers."""

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Iterable[int]) -> Rows:
        """Those rows, in that order."""
        chosen = list(rows)
        return Rows(tuple(self.texts[i] for i in chosen), tuple(self.labels[i] for i in chosen))


def root_of(data: str | Path | None) -> Path | None:
    """The folder with the data sets, ``data`` or else what LIGHTBALL_DATA names; None: they come from the hub."""
    given = data or os.environ.get(VARIABLE)
    return Path(given).absolute() if given else None


def read(task: TextTask, split: Split, data: str | Path | None = None) -> Rows:
    """The labelled rows of a split, from the folder where one is known and else from the hub.

    Rows without a label are left out. Brackets, in some copies of a task written ``-lrb-`` and ``-rrb-``, are ``( )``.

    Raises:
        InputError: the folder lacks the files, a file is not as expected, or the hub cannot be reached.
    """
    return _read(task, split, root_of(data))


@cache
def _read(task: TextTask, split: Split, root: Path | None) -> Rows:
    if root is None:
        return rows_of([_from_hub(task, split)], task, f"{task.hub} on the hub")
    folder = data_folder(task.name, root)
    found = [sorted(folder.glob(pattern)) for pattern in split.files]
    if not found[0]:
        raise InputError(f"{str(folder)!r} holds no file {split.files[0]}, which task {task.name!r} is read from")
    return rows_of([read_table(file, task) for files in found for file in files], task, repr(str(folder)))


def read_table(file: Path, task: TextTask, more: Sequence[str] = ()) -> pa.Table:
    """The columns of the task, and ``more``, of a Parquet file.

    Raises:
        InputError: it cannot be read, or lacks one of them.
    """
    import pyarrow.parquet as parquet

    columns = [*more, *task.columns, task.label_column]
    try:
        return parquet.read_table(file, columns=columns).select(columns)
    except (OSError, ValueError, KeyError) as error:  # Arrow's own errors are of these kinds
        raise InputError(f"cannot read {str(file)!r} with columns {', '.join(columns)}: {reason_of(error)}") from error


def rows_of(tables: Sequence[pa.Table], task: TextTask, origin: str) -> Rows:
    """The labelled rows of tables, one after the other.

    Raises:
        InputError: a label that the task does not have, or no labelled row.
    """
    texts: list[tuple[str, ...]] = []
    labels: list[int] = []
    for table in tables:
        columns = [table[name].to_pylist() for name in task.columns]
        for label, *row in zip(table[task.label_column].to_pylist(), *columns, strict=True):
            if label is None or label == -1:
                continue
            if label not in range(len(task.labels)):
                raise InputError(
                    f"{origin} has a label {label!r} in column {task.label_column}, but task {task.name!r} has labels "
                    f"0 to {len(task.labels) - 1} ({', '.join(task.labels)})"
                )
            texts.append(tuple(_text(value) for value in row))
            labels.append(int(label))
    if not labels:
        raise InputError(f"{origin} has no row with a label for task {task.name!r}")
    return Rows(tuple(texts), tuple(labels))


def _text(value: str | None) -> str:
    text = value or ""
    for written, bracket in _BRACKETS:
        text = text.replace(written, bracket)
    return text


def _from_hub(task: TextTask, split: Split) -> pa.Table:
    other = f"or set {VARIABLE} to a folder that holds {task.name}/"
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise InputError(
            f"task {task.name!r} comes from the Hugging Face hub, which needs datasets: "
            f"pip install 'lightball[text]', {other}"
        ) from error
    try:
        try:
            found = datasets.load_dataset(task.hub, task.config, split=split.name)
        except RuntimeError:  # newer versions run no scripts
            found = datasets.load_dataset(task.hub, task.config, split=split.name, revision=_CONVERTED)
        return found.select_columns([*task.columns, task.label_column]).with_format("arrow")[:]
    except Exception as error:  # of the network, of the hub, of datasets: there is no common kind
        raise InputError(
            f"cannot load {task.hub} ({split.name}) from the Hugging Face hub: {reason_of(error)} "
            f"(look at the network, {other})"
        ) from error
