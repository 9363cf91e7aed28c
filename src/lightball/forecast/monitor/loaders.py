"""What data loaders say about themselves."""

from __future__ import annotations

from typing import Any


def dataset_size(loader: Any) -> int | None:
    """The number of examples of a loader's dataset; None where it does not say, as of a stream."""
    try:
        size = len(loader.dataset)
    except (TypeError, AttributeError, NotImplementedError):
        return None
    return size if size > 1 else None
