"""Curves that can be watched while a run goes on: a file of JSON lines, and TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from lightball.errors import InputError
from lightball.training.history import Point
from lightball.training.writing import writing

Sink = Callable[[Point], None]
"""Takes each point as soon as it is measured."""


@contextmanager
def curve_file(path: Path, points: Sequence[Point]) -> Iterator[Sink]:
    """One JSON object for each point, written at once; a value that is not finite is null.

    The file begins with ``points``, those of the checkpoint that a run goes on from, and what it held is gone: points
    after that checkpoint are measured again.

    Raises:
        InputError: it cannot be written, when it is begun or later.
    """
    temporary = path.with_suffix(".tmp")
    with writing("the curve", path):
        try:
            temporary.write_text("".join(map(_line, points)), encoding="utf-8")
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def write(point: Point) -> None:
        # Opened for each point, so that what closing the file may raise is raised here.
        with writing("the curve", path), path.open("a", encoding="utf-8") as file:
            file.write(_line(point))

    yield write


@contextmanager
def tensorboard_events(folder: Path, points: Sequence[Point]) -> Iterator[Sink]:
    """Scalars ``train_loss``, ``validation_accuracy`` and ``test_accuracy`` by step, beginning with ``points``.

    Raises:
        InputError: TensorBoard is not installed, or its events cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard is True, but TensorBoard is not installed: pip install lightball[tensorboard]"
        ) from error
    # purge_step 0: readers drop the events of earlier processes, whose points follow here again.
    with writing("TensorBoard's events to", folder):
        writer = SummaryWriter(str(folder), purge_step=0)

    def write(point: Point) -> None:
        with writing("TensorBoard's events to", folder):
            for name in ("train_loss", "validation_accuracy", "test_accuracy"):
                if (value := getattr(point, name)) is not None:
                    writer.add_scalar(name, value, point.step)
            writer.flush()

    try:
        for point in points:
            write(point)
        yield write
    except BaseException:
        with suppress(OSError):  # what ended the run is worth more
            writer.close()
        raise
    with writing("TensorBoard's events to", folder):
        writer.close()


def _line(point: Point) -> str:
    values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(point).items()}
    return json.dumps(values) + "\n"
