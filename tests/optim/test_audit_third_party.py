"""Optimizers of others, as far as they are installed."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from lightball.optim.auditing import Audited, audit


def params() -> list[nn.Parameter]:
    return list(nn.Linear(6, 4).parameters())


def found_of(package: str, name: str, **settings: Any) -> Audited:
    module = pytest.importorskip(package, reason=f"{package} is not installed")
    (found,) = audit(getattr(module, name)(params(), **settings))
    return found


def test_schedule_free() -> None:
    sgd = found_of("schedulefree", "SGDScheduleFree", lr=1.0)
    assert (sgd.family, sgd.notes[0]) == ("linear, other", "the same gradient has another effect at a later step")
    adamw = found_of("schedulefree", "AdamWScheduleFree")
    assert (adamw.family, adamw.nonlinearity) == ("not linear", "adaptive")


def test_lion() -> None:
    found = found_of("lion_pytorch", "Lion", weight_decay=0.1)
    assert (found.family, found.nonlinearity, found.decoupled) == ("not linear", "sign", True)
    assert found.weight_decay == pytest.approx(0.1, rel=1e-6)


def test_heavyball() -> None:
    found = found_of("heavyball", "SGD", lr=0.1, beta=0.9)
    assert (found.family, found.momentum_active) == ("sgdm", True)
    assert (found.effective_lr, found.momentum) == pytest.approx((1.0, 0.9), rel=1e-5)


def test_sgdw_of_pytorch_optimizer_has_its_momentum_or_is_caught() -> None:
    """With foreach, version 3.11 ignores its momentum and 4.1 does not; the audit must say which it is."""
    found = found_of("pytorch_optimizer", "SGDW", lr=0.1, momentum=0.9, foreach=True)
    caught = "the group says momentum 0.9, but its steps have none" in found.notes
    assert (found.family, found.momentum, caught) in [("sgdm", pytest.approx(0.9), False), ("sgd", 0.0, True)]
