"""Small tasks whose curvature can be written out, for tests of the probe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightball.probe.objective import Objective, supervised
from lightball.workloads import cross_entropy
from lightball.workloads.digits import digits

LOSS = supervised(cross_entropy)


def digit_batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    """The first digits, float64, in batches of these sizes."""
    train = digits().train
    inputs, targets = train.inputs.double()[: sum(sizes)], train.targets[: sum(sizes)]
    return list(zip(inputs.split(list(sizes)), targets.split(list(sizes)), strict=True))


def perceptron(hidden: int, num_steps: int = 0) -> nn.Module:
    """64-hidden-10, float64, after some steps of SGDM from seed 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    [(inputs, targets)] = digit_batches(512)
    for step in range(num_steps):
        some = slice(64 * (step % 8), 64 * (step % 8) + 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[some]), targets[some]).backward()
        optimizer.step()
    model.zero_grad()
    return model


def dense_gauss_newton(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Σᵢ Jᵢᵀ (diag p − p pᵀ) Jᵢ / n of cross-entropy, from Jacobians of single outputs."""
    rows = []
    for output in model(inputs).flatten():
        gradients = torch.autograd.grad(output, list(model.parameters()), retain_graph=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    jacobian = torch.stack(rows).reshape(len(targets), -1, len(rows[0]))
    p = model(inputs).softmax(dim=1).detach()
    bend = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("nod,nop,npe->de", jacobian, bend, jacobian) / len(targets)


def dense_hessian(model: nn.Module, batches: list, loss=LOSS, step: float = 1e-6) -> Tensor:
    """Central differences of plain gradients of all examples together; right to about 1e-8."""
    joint = [tuple(torch.cat(parts) for parts in zip(*batches, strict=True))]
    objective = Objective(model, loss)
    columns = []
    for unit in torch.eye(objective.dim, dtype=objective.dtype):
        above, below = (objective.shifted(s * step * unit).loss_and_gradient(joint[0])[1] for s in (1, -1))
        columns.append((above - below) / (2 * step))
    return torch.stack(columns)
