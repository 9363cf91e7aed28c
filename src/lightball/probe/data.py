"""Which batches a probe takes for what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from lightball.errors import InputError
from lightball.probe.batches import Batch, num_examples
from lightball.probe.examples import sliced

ENOUGH_EXAMPLES = 256
"""As many examples make the curvature batch where the user names none."""


def batches_of(data: Iterable[Batch], what: str = "data") -> list[Batch]:
    """The batches in a list, each with at least one example.

    Raises:
        InputError: not a collection of batches, or none in it.
    """
    if isinstance(data, Tensor | Mapping | str | bytes) or not isinstance(data, Iterable):
        raise InputError(
            f"{what} is a {type(data).__name__}, but must be a list of batches (or a data loader): "
            "cut the examples into microbatches, such as [(inputs[:32], targets[:32]), …]"
        )
    batches = list(data)
    if not batches:
        raise InputError(f"{what} holds no batches, but must hold at least one")
    for batch in batches:
        num_examples(batch)
    return batches


def curvature_batches_of(data: Sequence[Batch], wanted: int | Iterable[Batch] | None) -> list[Batch]:
    """The batches for curvature: so many of ``data``, evenly spaced, or those given, or enough for 256 examples.

    Raises:
        InputError: more than there are, fewer than one, or no batches.
    """
    if wanted is None:
        sizes = [num_examples(batch) for batch in data]
        count = next((n for n in range(1, len(data)) if sum(sizes) * n >= ENOUGH_EXAMPLES * len(data)), len(data))
    elif isinstance(wanted, int):
        count = wanted
    else:
        return batches_of(wanted, "curvature_batches")
    if not 1 <= count <= len(data):
        raise InputError(
            f"curvature_batches is {count}, but must be from 1 to the number of batches in data, {len(data)}: "
            "give more data, or batches for curvature alone"
        )
    return [data[(2 * i + 1) * len(data) // (2 * count)] for i in range(count)]


def halves_of(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]] | None:
    """The batches in two parts of about the same size; a lone batch is cut in two; None for a lone example."""
    if len(batches) > 1:
        return list(batches[::2]), list(batches[1::2])
    count = num_examples(batches[0])
    if count < 2:
        return None
    return [sliced(batches[0], 0, count // 2)], [sliced(batches[0], count // 2, count)]


def check_counts(**counts: Any) -> None:
    """Raise unless each is an integer and at least as large as its name requires: two vectors, one of all else."""
    for name, count in counts.items():
        least = 2 if name.endswith("vectors") else 1
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            why = ", since an interval needs two" if least == 2 else ""
            raise InputError(f"{name} is {count!r}, but must be an integer of at least {least}{why}")
