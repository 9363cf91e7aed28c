"""BatchNorm over groups of a fixed number of samples, whatever the batch size and the number of processes."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from lightball.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float


class GroupBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics are those of ``group`` consecutive samples of a micro-batch.

    A micro-batch of N samples lies in equal consecutive parts on the ranks of ``torch.distributed``; it has N/group
    groups, or one if N is smaller. A group that lies on several ranks has its statistics from all of them. So the same
    data give the same outputs and gradients on any number of ranks, and with any micro-batches of whole groups. For one
    group these are those of ``nn.BatchNorm2d``.

    In train mode the statistics of all groups are collected; :meth:`settle` folds their mean into the running ones,
    once a step. In eval mode the running ones normalise.

    Only a training loop that calls :meth:`prepare` is taken to run on all ranks: a forward pass elsewhere, say to look
    at the model on one rank, does not wait for others.

    Args:
        channels: of the input, ``[sample, channel, row, column]``.
        group: samples that are normalised together.
    """

    pending_mean: Tensor
    pending_var: Tensor
    pending_groups: Tensor

    def __init__(self, channels: int, group: int = 32) -> None:
        if group < 2:
            raise InputError(f"group is {group}, but BatchNorm needs at least 2 samples: the usual group is 32")
        super().__init__(channels)
        self.group = group
        self.register_buffer("pending_mean", torch.zeros(channels), persistent=False)
        self.register_buffer("pending_var", torch.zeros(channels), persistent=False)
        self.register_buffer("pending_groups", torch.zeros(()), persistent=False)
        self._on_all_ranks = False

    def prepare(self, step: int, inputs: Tensor) -> None:
        """Called ahead of a step by a training loop that runs on all ranks."""
        self._on_all_ranks = True

    def forward(self, x: Float[Tensor, "sample channel row column"]) -> Float[Tensor, "sample channel row column"]:
        """The normalised input.

        Raises:
            InputError: in train mode, a micro-batch that is not whole groups.
        """
        if not self.training:
            return super().forward(x)
        ranks = dist.get_world_size() if self._on_all_ranks and dist.is_initialized() else 1
        sharing = ranks_that_share(len(x), self.group, ranks)
        if sharing > 1:
            return self._normalised_over(_process_group(dist.group.WORLD, sharing), sharing, x)
        parts = [self._normalised(part) for part in torch.split(x, self.group)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.no_grad()
    def settle(self) -> None:
        """Fold the mean over the groups of a step, on all ranks, into the running statistics."""
        groups = self.pending_groups.clamp(min=1)
        mean, var = self.pending_mean / groups, self.pending_var / groups
        if self._on_all_ranks and dist.is_initialized() and dist.get_world_size() > 1:
            both = torch.stack([mean, var])
            dist.all_reduce(both)
            mean, var = both / dist.get_world_size()
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        seen = self.pending_groups.clamp(max=1)
        share = seen * (self.momentum or 0.0)  # nothing moves where nothing was seen
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var, share)
        self.num_batches_tracked += seen.long()
        for pending in (self.pending_mean, self.pending_var, self.pending_groups):
            pending.zero_()

    def _normalised(self, x: Tensor) -> Tensor:
        """One group that lies here."""
        mean, var = torch.zeros_like(self.pending_mean), torch.zeros_like(self.pending_var)
        # At momentum 1 these become the statistics of the group, the variance with Bessel's correction.
        normalised: Tensor = nn.functional.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        self._collect(mean, var)
        return normalised

    def _normalised_over(self, process_group: Any, ranks: int, x: Tensor) -> Tensor:
        """This rank's part of a group that lies on several.

        Var = mean of the ranks' variances + variance of their means, which cancels nothing.
        """
        with torch.autocast(x.device.type, enabled=False):
            values = x.to(torch.promote_types(x.dtype, torch.float32))
            var, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)
            place = dist.get_rank(process_group)
            gathered = torch.stack([mean, var]).new_zeros(ranks, 2, x.shape[1])
            gathered[place] = torch.stack([mean, var])
            summed: Tensor = SumOverRanks.apply(gathered, process_group)  # type: ignore[no-untyped-call]
            means, variances = summed.unbind(dim=1)
            mean, var = means.mean(dim=0), variances.mean(dim=0) + means.var(dim=0, correction=0)
            scale = self.weight * torch.rsqrt(var + self.eps)
            normalised: Tensor = (values - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        count = ranks * x.numel() // x.shape[1]
        self._collect(mean.detach(), var.detach() * (count / (count - 1)))
        return normalised.to(x.dtype)

    def _collect(self, mean: Tensor, var: Tensor) -> None:
        if self.track_running_stats:
            with torch.no_grad():
                self.pending_mean += mean
                self.pending_var += var
                self.pending_groups += 1


def ranks_that_share(samples: int, group: int, ranks: int) -> int:
    """The number of ranks on which a group lies, where ``samples`` of a micro-batch are on each of ``ranks``.

    Raises:
        InputError: the micro-batch is not whole groups, or the groups do not lie alike on the ranks.
    """
    if samples * ranks <= group:  # one group, on all of them
        return ranks
    if samples % group == 0:
        return 1
    if group % samples == 0 and ranks % (group // samples) == 0:
        return group // samples
    raise InputError(
        f"a micro-batch of {samples * ranks} images on {ranks} process{'es' if ranks > 1 else ''} cannot be divided "
        f"into groups of {group} for BatchNorm: choose a multiple of {group}, leave out a smaller last batch of an "
        "epoch (drop_last), and let each process have whole groups or an equal part of one"
    )


class SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over the ranks of a process group, and of its gradient on the way back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, process_group: Any) -> Tensor:
        ctx.process_group = process_group
        total = values.clone()
        dist.all_reduce(total, group=process_group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=ctx.process_group)
        return total, None


@lru_cache(maxsize=4)
def _process_group(world: Any, size: int) -> Any:
    """The process group of the ``size`` consecutive ranks that this one is among; all ranks make all, in one order."""
    ranks = dist.get_world_size(world)
    if size == ranks:
        return world
    made = [dist.new_group(list(range(first, first + size))) for first in range(0, ranks, size)]
    return made[dist.get_rank(world) // size]
