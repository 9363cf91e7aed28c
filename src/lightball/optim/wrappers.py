"""Optimizers that are wrapped around another one, seen through."""

from __future__ import annotations

from torch.optim import Optimizer

_LAUNCHERS = {"accelerate", "lightning", "pytorch_lightning"}
"""Packages whose optimizers wrap the one that steps; they are not imported for it."""


def layers(optimizer: object) -> tuple[object, ...]:
    """The optimizer as it was given, what it wraps, and so on to the innermost; one entry if it is no wrapper.

    Seen through are `lightball.optim.SVAG`, the wrappers of accelerate (so those of Hugging Face's Trainer) and
    Lightning, and whatever is no `torch.optim.Optimizer` but holds one as ``.optimizer``.
    """
    found = [optimizer]
    while (inner := _inner(found[-1])) is not None and all(inner is not each for each in found):
        found.append(inner)
    return tuple(found)


def unwrapped(optimizer: object) -> object:
    """The innermost optimizer, the one whose groups and state are updated; the object itself if it is no wrapper."""
    return layers(optimizer)[-1]


def _inner(optimizer: object) -> Optimizer | None:
    homes = {base.__module__.partition(".")[0] for base in type(optimizer).__mro__}
    if isinstance(optimizer, Optimizer) and not homes & _LAUNCHERS and not _is_svag(optimizer):
        return None
    for name in ("optimizer", "_optimizer"):
        inner = getattr(optimizer, name, None)
        if isinstance(inner, Optimizer):
            return inner
    return None


def _is_svag(optimizer: Optimizer) -> bool:
    from lightball.optim.svag import SVAG

    return isinstance(optimizer, SVAG)
