"""The folder of a run: which run it holds, how far that came, and the model that came of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightball.errors import InputError, reason_of
from lightball.oracles import build
from lightball.training import checkpoints
from lightball.training.checkpoints import Checkpoint
from lightball.training.recipe import Recipe
from lightball.training.state import TrainingState, load_weights, restore, tensors_of, values_of
from lightball.workloads import Workload, fingerprint, identity

Asked = dict[str, Any]
"""What a run was asked to do, as JSON: what its result depends on."""

# What a checkpoint stands for that was written before a recipe had these fields.
_DEFAULTS: Asked = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}

_NAMED = {"fingerprint": "a loss, metric or forward pass of fingerprint"}


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside, no other process trains in the folder; the system ends this when the process ends, however it does.

    Raises:
        InputError: another one does; or the folder cannot be written to.
    """
    if sys.platform == "win32":  # which has no such locks
        yield
        return
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"cannot write to the folder {str(folder)!r}: {error.strerror or reason_of(error)}; choose another"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another process trains in the folder {str(folder)!r}: wait for it, or choose another folder"
            ) from error
        yield


def asked(workload: Workload, recipe: Recipe, seed: int, device: torch.device, accuracies: str) -> Asked:
    return {
        "workload": identity(workload),
        "fingerprint": fingerprint(workload, together=False),
        **asdict(recipe),
        "seed": seed,
        "device": device.type,
        "accuracies": accuracies,
    }


def open_folder(open_files: ExitStack, state: TrainingState, folder: Path, asked_now: Asked) -> None:
    """Hold the folder, and bring a fresh state to the newest readable checkpoint in it, if there is one.

    Of several processes the first one holds it, and all of them read it.

    Raises:
        InputError: another process trains there, the checkpoint belongs to another run, or the folder cannot be
            written to, or not be seen by all processes.
    """

    def hold_and_resume() -> None:
        open_files.enter_context(held(folder))
        checkpoints.prepare(_checkpoints(folder))
        _resume(state, folder, asked_now)

    if (ranks := state.ranks) is None:
        hold_and_resume()
        return
    ranks.lead(hold_and_resume)
    if ranks.rank > 0:
        _resume(state, folder, asked_now)
    if ranks.any(int(ranks.broadcast_text(str(state.step))) != state.step):
        raise InputError(
            f"the folder {str(folder)!r} does not hold the same checkpoints for all {ranks.size} processes: give one "
            "on a disk that they share"
        )


def _resume(state: TrainingState, folder: Path, asked_now: Asked) -> None:
    found = checkpoints.newest(_checkpoints(folder))
    if found is None:
        return
    before = {**_DEFAULTS, **found.asked}
    differing = [name for name, value in asked_now.items() if before.get(name) != value]
    if "workload" in differing:  # the fingerprint follows from it
        differing = [name for name in differing if name != "fingerprint"]
    if differing:
        named = "; ".join(f"{_NAMED.get(n, n)} {before.get(n)}, not {asked_now[n]}" for n in differing)
        raise InputError(
            f"the folder {str(folder)!r} holds another run, with {named}: choose another folder, or delete that one"
        )
    restore(state, found.tensors, found.values)


def save(state: TrainingState, folder: Path, asked_now: Asked) -> None:
    """Write a checkpoint of the state."""
    checkpoints.save(_checkpoints(folder), state.step, Checkpoint(asked_now, values_of(state), tensors_of(state)))


def load_model(workload: Workload, folder: Path) -> nn.Module:
    """The model at the newest readable checkpoint of a run in ``folder``, on the CPU, in eval mode.

    Data and initial weights are compared with those of the run; its loss and metric are not computed again.

    Raises:
        InputError: there is no checkpoint that can be read, or the run is of another workload.
    """
    found = checkpoints.newest(_checkpoints(folder))
    if found is None:
        raise InputError(
            f"there is no checkpoint that can be read in {str(folder)!r}: give the folder that was given to train"
        )
    workload = workload.of_seed(found.asked["seed"])
    if found.asked["workload"] != (this := identity(workload)):
        raise InputError(
            f"the folder {str(folder)!r} holds a run of another workload, {found.asked['workload']}, not "
            f"{this}: give the workload that was trained there"
        )
    model = build(workload.model, found.asked["seed"]).cpu()
    load_weights(model, found.tensors)
    return model.eval()


def _checkpoints(folder: Path) -> Path:
    return folder / "checkpoints"
