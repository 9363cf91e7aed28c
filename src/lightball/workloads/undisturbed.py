"""Running a user's model without a trace: on a copy, with generators, modes and threads put back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain

import numpy as np
import torch
from torch import nn

from lightball.errors import InputError, reason_of
from lightball.oracles import build, seed_of


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, gradients are recorded in full precision and every global generator is seeded; after it all is as before.

    The generators are torch's, Python's and NumPy's.
    """
    seed = seed_of(use="measure")
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  what a model may draw from
    no_autocast = torch.autocast("cpu", enabled=False)
    gpus = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=gpus), torch.inference_mode(False), torch.enable_grad(), no_autocast:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes with one thread, so that sums do not depend on how they are divided among several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def mode_of(model: nn.Module, training: bool) -> Iterator[None]:
    """Inside, the model trains or evaluates; every module comes out in the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def copy_at_start(model_factory: Callable[[], nn.Module]) -> nn.Module:
    """A copy of the model at seed 0: a factory may return one object each time, or share parts of it.

    Raises:
        InputError: the model can neither be copied nor made twice.
    """
    model = build(model_factory, seed=0)
    try:
        return deepcopy(model)
    except Exception as error:  # such as the old torch.nn.utils.weight_norm, or an attribute that cannot be copied
        again = build(model_factory, seed=0)
        if _tensors(model) & _tensors(again):
            raise InputError(
                f"the model cannot be copied: {reason_of(error)} (let model() make all parts of it anew in each call)"
            ) from error
        return again


def _tensors(model: nn.Module) -> set[int]:
    return set(map(id, chain(model.parameters(), model.buffers())))
