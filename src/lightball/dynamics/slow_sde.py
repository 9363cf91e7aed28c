"""The slow SDE: how SGD, with or without momentum, moves along the manifold of minimizers Γ over O(1/η²) steps.

In the time t = η²k, with P and N the projections onto tangent and normal space, Σ the covariance of one gradient,
Σ_∥ = PΣP, Σ_⊥ = NΣN, and ∂²(∇L)[M] = ∇ tr(H M) at constant M (arXiv:2110.06914, Theorem 4.6; arXiv:2307.15196, §5):

    dζ = P Σ^{1/2} dW − ½ H† ∂²(∇L)[Σ_∥] dt − P ∂²(∇L)[H†ΣP] dt − ½ P ∂²(∇L)[𝓛_H⁻¹ Σ_⊥] dt

The drift is ½ ∂²Φ[Σ]: noise along Γ, noise along times across it, noise across it. Momentum does not occur.

    >>> import torch
    >>> from lightball.oracles import LabelNoise
    >>> from lightball.dynamics.manifold import hessian_trace
    >>> x0 = torch.tensor([2.0, 0.5], dtype=torch.float64)
    >>> oracle = LabelNoise(lambda p: p.prod(dim=1, keepdim=True), torch.ones(1), noise_std=0.5, x0=x0)
    >>> path = simulate_slow(oracle, slow_time=4.0, dt=0.1, observables={"tr H": lambda x, m: hessian_trace(oracle, x)})
    >>> path.mean[[0, -1], 0].round(3)
    array([4.25, 2.43])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightball.dynamics.gradient_flow import sizes
from lightball.dynamics.manifold import RANK_TOLERANCE, Geometry, geometry, geometry_of, project, retract
from lightball.errors import InputError
from lightball.oracles.derivatives import hessian
from lightball.oracles.seeds import seed_of

if TYPE_CHECKING:
    from jaxtyping import Float

    from lightball.dynamics.population import Observable
    from lightball.oracles.protocol import CovarianceOracle, Tensors

_HESSIAN_ENTRIES = 2**22  # of all trajectories that are moved at once
# Where Γ ends the smallest curvature across it is a square, c s² at a distance s. A step over the end passes half of s
# in its first stage, or else twice s in its last one.
_MOST_BENT = 4.0  # times as curved, or as flat, within one step


@dataclass(frozen=True)
class Point:
    """What the slow SDE depends on at points of Γ.

    ``third`` gives ∂²(∇L)[M] = ∇ tr(H M), for symmetric and other M; ``factor`` S with S Sᵀ = Σ.
    """

    geometry: Geometry
    third: Callable[[Float[Tensor, "replica dim dim"]], Float[Tensor, "replica dim"]]
    factor: Float[Tensor, "replica dim noise"]

    @property
    def covariance(self) -> Float[Tensor, "replica dim dim"]:
        """Σ = S Sᵀ."""
        return self.factor @ self.factor.mT


def point(oracle: CovarianceOracle, x: Tensors, rank: int | None = None) -> Point:
    """The loss and its noise around points of Γ; one Hessian, and one derivative of it for each use of ``third``.

    Raises:
        InputError: the points are no minimizers on one manifold (not checked where the ``rank`` is given).
    """
    hessians, pull_back, *_ = torch.func.vjp(lambda p: hessian(oracle, {"x": p}), x["x"])
    return Point(geometry_of(hessians, rank), lambda matrix: pull_back(matrix)[0], oracle.noise_factor(x))


def along_drift(at: Point) -> Float[Tensor, "replica dim"]:
    """−½ H† ∂²(∇L)[Σ_∥]: what keeps noise along Γ on it where it bends; normal to Γ."""
    p = at.geometry.tangent_projection()
    return -0.5 * _apply(at.geometry.pseudo_inverse(), at.third(p @ at.covariance @ p))


def mixed_drift(at: Point) -> Float[Tensor, "replica dim"]:
    """−P ∂²(∇L)[H† Σ_⊥,∥], from the correlation of noise along Γ and across it; tangent to Γ."""
    p = at.geometry.tangent_projection()
    return -_apply(p, at.third(at.geometry.pseudo_inverse() @ at.covariance @ p))


def across_drift(at: Point) -> Float[Tensor, "replica dim"]:
    """−½ P ∂²(∇L)[𝓛_H⁻¹ Σ_⊥], to where the loss is flatter across Γ; tangent to Γ. Label noise has this term only."""
    lyapunov = at.geometry.inverse_lyapunov(at.covariance)
    return -0.5 * _apply(at.geometry.tangent_projection(), at.third(lyapunov))


def drift(at: Point) -> Float[Tensor, "replica dim"]:
    """½ ∂²Φ[Σ], the sum of the three."""
    return along_drift(at) + mixed_drift(at) + across_drift(at)


def diffusion(at: Point) -> Float[Tensor, "replica dim noise"]:
    """P S, a square root of Σ_∥: (P S)(P S)ᵀ = Σ_∥."""
    return at.geometry.tangent_projection() @ at.factor


@dataclass(frozen=True)
class SlowPath:
    """Observables of the slow SDE at recorded times: means over trajectories, and their standard errors (0 for one).

    ``times`` are slow times t = η²k, and ``dt`` the steps between them that were taken.
    """

    times: Float[np.ndarray, "record"]
    observables: tuple[str, ...]
    num_trajectories: int
    mean: Float[np.ndarray, "record observable"]
    standard_error: Float[np.ndarray, "record observable"]
    dt: float


def simulate_slow(
    oracle: CovarianceOracle,
    *,
    slow_time: float,
    dt: float,
    observables: Mapping[str, Observable],
    num_trajectories: int = 1,
    num_records: int = 51,
    draws: int = 1,
    start: Float[Tensor, "dim"] | None = None,
    seed: int = 0,
) -> SlowPath:
    """Simulate the slow SDE from Φ(start).

    Steps of Runge and Kutta's method in the drift and of Euler and Maruyama's in the noise, each taken back to Γ by
    :func:`~lightball.dynamics.manifold.retract`. Error: O(dt⁴) without noise along Γ, O(dt) in the mean of observables
    with it. Cost: four Hessians and twelve derivatives of them a step and trajectory; some hundreds of dimensions are
    feasible. Memory: the observables of every trajectory at the recorded times.

    Args:
        slow_time: until which t; η²k after k steps at learning rate η.
        dt: the longest step of t; steps are shortened to fit whole between the records.
        observables: by name, functions of x and m as in :func:`~lightball.dynamics.population.simulate`; m is zero.
        num_trajectories: one is enough where no noise is along Γ, as with label noise: the path is then certain.
        num_records: how many times are recorded, evenly spaced, both ends among them.
        draws: of the noise in a step. A path with 2 has the noise of one with 1 and half the ``dt``, at the same seed,
            so that their difference is the error of the step: that of the finer path, where it is O(dt).
        start: by default that of the oracle.

    Raises:
        InputError: a time that is not positive, an oracle without a manifold of minimizers, a step that is too long, or
            that comes to an end of the manifold.
    """
    for name, value in {"slow_time": slow_time, "dt": dt}.items():
        if not 0 < value < math.inf:
            raise InputError(f"{name} is {value:g}; required is a finite number > 0")
    if num_trajectories < 1 or num_records < 2 or draws < 1:
        raise InputError(
            f"num_trajectories is {num_trajectories}, num_records {num_records} and draws {draws}; required are at "
            "least 1, 2 and 1"
        )
    between = math.ceil(slow_time / (num_records - 1) / dt * (1 - 1e-12))
    step = slow_time / (num_records - 1) / between
    begun = oracle.start(1) if start is None else {"x": start[None]}
    first = project(oracle, begun)["x"]
    move = _Move(oracle, geometry(oracle, {"x": first}).rank, sizes(begun["x"]), step, draws)
    width = max(1, _HESSIAN_ENTRIES // first.shape[1] ** 2)
    parts = []
    for chunk, done in enumerate(range(0, num_trajectories, width)):
        generator = torch.Generator(first.device).manual_seed(seed_of(use="slow", seed=seed, chunk=chunk))
        x: Tensors = {"x": first.repeat(min(width, num_trajectories - done), 1)}
        here = point(oracle, x, move.rank)
        records = [_observe(observables, x)]
        for _ in range(num_records - 1):
            for _ in range(between):
                x, here = move.step(x, here, generator)
            records.append(_observe(observables, x))
        parts.append(np.stack(records))
    values = np.concatenate(parts, axis=1)  # record trajectory observable
    spread = values.std(axis=1, ddof=1) if num_trajectories > 1 else np.zeros_like(values[:, 0])
    return SlowPath(
        times=np.linspace(0, slow_time, num_records),
        observables=tuple(observables),
        num_trajectories=num_trajectories,
        mean=values.mean(axis=1),
        standard_error=spread / math.sqrt(num_trajectories),
        dt=step,
    )


@dataclass(frozen=True)
class _Move:
    """The classical Runge–Kutta step of order 4, every stage on Γ; noise drives it evenly, by the factor at x."""

    oracle: CovarianceOracle
    rank: int
    sizes: Float[Tensor, "1"]
    dt: float
    draws: int

    def step(self, x: Tensors, here: Point, generator: torch.Generator) -> tuple[Tensors, Point]:
        noise = math.sqrt(self.dt) * self._noise(diffusion(here), generator)
        speed = self.dt * drift(here) + noise
        moved = speed / 6
        for reach, weight in ((0.5, 1 / 3), (0.5, 1 / 3), (1.0, 1 / 6)):
            _, stage = self._on_manifold(x["x"] + reach * speed, here)
            speed = self.dt * drift(stage) + noise
            moved = moved + weight * speed
        return self._on_manifold(x["x"] + moved, here)

    def _noise(self, spread: Float[Tensor, "replica dim noise"], generator: torch.Generator) -> Tensor:
        replicas, _, size = spread.shape
        z = torch.zeros(replicas, size, dtype=spread.dtype, device=generator.device)
        for _ in range(self.draws):
            z += torch.randn(replicas, size, generator=generator, dtype=spread.dtype, device=generator.device)
        return _apply(spread, z / math.sqrt(self.draws))

    def _on_manifold(self, x: Float[Tensor, "replica dim"], here: Point) -> tuple[Tensors, Point]:
        back = retract(self.oracle, {"x": x}, here.geometry, self.sizes)
        there = point(self.oracle, back, self.rank)
        _require_manifold(here.geometry, there.geometry)
        return back, there


def _require_manifold(here: Geometry, there: Geometry) -> None:
    lowest, largest = there.curvatures[:, 0], there.curvatures[:, -1]
    before = here.curvatures[:, 0]
    going_on = (lowest > RANK_TOLERANCE * largest) & (lowest >= before / _MOST_BENT) & (lowest <= before * _MOST_BENT)
    if not bool(going_on.all()):
        worst = int(going_on.int().argmin())
        raise InputError(
            f"the smallest curvature across the minimizers goes from {float(before[worst]):.3g} to "
            f"{float(lowest[worst]):.3g} in one step of the slow SDE: use a smaller time step; where none is small "
            "enough, the manifold ends there, as the Hessian loses rank: stop at an earlier time"
        )


def _observe(observables: Mapping[str, Observable], x: Tensors) -> np.ndarray:
    zero = {"x": torch.zeros_like(x["x"])}
    values = [observe(x, zero).double().cpu().numpy() for observe in observables.values()]
    return np.stack(values, axis=-1) if values else np.empty((len(x["x"]), 0))


def _apply(matrix: Float[Tensor, "replica dim other"], vector: Float[Tensor, "replica other"]) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]
