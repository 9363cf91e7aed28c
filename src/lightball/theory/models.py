"""Small overparametrized models with label noise, which slide along their minimizers to flat ones.

Every model starts on the manifold of its minimizers. With label noise of variance s² on each of n examples the slow
SDE is the flow dζ/dt = −(s²/4n) P ∇tr H.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightball.dynamics.manifold import hessian_trace, project, sharpness
from lightball.oracles import CovarianceOracle, LabelNoise, generator

if TYPE_CHECKING:
    from lightball.dynamics.population import Observable

_F64 = torch.float64
TRACE, SHARPNESS = "tr H", "λ_max"


@dataclass(frozen=True)
class Model:
    """A problem for the long horizon, and what suits it.

    Args:
        name: as on the command line.
        about: what it is, in a sentence.
        oracle: should start on the manifold.
        observables: by name; the first is the one of which tables and answers speak.
        slow_time: the time t = η²k at the end.
        etas: learning rates.
        trajectories: of SGD and of SGDM, at each rate.
        sde_trajectories: of the slow SDE; one is all where noise is across the manifold only, as label noise is.
    """

    name: str
    about: str
    oracle: CovarianceOracle
    observables: Mapping[str, Observable]
    slow_time: float
    etas: tuple[float, ...]
    trajectories: int
    sde_trajectories: int = 1


def hyperbola(device: str = "cpu") -> Model:
    """L(x, y) = ½ (xy − 1)², label noise of variance ¼, from (2, ½); x² − y² = 3.75 e^{−t/4} in the slow SDE.

    Along (eˢ, e⁻ˢ) tr H = 2 cosh 2s, and the slow SDE is ds/dt = −⅛ tanh 2s; x² − y² = 2 sinh 2s.
    """
    x0 = torch.tensor([2.0, 0.5], dtype=_F64, device=device)
    oracle = LabelNoise(lambda p: p.prod(dim=1, keepdim=True), x0.new_ones(1), 0.5, x0)
    return Model(
        name="hyperbola",
        about="L(x, y) = ½(xy − 1)² with label noise of variance ¼, from (2, ½); x = y = 1 is its flattest minimizer.",
        oracle=oracle,
        observables={"x² − y²": lambda x, m: x["x"][:, 0] ** 2 - x["x"][:, 1] ** 2, **_flatness(oracle)},
        slow_time=4.0,
        etas=(0.1, 0.05, 0.025),
        trajectories=4_000,
    )


def diagonal_net(device: str = "cpu") -> Model:
    """f(u, v) = ⟨a, u² − v²⟩ with 5 examples of 8 features of norm 1, labels of one feature, noise of variance 1.

    tr H = 4/5 (|u|² + |v|²), so the flattest minimizer is that of the smallest ℓ₁ norm of u² − v²: sparse weights.
    """
    dim, examples = 8, 5
    features = torch.randn(examples, dim, generator=generator(model="diagonal-net", data=1), dtype=_F64)
    features = (features / features.norm(dim=0)).to(device)
    truth = torch.eye(dim, dtype=_F64, device=device)[0]

    def weights(p: Tensor) -> Tensor:
        return p[:, :dim] ** 2 - p[:, dim:] ** 2

    oracle = _on_manifold(
        lambda p: weights(p) @ features.mT,
        features @ truth,
        1.0,
        torch.full((2 * dim,), 0.7, dtype=_F64, device=device),
    )
    return Model(
        name="diagonal-net",
        about="A diagonal linear network, f = ⟨a, u² − v²⟩, with 5 examples of 8 features, labels that need one of "
        "them, and label noise of variance 1; its flattest minimizer has the smallest ℓ₁ norm.",
        oracle=oracle,
        observables={
            **_flatness(oracle),
            "squared error of weights": lambda x, m: (weights(x["x"]) - truth).square().sum(dim=1),
        },
        slow_time=8.0,
        etas=(0.2, 0.1, 0.05),
        trajectories=1_000,
    )


OBSERVED = ("xx..", ".xx.", "..xx", "x.xx")


def matrix(device: str = "cpu") -> Model:
    """Completion of a 4 × 4 matrix of rank 1 from 9 entries by U Vᵀ of rank up to 2; label noise of variance 1.

    tr H is a weighted sum of squares of U and V: a flat minimizer has a small nuclear norm, so a low rank.
    """
    size, rank = len(OBSERVED), 2
    truth = torch.outer(*torch.tensor([[1.0, 1, -1, 1], [1, -1, 1, 1]], dtype=_F64, device=device)).flatten()
    seen = torch.tensor([entry == "x" for row in OBSERVED for entry in row], device=device)
    # Entry (i, j) is Σ_r U_ir V_jr: factors of all entries by two products with selections, faster than indexing.
    u, v = torch.eye(2 * size * rank, dtype=_F64, device=device).view(2 * size * rank, 2, size, rank).unbind(dim=1)
    left = u[:, :, None].expand(-1, -1, size, -1).flatten(1, 2)
    right = v[:, None].expand(-1, size, -1, -1).flatten(1, 2)

    def entries(of: Tensor) -> Callable[[Tensor], Tensor]:
        a, b = left[:, of].flatten(1), right[:, of].flatten(1)
        add = torch.eye(int(of.sum()), dtype=_F64, device=device).repeat_interleave(rank, dim=0)
        return lambda p: ((p @ a) * (p @ b)) @ add

    observed, hidden = entries(seen), entries(~seen)
    start = 0.8 * torch.randn(2 * size * rank, generator=generator(model="matrix", start=0), dtype=_F64)
    oracle = _on_manifold(observed, truth[seen], 1.0, start.to(device))
    return Model(
        name="matrix",
        about="Completion of a 4 × 4 matrix of rank 1 from 9 of its entries by a product U Vᵀ of rank up to 2, with "
        "label noise of variance 1; flat minimizers have small factors, and so a low rank.",
        oracle=oracle,
        observables={
            **_flatness(oracle),
            "error on hidden entries": lambda x, m: (hidden(x["x"]) - truth[~seen]).square().mean(dim=1),
        },
        slow_time=20.0,
        etas=(0.4, 0.2, 0.1),
        trajectories=1_000,
    )


MODELS: dict[str, Callable[[str], Model]] = {"hyperbola": hyperbola, "diagonal-net": diagonal_net, "matrix": matrix}


def _on_manifold(predict: Callable[[Tensor], Tensor], targets: Tensor, noise_std: float, x: Tensor) -> LabelNoise:
    """The oracle that starts where gradient flow from x ends."""
    start = project(LabelNoise(predict, targets, noise_std, x), {"x": x[None]})["x"][0]
    return LabelNoise(predict, targets, noise_std, start)


def _flatness(oracle: LabelNoise) -> dict[str, Observable]:
    return {TRACE: lambda x, m: hessian_trace(oracle, x), SHARPNESS: lambda x, m: sharpness(oracle, x)}
