"""Training on several devices: who measures, and what cannot be measured there."""

from __future__ import annotations

import torch
from torch import distributed, nn

from lightball.errors import InputError


def rank_and_size() -> tuple[int, int]:
    """This process among those that train the model together; (0, 1) for one alone."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def check_measurable(model: nn.Module, mode: str) -> None:
    """Refuse what one process cannot measure by itself.

    Raises:
        InputError: sharded parameters, several copies in threads, or BatchNorm that is shared among processes.
    """
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "placements") or type(parameter).__name__ == "FlatParameter":
            raise InputError(
                f"parameter '{name}' is sharded over devices, but a monitor needs whole parameters, as under "
                "DistributedDataParallel: probe a checkpoint on one device instead"
            )
    if isinstance(model, nn.DataParallel):
        raise InputError(
            "the model is a DataParallel, but a monitor needs one copy in each process: use DistributedDataParallel"
        )
    shared = any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    if shared and mode != "eval" and rank_and_size()[1] > 1:
        raise InputError(
            "the model has SyncBatchNorm, whose statistics need all processes, but a monitor measures in one: give "
            "mode='eval', which measures with running statistics"
        )


def scale_of(scaler: torch.amp.GradScaler | None) -> float:
    """The factor of the loss in mixed precision, 1 without a scaler."""
    return 1.0 if scaler is None or not scaler.is_enabled() else float(scaler.get_scale())
