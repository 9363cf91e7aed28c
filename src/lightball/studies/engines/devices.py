"""Where runs are computed: the device and the number of worker processes."""

from __future__ import annotations

import os

import torch

from lightball.errors import InputError, reason_of


def choose_device(name: str) -> str:
    """``auto`` is the GPU if torch sees one.

    Raises:
        InputError: a device that torch does not know or that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise InputError(f"device is {name!r}, but must be auto, cpu, cuda, or one GPU such as cuda:1")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {reason_of(error)} (choose auto, cpu or cuda)") from error
    return name


def check_workers(requested: int | None) -> int | None:
    """The number of workers that was asked for, if any.

    Raises:
        InputError: it is below 1.
    """
    if requested is not None and requested < 1:
        raise InputError(f"workers is {requested}, but must be a whole number from 1 up")
    return requested


def num_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def device_name(device: str) -> str:
    """The kind of device, which decides how sums are rounded: "cpu", or the model of the GPU."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
