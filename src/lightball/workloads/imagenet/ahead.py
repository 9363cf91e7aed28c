"""Images in the order in which they will be used, decoded ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightball.workloads.imagenet.decoders import Decoders, Pending
from lightball.workloads.imagenet.images import Asked, Decoded, Moment

if TYPE_CHECKING:
    from jaxtyping import UInt8

_CHUNK = 8  # images that a process decodes at once: enough to hide what sending costs
_LIMIT = 1024  # images that are being decoded or lie ready, lest large batches fill the memory


def chunks(examples: Sequence[int], size: int, moment: Moment | None) -> Iterator[Asked]:
    """What is asked for these examples, a few at a time."""
    for first in range(0, len(examples), _CHUNK):
        yield Asked(tuple(examples[first : first + _CHUNK]), size, moment)


class Ahead:
    """A queue of images. A copy of it is empty."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self._waiting: deque[Asked] = deque()
        self._begun: deque[Pending] = deque()
        self._num_begun = 0
        self._head: tuple[Asked, Decoded, int] | None = None  # partly used

    def __reduce__(self) -> tuple[Any, ...]:
        return Ahead, (self._decoders,)

    def __bool__(self) -> bool:
        return self._head is not None or bool(self._begun) or bool(self._waiting)

    def expect(self, asked: Iterator[Asked]) -> None:
        """Have these decoded, after those that were asked for before."""
        self._waiting.extend(asked)
        self._fill()

    def take(self, count: int) -> tuple[list[int], list[UInt8[np.ndarray, "..."]], dict[str, str]]:
        """The next images at most: which examples they are, their pixels, and what did not decode."""
        examples: list[int] = []
        pixels = []
        broken: dict[str, str] = {}
        while len(examples) < count and (head := self._next(broken)) is not None:
            asked, decoded, used = head
            until = min(used + count - len(examples), len(asked.examples))
            examples += asked.examples[used:until]
            pixels.append(decoded.pixels[used:until])
            self._head = (asked, decoded, until) if until < len(asked.examples) else None
        return examples, pixels, broken

    def _next(self, broken: dict[str, str]) -> tuple[Asked, Decoded, int] | None:
        if self._head is None and self._begun:
            pending = self._begun.popleft()
            self._num_begun -= len(pending.asked.examples)
            self._fill()
            decoded = self._decoders.finish(pending)
            broken |= decoded.broken
            self._head = (pending.asked, decoded, 0)
        return self._head

    def _fill(self) -> None:
        while self._waiting and (self._num_begun < _LIMIT or not self._begun):
            asked = self._waiting.popleft()
            self._begun.append(self._decoders.begin(asked))
            self._num_begun += len(asked.examples)
