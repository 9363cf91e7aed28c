"""Which examples each replica sees at each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from lightball.errors import InputError
from lightball.oracles.seeds import generator

if TYPE_CHECKING:
    from jaxtyping import Int

SamplingKind = Literal["shuffle", "iid"]


@dataclass(frozen=True)
class Sampling:
    """Minibatches of ``batch_size`` out of ``num_examples``.

    ``shuffle`` draws a new permutation for each epoch and walks through it (without replacement, what training
    loops do); ``iid`` draws every example anew (with replacement, what the theory assumes). With ``drop_last`` the
    incomplete last batch of an epoch is left out; the examples in it differ from epoch to epoch under ``shuffle``.

    Raises:
        InputError: the batch is not between 1 and the number of examples, or the kind is unknown.
    """

    num_examples: int
    batch_size: int
    kind: SamplingKind = "shuffle"
    drop_last: bool = True

    def __post_init__(self) -> None:
        if self.kind not in get_args(SamplingKind):
            raise InputError(
                f"sampling is {self.kind!r}, but must be 'shuffle' (without replacement) or 'iid' (with replacement)"
            )
        if not 1 <= self.batch_size <= self.num_examples:
            raise InputError(
                f"batch size {self.batch_size} does not fit the {self.num_examples} training examples: "
                f"choose one between 1 and {self.num_examples}"
            )

    @property
    def steps_per_epoch(self) -> int:
        whole, rest = divmod(self.num_examples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def epoch(self, seed: int, epoch: int) -> Int[Tensor, "num_examples"]:
        """The examples of one epoch of one seed, in order; a pure function of (seed, batch size, epoch)."""
        draw = generator(use="data", seed=seed, batch_size=self.batch_size, epoch=epoch)
        if self.kind == "shuffle":
            return torch.randperm(self.num_examples, generator=draw)
        return torch.randint(self.num_examples, (self.num_examples,), generator=draw)


class MinibatchStream:
    """The minibatches of several seeds: step → ``Int[Tensor, "replica batch"]``, on ``device``.

    Holds one epoch of indices at a time (8 bytes × replicas × examples); seeds that occur twice are drawn once.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int], device: torch.device) -> None:
        self.sampling = sampling
        self.device = device
        self.unique = list(dict.fromkeys(seeds))
        position = {seed: i for i, seed in enumerate(self.unique)}
        self.rows = torch.tensor([position[seed] for seed in seeds])
        self._epoch = -1
        self._batches: list[Tensor] = []

    def __call__(self, step: int) -> Int[Tensor, "replica batch"]:
        epoch, batch = divmod(step, self.sampling.steps_per_epoch)
        if epoch != self._epoch:
            order = torch.stack([self.sampling.epoch(seed, epoch) for seed in self.unique])[self.rows]
            # Contiguous batches: a compiled step is specialised to the memory layout of its input.
            batches = torch.split(order.to(self.device), self.sampling.batch_size, dim=1)
            self._batches = [b.contiguous() for b in batches[: self.sampling.steps_per_epoch]]
            self._epoch = epoch
        return self._batches[batch]
