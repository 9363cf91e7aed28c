"""Curves that can be watched while a run goes on: a file of JSON lines, and TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from lightball.errors import InputError
from lightball.training.history import Point

Sink = Callable[[Point], None]
"""Takes each point as soon as it is measured."""


@contextmanager
def curve_file(path: Path, points: Sequence[Point]) -> Iterator[Sink]:
    """One JSON object for each point, flushed at once; a value that is not finite is null.

    The file begins with ``points``, those of the checkpoint that a run goes on from, and what it held is gone: points
    after that checkpoint are measured again.
    """
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(map(_line, points)), encoding="utf-8")
    temporary.replace(path)
    with path.open("a", encoding="utf-8") as file:

        def write(point: Point) -> None:
            file.write(_line(point))
            file.flush()

        yield write


@contextmanager
def tensorboard_events(folder: Path, points: Sequence[Point]) -> Iterator[Sink]:
    """Scalars ``train_loss``, ``validation_accuracy`` and ``test_accuracy`` by step, beginning with ``points``.

    Raises:
        InputError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard is True, but TensorBoard is not installed: pip install lightball[tensorboard]"
        ) from error
    # purge_step 0: readers drop the events of earlier processes, whose points follow here again.
    with SummaryWriter(str(folder), purge_step=0) as writer:

        def write(point: Point) -> None:
            for name in ("train_loss", "validation_accuracy", "test_accuracy"):
                if (value := getattr(point, name)) is not None:
                    writer.add_scalar(name, value, point.step)
            writer.flush()

        for point in points:
            write(point)
        yield write


def _line(point: Point) -> str:
    values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(point).items()}
    return json.dumps(values) + "\n"
