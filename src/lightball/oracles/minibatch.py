"""The minibatch oracle: a module, a loss and data, with the gradient of a random minibatch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.oracles.batched import PerExampleLoss, batched_loss, batched_outputs, stack_parameters
from lightball.oracles.protocol import Stream, Tensors
from lightball.oracles.sampling import MinibatchStream, Sampling
from lightball.oracles.seeds import seed_of

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Shaped

# Examples × replicas in one forward pass of an evaluation: large enough to hide the overhead of a call, small enough
# that activations stay in the cache (CPU) and far from filling memory.
_EVALUATION_EXAMPLES = {"cpu": 2**14, "cuda": 2**19}


def build(model_factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The model that ``model_factory`` makes with torch's global generator seeded by ``seed``; it is put back after."""
    gpus = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed_of(use="init", seed=seed))
        return model_factory()


class MinibatchOracle:
    """g = (1/B) Σ_{i ∈ batch} ∇ℓ_i(x): an oracle with σ = 1/√B and Σ the covariance of per-example gradients.

    Args:
        model_factory: makes a model; called once for each seed under that seed's generator. Parameters with
            ``requires_grad=False`` are frozen and must be equal in every model it makes.
        loss_fn: (outputs, targets) → one loss for each example.
        inputs, targets: the data, examples first; kept on ``device``.
        sampling: batch size, with or without replacement.
        device: where replicas live and move.

    Cost: a gradient for R replicas costs R minibatch gradients, and a few passes over R × parameters memory.
    """

    def __init__(
        self,
        model_factory: Callable[[], nn.Module],
        loss_fn: PerExampleLoss,
        inputs: Shaped[Tensor, "example ..."],
        targets: Shaped[Tensor, "example ..."],
        sampling: Sampling,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.model_factory = model_factory
        self.model = build(model_factory, seed=0).to(self.device)
        self.loss_fn = loss_fn
        self.inputs = inputs.to(self.device)
        self.targets = targets.to(self.device)
        self.sampling = sampling

    @property
    def steps_per_epoch(self) -> int:
        return self.sampling.steps_per_epoch

    def init(self, seeds: Sequence[int]) -> Tensors:
        """Initial weights, a function of the seed alone, so that both arms of a pair start alike.

        Raises:
            InputError: a frozen parameter or a buffer differs between seeds; replicas share those.
        """
        unique = list(dict.fromkeys(seeds))
        models = [build(self.model_factory, seed) for seed in unique]
        shared = _shared_tensors(self.model)
        for model in models:
            for name, value in _shared_tensors(model).items():
                if not torch.equal(value.cpu(), shared[name].cpu()):
                    raise InputError(
                        f"'{name}' is a frozen parameter or a buffer but differs between seeds: give every model the "
                        "same one (load it, or seed it inside the model factory)"
                    )
        rows = [unique.index(seed) for seed in seeds]
        return {name: p[rows] for name, p in stack_parameters(models, self.device).items()}

    def stream(self, seeds: Sequence[int]) -> Stream:
        return MinibatchStream(self.sampling, seeds, self.device)

    def start(self, num_replicas: int) -> Tensors:
        """Every replica at the weights of seed 0: a population starts at one point, as in the theory."""
        first = stack_parameters([self.model], self.device)
        return {name: p.expand(num_replicas, *p.shape[1:]).clone() for name, p in first.items()}

    def draw(self, num_replicas: int, generator: torch.Generator) -> Int[Tensor, "replica batch"]:
        """Examples drawn with replacement, on the generator's device.

        Raises:
            InputError: the sampling is without replacement, where a step depends on those before it.
        """
        if self.sampling.kind != "iid":
            raise InputError(
                f"sampling is {self.sampling.kind!r}, whose batches depend on those before them; populations of "
                "nameless replicas require 'iid': use Sampling(..., kind='iid')"
            )
        shape = (num_replicas, self.sampling.batch_size)
        return torch.randint(self.sampling.num_examples, shape, generator=generator, device=generator.device)

    def noisy_gradient(self, x: Tensors, sample: Tensor) -> tuple[Float[Tensor, "replica"], Tensors]:
        with torch.enable_grad():
            leaves = {name: p.detach().requires_grad_() for name, p in x.items()}
            outputs = batched_outputs(self.model, leaves, self.inputs[sample])
            losses = batched_loss(self.loss_fn, outputs, self.targets[sample])
            # Replicas do not meet, so the gradient of the sum holds the gradient of each.
            # That of a parameter which is not used is 0, where torch.optim.SGD would skip it.
            gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
        return losses.detach(), dict(zip(leaves, gradients, strict=True))

    def loss(self, x: Tensors) -> Float[Tensor, "replica"]:
        """Mean loss over all training examples, for each replica."""
        return self.evaluate(x, self.inputs, self.targets, self.loss_fn)

    @torch.no_grad()
    def evaluate(self, x: Tensors, inputs: Tensor, targets: Tensor, fn: PerExampleLoss) -> Float[Tensor, "replica"]:
        """Mean of ``fn(outputs, targets)`` over the given examples, for each replica, summed in float64."""
        num_replicas = next(iter(x.values())).shape[0]
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        total = torch.zeros(num_replicas, dtype=torch.float64, device=self.device)
        width = max(1, _EVALUATION_EXAMPLES[self.device.type] // num_replicas)
        for i, t in zip(torch.split(inputs, width), torch.split(targets, width), strict=True):
            outputs = batched_outputs(self.model, x, i, shared=True)
            total += batched_loss(fn, outputs, t.expand(num_replicas, *t.shape)) * len(t)
        return total / len(inputs)


def _shared_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What replicas have in common: frozen parameters and buffers."""
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    return {**frozen, **dict(model.named_buffers())}
