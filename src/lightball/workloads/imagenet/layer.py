"""The first layer of a network for images that lie in files: numbers of images become pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.workloads.image_layers import Standardise
from lightball.workloads.imagenet.ahead import Ahead, chunks
from lightball.workloads.imagenet.decoders import Decoders
from lightball.workloads.imagenet.images import Moment

if TYPE_CHECKING:
    from jaxtyping import Float, Int, UInt8

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in common use


class DecodeImages(nn.Module):
    """Rows (number of the image, key of its file) to standardised pixels, on the device of the rows.

    In train mode a random part of each image, mirrored or not: a function of the seed that is drawn when the layer is
    made, of the step and of the image, and of nothing else; not of the batch or the process that it is in. In eval
    mode its middle. Processes decode; of images that are announced by :meth:`prepare` while the step before computes.

    Without :meth:`prepare`, each call in train mode counts as a step.

    Args:
        decoders: the processes.
        size: rows and columns of the output.
        max_broken: images that may fail to decode; others stand in for them.

    Shapes: ``[example, 2]`` to ``[example, 3, size, size]``, float32, the channels last in memory.
    """

    seed: Tensor
    calls: Tensor

    def __init__(self, decoders: Decoders, size: int = 224, max_broken: int = 100) -> None:
        super().__init__()
        self.size = size
        self.max_broken = max_broken
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.standardise = Standardise(MEAN, STD)
        self._decoders = decoders
        self._ahead = Ahead(decoders)
        self._broken: dict[str, str] = {}
        self._match: tuple[Any, Tensor] | None = None  # on a GPU: whether the last images were those asked for
        self._known_seed: tuple[Tensor, int, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_match": None}  # what is under way stays with the original

    def prepare(self, step: int, inputs: Int[Tensor, "example 2"]) -> None:
        """Begin to decode what the calls of this step will ask for, in their order."""
        self._ahead.expect(chunks(_numbers(inputs), self.size, Moment(self._seed_number(), step)))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, inputs: Int[Tensor, "example 2"]) -> Float[Tensor, "example 3 size size"]:
        """The images.

        Raises:
            InputError: too many images do not decode, or others were announced.
        """
        if self.training and self._ahead:
            examples, pixels, broken = self._ahead.take(len(inputs))
            self._require(inputs, examples)
        else:
            decoded = self._decoders.decode(chunks(_numbers(inputs), self.size, self._moment()))
            pixels, broken = (
                [part.pixels for part in decoded],
                {k: v for part in decoded for k, v in part.broken.items()},
            )
        self._note(broken)
        images: Tensor = self.standardise(_on(inputs.device, pixels).permute(0, 3, 1, 2))
        return images

    def _moment(self) -> Moment | None:
        """In train mode the next call of those that were not announced."""
        if not self.training:
            return None
        moment = Moment(self._seed_number(), int(self.calls))
        self.calls += 1
        return moment

    def _seed_number(self) -> int:
        """The seed, for which a GPU is asked only where it may have changed."""
        known = self._known_seed
        if known is None or known[0] is not self.seed or known[1] != self.seed._version:
            known = self._known_seed = (self.seed, self.seed._version, int(self.seed))
        return known[2]

    def _require(self, inputs: Tensor, examples: list[int]) -> None:
        """That the images are those that are asked for; on a GPU this is known, without waiting, one call later."""
        last, self._match = self._match, None
        if last is not None:
            last[0].synchronize()
        equal = len(examples) == len(inputs) and (last is None or bool(last[1]))
        if equal and inputs.is_cuda:
            wanted = torch.tensor(examples).pin_memory().to(inputs.device, non_blocking=True)
            verdict = torch.empty((), dtype=torch.bool).pin_memory()
            verdict.copy_((wanted == inputs[:, 0]).all(), non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._match = event, verdict
        elif equal:
            equal = examples == _numbers(inputs)
        if not equal:
            raise InputError(
                f"a forward pass asks for other images than were announced for this step, {len(inputs)} of them: call "
                "prepare(step, inputs) with all inputs of the step in the order of their use"
            )

    def _note(self, broken: dict[str, str]) -> None:
        """Name the images that did not decode, each once.

        Raises:
            InputError: they are more than may be.
        """
        for name in broken.keys() - self._broken.keys():
            self._broken[name] = broken[name]
            warnings.warn(
                f"the image {name!r} cannot be decoded ({broken[name]}): the next of its class takes its place; that "
                f"makes {len(self._broken)}, and at most {self.max_broken} may be broken",
                stacklevel=3,
            )
        if len(self._broken) > self.max_broken:
            named = ", ".join(sorted(self._broken)[:10])
            raise InputError(
                f"{len(self._broken)} images cannot be decoded, but at most {self.max_broken} may be (max_broken): "
                f"{named}{', …' if len(self._broken) > 10 else ''}; repair or remove them"
            )


def _numbers(inputs: Tensor) -> list[int]:
    numbers: list[int] = inputs[:, 0].tolist()
    return numbers


def _on(device: torch.device, pixels: Sequence[UInt8[np.ndarray, "..."]]) -> UInt8[Tensor, "example row column 3"]:
    """The images one after the other, as bytes on the device."""
    shape = (sum(map(len, pixels)), *pixels[0].shape[1:])
    together = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.concatenate(pixels, out=together.numpy())
    return together.to(device, non_blocking=True)
