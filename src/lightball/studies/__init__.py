"""Studies: paired comparisons of SGD and SGDM, planned, tuned, confirmed and stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Plan", "Result", "Settings", "as_json", "compare"]

if TYPE_CHECKING:
    from lightball.studies.api import compare
    from lightball.studies.plan import Plan
    from lightball.studies.result import Result
    from lightball.studies.result_json import as_json
    from lightball.studies.settings import Settings

_HOMES = {"Plan": "plan", "Result": "result", "Settings": "settings", "as_json": "result_json", "compare": "api"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"lightball.studies.{_HOMES[name]}"), name)
