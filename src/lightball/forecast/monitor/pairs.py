"""tr Σ from gradients that training computes anyway: pairs of them, seen as autograd accumulates them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightball.forecast.monitor.spread import Spread
from lightball.probe.estimates import Estimate, mean_estimate


class GradientPairs:
    """Squared distances of gradients of two microbatches at the same point, or nearly so.

    For mean gradients g₁, g₂ of b₁ and b₂ examples at one point, E ‖g₁ − g₂‖² = (1/b₁ + 1/b₂) tr Σ, also for batches
    drawn without replacement (with divisor M − 1 in Σ). Two microbatches of one accumulated step are such a pair.
    Without accumulation pairs are gradients of two successive steps, between which the weights move by −lr · g₁ and
    more. Instead of tr Σ that gives tr((1 + lr H + ½ lr² H²) Σ) + ½ b ‖H Δx‖², for a quadratic loss; :meth:`estimate`
    takes both off where curvature is known.

    Hooks on the parameters see gradients before they are clipped; they are there on at most ``2 num_pairs`` of
    ``every`` steps. A pair costs a copy of the gradient for one step. Where a step has not the expected number of
    backward passes, or gradients are sparse or not finite, the pair is left out. Under DistributedDataParallel they are
    those of this process alone; microbatches that are accumulated must then be under ``no_sync``, as usual.

    Args:
        parameters: whose gradients.
        accumulation: backward passes of a step; the loss of each is divided by it.
        every, num_pairs: pairs are spread at random over each ``every`` steps.
        scale: the factor of the loss now, as in mixed precision with a gradient scaler.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        accumulation: int,
        every: int,
        num_pairs: int,
        scale: Callable[[], float],
        seed: int = 0,
    ) -> None:
        self.accumulation = accumulation
        self._parameters, self._scale = parameters, scale
        self._begins = Spread(num_pairs, every, room=1, seed=seed)
        self._watch: _Watch | None = None
        self._sizes: list[int] = []
        self._found: list[tuple[Tensor, float]] = []

    def after_step(self, step: int, size: Callable[[], int]) -> None:
        """Tell that step number ``step`` has been made; ``size`` counts the examples of each of its microbatches."""
        if self._watch is not None:
            self._sizes.append(size())
            if self.accumulation > 1 or len(self._sizes) == 2:
                self._finish(self._watch)
            else:
                self._watch.scale = self._scale()
        if self._begins.chooses(step) and self._watch is None:
            self._sizes = []
            self._watch = _Watch(self._parameters, self._scale(), within=self.accumulation > 1)

    def estimate(self, growth: float = 1.0, drift: float = 0.0) -> Estimate | None:
        """tr Σ from the pairs since :meth:`clear`, None where there are fewer than two.

        Args:
            growth: by how much the move between successive steps enlarges what noise does to their distance.
            drift: ‖H Δx‖² for the mean move Δx of a step.
        """
        if self.accumulation > 1:
            growth, drift = 1.0, 0.0
        values = np.array([(float(norm) ** 2 - drift) / (weight * growth) for norm, weight in self._found])
        finite = values[np.isfinite(values)]
        return mean_estimate(finite, nonnegative=True) if len(finite) > 1 else None

    def clear(self) -> None:
        """Forget the pairs so far."""
        self._found.clear()

    def close(self) -> None:
        """Take the hooks away."""
        if self._watch is not None:
            self._watch.remove()
            self._watch = None

    def _finish(self, watch: _Watch) -> None:
        watch.remove()
        self._watch = None
        distance = watch.distance()
        if distance is not None:
            first, last = self._sizes[0], self._sizes[-1]
            self._found.append((distance * self.accumulation, 1 / first + 1 / last))


class _Watch:
    """‖g₁ − g₂‖ of two backward passes; ``within`` one step the second finds g₁ + g₂ in the gradient."""

    def __init__(self, parameters: Sequence[nn.Parameter], scale: float, *, within: bool) -> None:
        self.scale = scale
        self._within = within
        self._first: dict[nn.Parameter, Tensor] = {}
        self._norms: list[Tensor] = []
        self._passes: dict[nn.Parameter, int] = {}
        self._usable = True
        self._handles: list[Any] = [_hooked(p, self._see) for p in parameters]

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def distance(self) -> Tensor | None:
        """‖g₁ − g₂‖ on the gradients' device, None where the passes were not as expected."""
        expected = all(n == 2 or (self._within and n > 2) for n in self._passes.values())
        if not self._usable or not self._norms or not expected:
            return None
        distance: Tensor = torch.linalg.vector_norm(torch.stack([n.to(self._norms[0].device) for n in self._norms]))
        return distance

    @torch.no_grad()
    def _see(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None or gradient.layout != torch.strided:
            self._usable = False
            return
        assert isinstance(parameter, nn.Parameter)
        number = self._passes[parameter] = self._passes.get(parameter, 0) + 1
        if number == 1:
            precise = torch.promote_types(gradient.dtype, torch.float32)
            self._first[parameter] = gradient.to(precise, copy=True)
            if self.scale != 1:
                self._first[parameter] /= self.scale
        elif number == 2:
            difference = self._first.pop(parameter)
            if self._within:
                difference *= 2  # the gradient now holds g₁ + g₂
            self._norms.append(torch.linalg.vector_norm(difference.sub_(gradient, alpha=1 / self.scale)))


def _hooked(parameter: nn.Parameter, hook: Callable[[Tensor], None]) -> Any:
    return parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
