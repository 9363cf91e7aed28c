"""The device of a run, and what a run may change around it: nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lightball.errors import InputError, reason_of
from lightball.oracles import seed_of


def find_device(name: str | torch.device) -> torch.device:
    """The CPU or one GPU, with its index.

    Raises:
        InputError: a device of another kind, or one that is not there.
    """
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"device is '{name}', but must be cpu, cuda, or one GPU such as cuda:1")
        return torch.empty(0, device=device).device
    except InputError:
        raise
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device '{name}' cannot be used: {reason_of(error)} (choose cpu or cuda)") from error


@contextmanager
def surroundings_kept(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, gradients are recorded, in full precision, and torch's global generators are the run's own.

    After it all is as it was.
    """
    no_autocast = torch.autocast(device.type, enabled=False)
    with generators_kept(device), torch.inference_mode(False), torch.enable_grad(), no_autocast:
        # torch.manual_seed would also seed GPUs that this run does not use.
        number = seed_of(use="train", seed=seed)
        torch.default_generator.manual_seed(number)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index].manual_seed(number)
        yield


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """The global generators of the CPU and of ``device`` come out as they went in."""
    with torch.random.fork_rng(devices=[device.index] if device.type == "cuda" else []):
        yield


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """The states of those generators, as bytes."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generator_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Put the generators where :func:`generator_states` saw them."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
