"""Images decoded, where those that do not decode are replaced by others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lightball.errors import InputError, reason_of
from lightball.oracles import seed_of
from lightball.workloads.imagenet.listing import Listing, Source, successors
from lightball.workloads.imagenet.pixels import pixels_of

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8


@dataclass(frozen=True)
class Moment:
    """When images are seen in training: the seed of the run and the number of the step."""

    seed: int
    step: int

    def crop_of(self, example: int) -> int:
        """The seed of the part that is seen of an image."""
        return seed_of(use="crop", seed=self.seed, step=self.step, example=example)


@dataclass(frozen=True)
class Asked:
    """Images to decode at ``size`` × ``size``: random parts as they are seen at a moment, or for None the middle."""

    examples: tuple[int, ...]
    size: int
    moment: Moment | None


@dataclass(frozen=True)
class Decoded:
    """Pixels, and of what did not decode the name and the reason."""

    pixels: UInt8[np.ndarray, "example row column 3"]
    broken: dict[str, str]


@dataclass(frozen=True)
class Images:
    """Where the bytes of images are, and which image stands in for which; can be sent to other processes."""

    source: Source
    stand_ins: Int[np.ndarray, "image"] = field(repr=False)

    def decode(self, asked: Asked) -> Decoded:
        """The pixels, a function of what is asked and of the files alone.

        An image that does not decode is replaced by the next of its class that does, seen as it would have been.

        Raises:
            InputError: no image of a class decodes, or Pillow is not installed.
        """
        pixels = np.empty((len(asked.examples), asked.size, asked.size, 3), np.uint8)
        broken: dict[str, str] = {}
        for place, example in enumerate(asked.examples):
            seed = None if asked.moment is None else asked.moment.crop_of(example)
            pixels[place] = self._decoded(example, asked.size, seed, broken)
        return Decoded(pixels, broken)

    def _decoded(
        self, example: int, size: int, seed: int | None, broken: dict[str, str]
    ) -> UInt8[np.ndarray, "row column 3"]:
        number = example
        while True:
            try:
                return pixels_of(self.source.read(number), size, seed)
            except InputError:
                raise
            except Exception as error:  # Pillow raises errors of many kinds
                name = self.source.name(number)
                broken[name] = reason_of(error)
            number = int(self.stand_ins[number])
            if number == example:
                raise InputError(
                    f"no image of the class of {name!r} can be decoded: {broken[name]} (look at the files)"
                )


def images_of(listing: Listing) -> Images:
    """The images of a listing; a stand-in is of the same class and split."""
    return Images(listing.source, successors(listing.labels, listing.num_train))
