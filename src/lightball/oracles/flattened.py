"""A module's minibatch oracle as one of a single vector, so that what the theory says of vectors applies to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.oracles.batched import batched_outputs
from lightball.oracles.derivatives import jacobian
from lightball.oracles.minibatch import MinibatchOracle
from lightball.oracles.protocol import Tensors

if TYPE_CHECKING:
    from jaxtyping import Float


class Flattened:
    """All parameters of a small module in one tensor, ``{"x": Float["replica dim"]}``, with its noise covariance.

    For Hessians, SDEs and minimizer manifolds of networks with up to some hundreds of parameters; make the module
    and its data float64. Every draw is one of ``oracle``, which must sample with replacement ("iid").
    """

    def __init__(self, oracle: MinibatchOracle) -> None:
        self.oracle = oracle
        self._shapes = {name: p.shape[1:] for name, p in oracle.start(1).items()}

    def start(self, num_replicas: int) -> Tensors:
        """The start of ``oracle``, whose parameters lie one after another in ``{"x": Float["replica dim"]}``."""
        return self._joined(self.oracle.start(num_replicas))

    def draw(self, num_replicas: int, generator: torch.Generator) -> Tensor:
        """The minibatches of ``oracle``, replica axis first."""
        return self.oracle.draw(num_replicas, generator)

    def noisy_gradient(self, x: Tensors, sample: Tensor) -> tuple[Float[Tensor, "replica"], Tensors]:
        """The loss on the minibatch and its gradient, ``{"x": Float["replica dim"]}``."""
        losses, gradients = self.oracle.noisy_gradient(self.named(x), sample)
        return losses, self._joined(gradients)

    def loss(self, x: Tensors) -> Float[Tensor, "replica"]:
        """Mean loss over all examples; unlike the module's own, it can be differentiated."""
        return self._example_losses(x["x"]).mean(dim=1)

    def noise_factor(self, x: Tensors) -> Float[Tensor, "replica dim example"]:
        """Columns (∇ℓᵢ − ∇L) / √(nB), for n examples and batches of B with replacement."""
        gradients = jacobian(self._example_losses, x["x"])
        centred = gradients - gradients.mean(dim=1, keepdim=True)
        return centred.mT / math.sqrt(self.oracle.sampling.num_examples * self.oracle.sampling.batch_size)

    def named(self, x: Tensors) -> Tensors:
        """The parameters by their names, replica axis first."""
        parts = torch.split(x["x"], [shape.numel() for shape in self._shapes.values()], dim=1)
        return {name: part.reshape(-1, *shape) for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)}

    def _joined(self, parameters: Tensors) -> Tensors:
        return {"x": torch.cat([parameters[name].flatten(1) for name in self._shapes], dim=1)}

    def _example_losses(self, x: Float[Tensor, "replica dim"]) -> Float[Tensor, "replica example"]:
        oracle, num_replicas = self.oracle, len(x)
        outputs = batched_outputs(oracle.model, self.named({"x": x}), oracle.inputs, shared=True)
        targets = oracle.targets.expand(num_replicas, *oracle.targets.shape)
        return oracle.loss_fn(outputs.flatten(0, 1), targets.flatten(0, 1)).reshape(num_replicas, -1)
