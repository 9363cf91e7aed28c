"""The processes that train one model together, each on its part of every batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightball.errors import InputError, reason_of
from lightball.training.surroundings import find_device

if TYPE_CHECKING:
    from jaxtyping import Int

# Elements of a message: copies of 64 MB in float32, and few messages.
_MESSAGE = 1 << 24
_REQUIRED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """This process, number ``rank`` of ``size`` in the default group of ``torch.distributed``, which is initialised.

    Every method but :meth:`share` is called by all of them, in the same order, and waits for the last.

    Raises:
        ConnectionError: by these methods, where another of the processes has ended.
    """

    rank: int
    size: int
    device: torch.device

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in the tensor itself, which is also returned; the same bits in each of them."""
        with self._together():
            dist.all_reduce(tensor)
        return tensor

    def share(self, batch: Int[Tensor, "batch"]) -> Int[Tensor, "share"]:
        """The contiguous part of a batch that is this process's; where it does not divide, the first have one more."""
        return batch.tensor_split(self.size)[self.rank]

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.sum(torch.zeros((), device=self.device)).item()

    def broadcast_text(self, text: str | None) -> str:
        """The text of process 0; what the others give is not read."""
        sent = (text or "").encode() if self.rank == 0 else b""
        length = int(self.sum(torch.tensor(len(sent), device=self.device)))
        characters = torch.zeros(length, dtype=torch.uint8)
        if sent:
            characters.copy_(torch.frombuffer(bytearray(sent), dtype=torch.uint8))
        characters = characters.to(self.device)
        with self._together():
            dist.broadcast(characters, src=0)
        return characters.cpu().numpy().tobytes().decode()

    def lead(self, function: Callable[[], object]) -> None:
        """Process 0 calls the function while the others wait; its `InputError` is raised in all of them."""
        refusal = None
        if self.rank == 0:
            try:
                function()
            except InputError as error:
                refusal = str(error)
        if refusal := self.broadcast_text(refusal):
            raise InputError(refusal)

    def any(self, value: bool) -> bool:
        """Whether it is true in any process."""
        return bool(self.sum(torch.tensor(float(value), device=self.device)))

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ConnectionError(
                f"process {self.rank} of {self.size} cannot reach the others ({reason_of(error)}): one of them has "
                "ended; start all again, and the same folder goes on from its newest checkpoint"
            ) from error


def sum_gradients(params: Sequence[nn.Parameter], ranks: Ranks) -> None:
    """Sum the gradients over all processes, many of them in one message; one that is missing is 0."""
    for p in params:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        elif p.grad.is_sparse:
            p.grad = p.grad.to_dense()
    for gradients in _messages([p.grad for p in params if p.grad is not None]):
        message = ranks.sum(torch.cat([g.reshape(-1) for g in gradients]))
        for g, total in zip(gradients, torch.split(message, [g.numel() for g in gradients]), strict=True):
            g.copy_(total.view(g.shape))


def _messages(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Lists of one dtype and of a bounded number of elements, in the order that they have in every process."""
    message: list[Tensor] = []
    size = 0
    for g in gradients:
        if message and (size + g.numel() > _MESSAGE or g.dtype != message[0].dtype):
            yield message
            message, size = [], 0
        message.append(g)
        size += g.numel()
    yield message


def find_ranks(*, cpu: bool = False) -> Ranks | None:
    """The processes that ``accelerate launch`` or ``torchrun`` started, by the variables that they set; None for one.

    They are connected through ``accelerate.PartialState``, by NCCL with one GPU each, or by gloo on the CPU: where
    there is no GPU, or with ``cpu``. (On the CPU start by ``torchrun --nproc-per-node``: ``accelerate launch --cpu``
    starts a single process.)

    Raises:
        InputError: accelerate is not installed, a variable is missing, or the processes do not come together.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1:
        raise InputError(f"WORLD_SIZE is {size!r}, but must be the number of processes: start by accelerate launch")
    if int(size) == 1:
        return None
    if missing := [name for name in _REQUIRED if name not in os.environ]:
        raise InputError(
            f"WORLD_SIZE is {size}, but {' and '.join(missing)} not set: start by accelerate launch or torchrun, "
            "which set it, or unset WORLD_SIZE for a single process"
        )
    try:
        from accelerate import PartialState  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            f"training in {size} processes needs accelerate, which is not installed: "
            "pip install lightball[transformers]"
        ) from error
    try:
        state: Any = PartialState(cpu=cpu or not torch.cuda.is_available())
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"the {size} processes do not come together: {reason_of(error)} (MASTER_ADDR and MASTER_PORT must be those "
            "of process 0, and free)"
        ) from error
    return Ranks(state.process_index, state.num_processes, find_device(state.device))
