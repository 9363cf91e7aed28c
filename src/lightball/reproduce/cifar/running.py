"""Running the experiment on CIFAR-10: what fits the time, what it costs, and the parts one after the other."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightball.errors import InputError
from lightball.reproduce.cifar.fitting import Cost, fit
from lightball.reproduce.cifar.found import CifarResult, found, selected_rate
from lightball.reproduce.cifar.settings import ELLS, CifarSettings, ell_parts, grid_part
from lightball.reproduce.parts import Part, PartPlan, Progressed, plan_parts, read_parts, run_parts
from lightball.studies import api
from lightball.studies.engines.devices import choose_device
from lightball.studies.ledger import Observer
from lightball.studies.store.disk import write

DECIDED = "decided.json"
_TRIAL_EPOCHS = 10  # of the plans that say what an epoch takes


def decide(
    settings: CifarSettings, *, out: str | Path, device: str = "auto", workers: int | None = None, keep: bool = True
) -> CifarSettings:
    """The settings with ℓ and epochs that fit the time, where they are to; what was once decided in ``out`` holds.

    Args:
        keep: write the decision into ``out``, so that the same command goes on with it.

    Raises:
        InputError: a workload or a setting that cannot be used, or a decision that cannot be read or written.
    """
    if settings.ells is not None and settings.epochs is not None:
        return settings
    asked = _as_json(settings)
    path = Path(out) / DECIDED
    held = _read(path)
    if held is None or held["asked"] != asked:
        ells, epochs = _fit(settings, choose_device(device), workers)
        held = {"asked": asked, "ells": ells, "epochs": epochs}
        if keep:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, f"{json.dumps(held, indent=1)}\n".encode())
    return replace(settings, ells=tuple(held["ells"]), epochs=held["epochs"])


def plan_cifar(
    settings: CifarSettings, *, out: str | Path, device: str = "auto", workers: int | None = None
) -> list[PartPlan]:
    """What the experiment will cost, with ℓ and epochs that are decided; see :func:`plan_parts`."""
    device = choose_device(device)
    grid = grid_part(settings, device)
    rate = selected_rate(read_parts([grid], out=out)) or settings.effective_lr[len(settings.lr) // 2]
    parts = [grid, *ell_parts(settings, device, rate)]
    return plan_parts(parts, out=out, device=device, workers=workers, keep_runs=True)


def run_cifar(
    settings: CifarSettings,
    *,
    out: str | Path,
    device: str = "auto",
    workers: int | None = None,
    deadline: float | None = None,
    observer: Observer | None = None,
) -> CifarResult:
    """Run the experiment, as far as time allows; see :func:`lightball.reproduce.parts.run_parts`.

    Raises:
        InputError: one line on what cannot be used; or SGDM trains at no rate.
    """
    device = choose_device(device)

    def run(parts: list[Part]) -> Progressed:
        return run_parts(
            parts, out=out, device=device, workers=workers, deadline=deadline, observer=observer, keep_runs=True
        )

    grid = run([grid_part(settings, device)])
    if not grid.finished:
        return found(settings, grid)
    rate = selected_rate(grid)
    if rate is None:
        raise InputError(f"SGDM fails at every rate of the grid, {settings.lr}: give smaller ones, --lr")
    others = run(ell_parts(settings, device, rate))
    return found(settings, Progressed({**grid.studies, **others.studies}, others.finished))


def _fit(settings: CifarSettings, device: str, workers: int | None) -> tuple[tuple[int, ...], int]:
    """ℓ and epochs: 1 and 2 are measured, and an epoch at a larger ℓ takes as many times as long."""
    candidates = settings.ells or ELLS
    pairs = 2 * settings.seeds
    tuning = len(settings.lr) * settings.tuning_seeds
    costs = {1: Cost(tuning + pairs, _seconds_per_epoch(settings, device, workers, 1))}
    if len(candidates) > 1:
        of_two = _seconds_per_epoch(settings, device, workers, 2)
        costs |= {ell: Cost(1 + pairs, of_two * ell / 2) for ell in candidates if ell > 1}
    ways = [settings.ells] if settings.ells else [ELLS[:n] for n in range(len(ELLS), 1, -1)]
    chosen = fit(costs, 60 * settings.minutes, ways, settings.epochs)
    return chosen.ells, chosen.epochs


def _seconds_per_epoch(settings: CifarSettings, device: str, workers: int | None, ell: int) -> float:
    """Of one run, as far as the workers do not share it."""
    part = grid_part(settings, device)
    study = replace(part.settings, ell=ell, epochs=_TRIAL_EPOCHS)
    plan = api.plan(part.workload(), study, device=device, workers=workers, keep_runs=True)
    (batch,) = plan.batches
    return (batch.seconds_per_run or 0.0) / _TRIAL_EPOCHS / plan.num_workers


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return {name: value[name] for name in ("asked", "ells", "epochs")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot read {str(path)!r}: {error}; take another folder, --out, or remove the file"
        ) from error


def _as_json(settings: CifarSettings) -> dict[str, Any]:
    """As it reads when it was written and read again."""
    return json.loads(json.dumps(asdict(settings), default=str))  # type: ignore[no-any-return]
