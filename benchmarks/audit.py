"""What `lightball.optim.audit` says of optimizers of torch and of others: the table of docs/audit.md.

    python benchmarks/audit.py [--peers FOLDER]

FOLDER holds packages that are not in the environment, as ``pip install --target FOLDER --no-deps`` leaves them. What
is not installed is skipped, and said so. Exits with 1 if a number of torch's SGD is missed by more than 1e-6.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from lightball.optim.auditing import Audited, audit
from lightball.optim.auditing.auditor import UNSEEN

COUPLED = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("torch.optim", "SGD", COUPLED),
    ("torch.optim", "SGD", COUPLED | {"dampening": 0.5}),
    ("torch.optim", "SGD", COUPLED | {"nesterov": True}),
    ("lightball.optim", "SGD", COUPLED | {"convention": "canonical"}),
    ("lightball.optim", "SGD", {"lr": 0.1, "in_backward": True, "max_norm": 1.0}),
    *(("torch.optim", name, {"lr": 0.01}) for name in ("Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Rprop")),
    *(("torch.optim", name, {"lr": 0.01}) for name in ("Adafactor", "LBFGS", "ASGD")),
    ("schedulefree", "SGDScheduleFree", {"lr": 1.0}),
    ("schedulefree", "AdamWScheduleFree", {"lr": 0.01}),
    ("lion_pytorch", "Lion", {"lr": 0.01, "weight_decay": 0.1}),
    ("heavyball", "SGD", {"lr": 0.1, "beta": 0.9, "weight_decay": 0.01}),
    ("heavyball", "AdamW", {"lr": 0.01}),
    ("pytorch_optimizer", "SGDW", COUPLED | {"foreach": True}),
    ("pytorch_optimizer", "SGDW", COUPLED | {"foreach": False}),
    ("pytorch_optimizer", "QHM", {"lr": 0.1, "momentum": 0.9}),
    ("pytorch_optimizer", "AggMo", {"lr": 0.1}),
    ("pytorch_optimizer", "AccSGD", {"lr": 0.1}),
    ("pytorch_optimizer", "SignSGD", {"lr": 0.01}),
    ("pytorch_optimizer", "LARS", {"lr": 0.1}),
    ("pytorch_optimizer", "Lamb", {"lr": 0.01}),
]


def params() -> list[nn.Parameter]:
    return list(nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 1)).parameters())


def rows() -> Iterator[str]:
    yield "| optimizer | audit | η | β | decay | bytes | notes |"
    yield "|---|---|---|---|---|---|---|"
    for package, name, settings in CASES:
        said = ", ".join(f"{key} {value}" for key, value in settings.items() if key != "lr")
        title = f"`{package}.{name}`" + (f", {said}" if said else "")
        try:
            make = getattr(importlib.import_module(package), name)
        except ImportError:
            yield f"| {title} | not installed | | | | | |"
            continue
        (found,) = audit(make(params(), **settings))
        yield f"| {title} | {_cells(found)} |"


def _cells(found: Audited) -> str:
    family = f"{found.family} ({found.nonlinearity})" if found.nonlinearity else found.family
    memory = "active" if found.momentum_active else "none"
    decay = "" if found.weight_decay is None else f"{found.weight_decay:.6g}{' decoupled' if found.decoupled else ''}"
    numbers = [
        "" if found.effective_lr is None else f"{found.effective_lr:.6g}",
        memory if not found.momentum else f"{found.momentum:.6g}",
        decay,
        f"{found.state_bytes_per_parameter:.3g}",
    ]
    return " | ".join([family, *numbers, "; ".join(note for note in found.notes if note != UNSEEN)])


def largest_error() -> tuple[int, float]:
    """Over all combinations of torch's SGD: how many, and the largest relative error of a number."""
    count, worst = 0, 0.0
    flags = itertools.product((0.0, 0.5, 0.9, 0.999), (0.0, 0.5), (False, True), (0.0, 1e-4), (False, True))
    for (momentum, dampening, nesterov, decay, maximize), path in itertools.product(flags, ("", "foreach", "fused")):
        if (nesterov and (dampening or not momentum)) or (dampening and not momentum):
            continue
        ways = {path: True} if path else {"foreach": False, "fused": False}
        optimizer = torch.optim.SGD(params(), 0.1, momentum, dampening, decay, nesterov, maximize=maximize, **ways)
        (found,) = audit(optimizer)
        exact = [
            found.family == ("nesterov" if nesterov else "sgdm" if momentum else "sgd"),
            (found.nesterov, found.decoupled, found.maximize) == (nesterov, False, maximize),
        ]
        wanted = [
            (found.effective_lr, 0.1 * (1 - dampening) / (1 - momentum)),
            (found.momentum, momentum),
            (found.dampening, dampening),
            (found.weight_decay, decay),
        ]
        errors = [abs((got or 0.0) - true) / (true or 1.0) for got, true in wanted]
        count, worst = count + 1, max([worst, *errors, 0.0 if all(exact) else 1.0])
    return count, worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="a folder of packages that are not in the environment")
    peers = parser.parse_args().peers
    if peers:
        sys.path.append(peers)
    print(f"torch {torch.__version__}", *_versions(), sep=", ")
    for row in rows():
        print(row, flush=True)
    count, worst = largest_error()
    print(f"\ntorch.optim.SGD, {count} combinations: largest relative error {worst:.1g}")
    return int(worst > 1e-6)


def _versions() -> Iterator[str]:
    for package in ("schedulefree", "lion-pytorch", "heavyball", "pytorch-optimizer"):
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} not installed"


if __name__ == "__main__":
    sys.exit(main())
