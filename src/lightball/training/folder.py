"""The folder of a run: which run it holds, how far that came, and the model that came of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightball.errors import InputError
from lightball.oracles import build
from lightball.training import checkpoints
from lightball.training.checkpoints import Checkpoint
from lightball.training.recipe import Recipe
from lightball.training.state import TrainingState, load_weights, restore, tensors_of, values_of
from lightball.workloads import Workload, identity

Asked = dict[str, Any]
"""What a run was asked to do, as JSON: what its result depends on."""


def asked(workload: Workload, recipe: Recipe, seed: int, device: torch.device, accuracies: str) -> Asked:
    return {
        "workload": identity(workload),
        **asdict(recipe),
        "seed": seed,
        "device": device.type,
        "accuracies": accuracies,
    }


def resume(state: TrainingState, folder: Path, asked_now: Asked) -> None:
    """Bring a fresh state to the newest readable checkpoint, if there is one.

    Raises:
        InputError: the checkpoint belongs to another run, or the folder cannot be written to.
    """
    checkpoints.prepare(_checkpoints(folder))
    found = checkpoints.newest(_checkpoints(folder))
    if found is None:
        return
    differing = [
        f"{name} {found.asked.get(name)}, not {value}"
        for name, value in asked_now.items()
        if found.asked.get(name) != value
    ]
    if differing:
        raise InputError(
            f"the folder {str(folder)!r} holds another run, with {'; '.join(differing)}: choose another folder, or "
            "delete that one"
        )
    restore(state, found.tensors, found.values)


def save(state: TrainingState, folder: Path, asked_now: Asked) -> None:
    """Write a checkpoint of the state."""
    checkpoints.save(_checkpoints(folder), state.step, Checkpoint(asked_now, values_of(state), tensors_of(state)))


def load_model(workload: Workload, folder: Path) -> nn.Module:
    """The model at the newest readable checkpoint of a run in ``folder``, on the CPU, in eval mode.

    Raises:
        InputError: there is no checkpoint that can be read, or the run is of another workload.
    """
    found = checkpoints.newest(_checkpoints(folder))
    if found is None:
        raise InputError(
            f"there is no checkpoint that can be read in {str(folder)!r}: give the folder that was given to train"
        )
    if found.asked["workload"] != identity(workload):
        raise InputError(
            f"the folder {str(folder)!r} holds a run of another workload, {found.asked['workload']}, not "
            f"{identity(workload)}: give the workload that was trained there"
        )
    model = build(workload.model, found.asked["seed"]).cpu()
    load_weights(model, found.tensors)
    return model.eval()


def _checkpoints(folder: Path) -> Path:
    return folder / "checkpoints"
