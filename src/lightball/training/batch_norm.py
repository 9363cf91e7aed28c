"""What BatchNorm does with the two minibatches of a step of SVAG, which is a matter of convention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightball.errors import InputError
from lightball.training.hooks import Settles
from lightball.training.ranks import Ranks

BatchNormStatistics = Literal["each", "once", "frozen"]
"""Each half updates the running statistics, as in the code published with arXiv:2102.12470; or the first half alone; or
they are what normalises, and stay as they are."""


@contextmanager
def statistics_kept(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, BatchNorm normalises by the statistics of its batch, and updates no running ones."""
    layers = _batch_norms(model) if wanted else []
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


@contextmanager
def statistics_frozen(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, BatchNorm normalises by its running statistics."""
    layers = _batch_norms(model) if wanted else []
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


def require_whole_batches(model: nn.Module, kind: BatchNormStatistics, ranks: Ranks) -> None:
    """Refuse layers that would normalise by one process's part of a batch, and keep other statistics in each.

    Those that settle, as lightball's GroupBatchNorm2d, look at the whole themselves.

    Raises:
        InputError: names the first such layer.
    """
    for name, layer in model.named_modules():
        by_itself = isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm | Settles)
        if by_itself and layer.training and not (kind == "frozen" and layer.track_running_stats):
            raise InputError(
                f"{name or 'the model'} is a {type(layer).__name__}, which would normalise by the part of a batch that "
                f"each of {ranks.size} processes has: use nn.SyncBatchNorm (on GPUs) or lightball's GroupBatchNorm2d, "
                "or train in one process"
            )


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Those in train mode that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
