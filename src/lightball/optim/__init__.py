"""SGD that can do without momentum: optimizers, what an optimizer really does, and conversion of a live one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["SGD", "SVAG", "Audited", "Dropped", "audit", "drop_momentum", "with_momentum"]

if TYPE_CHECKING:
    from lightball.optim.auditing import Audited, audit
    from lightball.optim.conversion import Dropped, drop_momentum, with_momentum
    from lightball.optim.sgd import SGD
    from lightball.optim.svag import SVAG

_HOMES = {
    "SGD": "lightball.optim.sgd",
    "SVAG": "lightball.optim.svag",
    "Audited": "lightball.optim.auditing",
    "audit": "lightball.optim.auditing",
    "Dropped": "lightball.optim.conversion",
    "drop_momentum": "lightball.optim.conversion",
    "with_momentum": "lightball.optim.conversion",
}


def __getattr__(name: str) -> Any:
    """Public names, imported when first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lightball.optim' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
