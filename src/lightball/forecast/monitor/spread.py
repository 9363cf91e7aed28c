"""Which steps to look at, spread over a training so that they keep no time with its epochs."""

from __future__ import annotations

import random


class Spread:
    """One step at random of each stretch of steps.

    Args:
        count: at most how many steps of each ``every``; 0 for none.
        every: at least 1.
        room: steps at the end of a stretch that are not chosen.
        seed: of the choice, from a generator of its own.
    """

    def __init__(self, count: int, every: int, *, room: int = 0, seed: int = 0) -> None:
        self._count, self._random = count, random.Random(seed)
        self._stride = max(room + 1, -(-every // count) if count else 1)
        self._last = self._stride - 1 - room
        self._stretch, self._chosen = -1, -1

    def chooses(self, step: int) -> bool:
        """Whether ``step`` is one of them; to be asked in order."""
        stretch, place = divmod(step, self._stride)
        if stretch != self._stretch:
            self._stretch, self._chosen = stretch, self._random.randint(0, self._last)
        return self._count > 0 and place == self._chosen
