"""Weights of a checkpoint into a model, or a refusal that lists what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightball.errors import InputError, reason_of

_SHOWN = 4
_KINDS = ("parameter.", "buffer.")  # as in checkpoints of lightball's own training


@torch.no_grad()
def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Copy a state dict, saved by safetensors, into the model.

    Tensors that the model shares between names may be saved under one of them, as safetensors does. A checkpoint of
    :func:`lightball.training.train` (its ``tensors.safetensors``) is read too.

    Raises:
        InputError: a file that is not there or damaged, or keys that are missing, unexpected, or of another shape.
    """
    saved = _plain(_read(path))
    own = model.state_dict(keep_vars=True)
    aliases: dict[int, list[str]] = {}
    for name, tensor in own.items():
        aliases.setdefault(id(tensor), []).append(name)
    given = {name for names in aliases.values() if any(n in saved for n in names) for name in names}
    missing = [name for name in own if name not in given]
    unexpected = [name for name in saved if name not in own]
    shapes = [
        f"{name} {_shape(saved[name])} for {_shape(own[name])}"
        for name in own
        if name in saved and saved[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{what}: {_list(names)}"
            for what, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes))
            if names
        ]
        raise InputError(
            f"the checkpoint {str(path)!r} does not fit the model: {'; '.join(parts)} "
            "(give the state dict of the workload's own model)"
        )
    for name, tensor in own.items():
        if name in saved:
            tensor.copy_(saved[name])


def _read(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        path = path / "tensors.safetensors"
    if not path.is_file():
        raise InputError(f"there is no checkpoint {str(path)!r}: give a safetensors file of the model's state dict")
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(
            f"cannot read the checkpoint {str(path)!r}: {reason_of(error)} (write the state dict with "
            "safetensors.torch.save_file; .pt files, which may run code, are not read)"
        ) from error


def _plain(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the kinds in the names of lightball's own checkpoints, which also hold momentum and generators."""
    if "generator.cpu" not in saved:
        return saved
    return {name.partition(".")[2]: tensor for name, tensor in saved.items() if name.startswith(_KINDS)}


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
