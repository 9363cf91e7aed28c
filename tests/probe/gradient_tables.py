"""Real gradients of single examples with the dense truth about them, and an objective that looks them up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from lightball.workloads.digits import digits

STEPS = {"start": 0, "middle": 300, "late": 3000}


@dataclass(frozen=True)
class Table:
    """Gradients of all training examples, and the Hessian of their mean loss; stands in for an Objective."""

    gradients: Tensor
    hessian: Tensor

    @property
    def dim(self) -> int:
        return self.gradients.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.gradients.dtype

    @property
    def device(self) -> torch.device:
        return self.gradients.device

    def loss_and_gradient(self, batch: Tensor, number: int = 0) -> tuple[float, Tensor]:
        return 0.0, self.gradients[batch].mean(dim=0)

    @property
    def mean(self) -> Tensor:
        return self.gradients.mean(dim=0)

    @property
    def covariance_trace(self) -> float:
        return float((self.gradients - self.mean).square().sum(dim=1).mean())

    @property
    def noise_curvature(self) -> float:
        apart = self.gradients - self.mean
        return float(((apart @ self.hessian) * apart).sum(dim=1).mean())

    def batches(self, count: int, examples: int, seed: int) -> list[Tensor]:
        """So many examples drawn without replacement, cut into microbatches."""
        order = torch.randperm(len(self.gradients), generator=torch.Generator().manual_seed(seed))
        return list(order[:examples].tensor_split(count))


@cache
def table(phase: str) -> Table:
    """A perceptron 64-8-10 on the digits, in float64, after so many steps of training; 1,078 examples.

    Late, a hundredth of the examples has more than half of the covariance.
    """
    net = small_net(8)
    data = digits().train
    inputs, targets = data.inputs.double(), data.targets
    train(net, STEPS[phase])
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def one(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(net, p, (x[None],)), y[None])

    per_example = vmap(grad(one), (None, 0, 0))(parameters, inputs, targets)
    gradients = torch.cat([g.flatten(1) for g in per_example.values()], dim=1)
    return Table(gradients, dense_hessian(net, inputs, targets))


def small_net(width: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)).double()


def train(net: nn.Module, steps: int, lr: float = 0.5, momentum: float = 0.0) -> torch.optim.SGD:
    data = digits().train
    random = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    own = next(net.parameters()).dtype
    for _ in range(steps):
        drawn = torch.randint(0, len(data.inputs), (32,), generator=random)
        optimizer.zero_grad()
        cross_entropy(net(data.inputs[drawn].to(own)), data.targets[drawn]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def dense_hessian(net: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """By two passes of automatic differentiation over all entries."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    sizes = [p.numel() for p in parameters.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = {k: v.view_as(p) for (k, p), v in zip(parameters.items(), flat.split(sizes), strict=True)}
        return cross_entropy(functional_call(net, parts, (inputs,)), targets)

    return torch.func.hessian(loss)(torch.cat([p.flatten() for p in parameters.values()]))
