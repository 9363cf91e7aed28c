"""What `ensemble.py` measures: the same steps of the same populations by other libraries, each as it is best used."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

TRAJECTORIES, DIM, EXAMPLES = 20_000, 10, 5
NETWORKS = TRAJECTORIES // 2
LR, MOMENTUM, NOISE = 0.1, 0.9, 1.0
NETWORK_LR = 0.01
SHAPE = (TRAJECTORIES, DIM)
Run = Callable[[int], float]
"""Number of steps → seconds."""


def timed(step: Callable[[], Any], device: str = "cpu") -> Run:
    def run(num_steps: int) -> float:
        start = time.perf_counter()
        for _ in range(num_steps):
            step()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return run


def normals(device: str = "cpu") -> Run:
    """The limit of one thread: nothing but the noise, in a buffer that fits its cache as the population's do."""
    noise = torch.empty((TRAJECTORIES // 2, DIM), device=device)
    generator = torch.Generator(device).manual_seed(0)

    def step() -> None:
        noise.normal_(generator=generator)
        noise.normal_(generator=generator)

    return timed(step, device)


def curvature() -> torch.Tensor:
    return torch.linspace(0.1, 1.0, DIM)


def torch_quadratic(device: str = "cpu") -> Run:
    """A plain loop with buffers that are reused."""
    h = curvature().to(device)
    x, m, noise, g = (torch.ones(SHAPE, device=device) for _ in range(4))
    generator = torch.Generator(device).manual_seed(0)

    def step() -> None:
        noise.normal_(generator=generator)
        torch.mul(x, h, out=g).add_(noise, alpha=NOISE)
        m.mul_(MOMENTUM).add_(g, alpha=1 - MOMENTUM)
        x.add_(m, alpha=-LR)

    return timed(step, device)


def numpy_quadratic() -> Run:
    h = curvature().numpy()
    x, m, noise, g = (np.ones(SHAPE, dtype=np.float32) for _ in range(4))
    generator = np.random.default_rng(0)

    def step() -> None:
        generator.standard_normal(out=noise, dtype=np.float32)
        np.multiply(x, h, out=g)
        np.add(g, noise, out=g)
        np.multiply(m, np.float32(MOMENTUM), out=m)
        np.multiply(g, np.float32(1 - MOMENTUM), out=g)
        np.add(m, g, out=m)
        np.multiply(m, np.float32(LR), out=g)
        np.subtract(x, g, out=x)

    return timed(step)


def torchsde_quadratic() -> Run:
    """dX = −hX dt + √η σ dW by Euler–Maruyama with dt = η: a step of SGD, without momentum."""
    h = curvature()

    class Equation(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return -h * x

        def g(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x, math.sqrt(LR) * NOISE)

    return _torchsde(Equation(), torch.ones(SHAPE), LR)


def _torchsde(equation: torch.nn.Module, start: torch.Tensor, lr: float) -> Run:
    import torchsde

    @torch.no_grad()
    def run(num_steps: int) -> float:
        begin = time.perf_counter()
        torchsde.sdeint(equation, start, torch.tensor([0.0, num_steps * lr]), method="euler", dt=lr, adaptive=False)
        return time.perf_counter() - begin

    return run


def diffrax_quadratic() -> Run:
    """The same equation, jitted and compiled beforehand, with the fastest of diffrax's Brownian paths."""
    import jax.numpy as jnp
    import lineax

    h = jnp.asarray(curvature().numpy())
    noise = lineax.DiagonalLinearOperator(jnp.full(SHAPE, math.sqrt(LR) * NOISE))
    return _diffrax(lambda t, x, args: -h * x, lambda t, x, args: noise, SHAPE, jnp.ones(SHAPE), LR)


def _diffrax(drift: Any, diffusion: Any, noise_shape: tuple[int, int], start: Any, lr: float) -> Run:
    import diffrax
    import jax
    import jax.numpy as jnp

    def solve(num_steps: int, key: Any) -> Any:
        path = diffrax.UnsafeBrownianPath(shape=jax.ShapeDtypeStruct(noise_shape, jnp.float32), key=key)
        solution = diffrax.diffeqsolve(
            diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path)),
            diffrax.Euler(),
            t0=0.0,
            t1=num_steps * lr,
            dt0=lr,
            y0=start,
            max_steps=num_steps + 1,
            adjoint=diffrax.ForwardMode(),
        )
        return solution.ys

    solve = jax.jit(solve, static_argnums=0)
    ready: set[int] = set()

    def run(num_steps: int) -> float:
        if num_steps not in ready:
            jax.block_until_ready(solve(num_steps, jax.random.key(0)))
            ready.add(num_steps)
        begin = time.perf_counter()
        jax.block_until_ready(solve(num_steps, jax.random.key(1)))
        return time.perf_counter() - begin

    return run


def network() -> tuple[torch.Tensor, torch.Tensor]:
    """Features and targets of the diagonal network f(u, v) = A (u² − v²), with 2 · DIM parameters."""
    features = torch.randn((EXAMPLES, DIM), generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(DIM)
    weights[:2] = 1.0
    return features, features @ weights


def torch_network(device: str = "cpu") -> Run:
    """The gradient by hand: 2u ∘ Aᵀr/n and −2v ∘ Aᵀr/n, with r = A(u² − v²) − y − noise."""
    features, targets = (value.to(device) for value in network())
    x, m = torch.ones((NETWORKS, 2 * DIM), device=device), torch.zeros((NETWORKS, 2 * DIM), device=device)
    noise = torch.empty((NETWORKS, EXAMPLES), device=device)
    generator = torch.Generator(device).manual_seed(0)
    u, v = x[:, :DIM], x[:, DIM:]
    g = torch.empty_like(x)

    def step() -> None:
        noise.normal_(generator=generator)
        residuals = torch.addmm(targets, u * u - v * v, features.T).sub_(noise, alpha=NOISE)
        slope = (residuals @ features).mul_(2 / EXAMPLES)
        torch.mul(u, slope, out=g[:, :DIM])
        torch.mul(v, slope.neg_(), out=g[:, DIM:])
        m.mul_(MOMENTUM).add_(g, alpha=1 - MOMENTUM)
        x.add_(m, alpha=-NETWORK_LR)

    return timed(step, device)


def numpy_network() -> Run:
    features, targets = (value.numpy() for value in network())
    x, m = np.ones((NETWORKS, 2 * DIM), np.float32), np.zeros((NETWORKS, 2 * DIM), np.float32)
    noise = np.empty((NETWORKS, EXAMPLES), np.float32)
    generator = np.random.default_rng(0)
    u, v = x[:, :DIM], x[:, DIM:]
    g = np.empty_like(x)

    def step() -> None:
        generator.standard_normal(out=noise, dtype=np.float32)
        residuals = (u * u - v * v) @ features.T - targets - np.float32(NOISE) * noise
        slope = (residuals @ features) * np.float32(2 / EXAMPLES)
        np.multiply(u, slope, out=g[:, :DIM])
        np.multiply(v, -slope, out=g[:, DIM:])
        np.multiply(m, np.float32(MOMENTUM), out=m)
        np.multiply(g, np.float32(1 - MOMENTUM), out=g)
        np.add(m, g, out=m)
        np.multiply(m, np.float32(NETWORK_LR), out=g)
        np.subtract(x, g, out=x)

    return timed(step)


def torchsde_network() -> Run:
    """dX = −∇L dt + √η S dW by Euler–Maruyama with dt = η; the columns of S are σ ∇fᵢ / n, so that the product S dW,
    which torchsde takes together with the drift, needs no matrix for each network."""
    features, targets = network()

    def upwards(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """2u ∘ Aᵀs/n and −2v ∘ Aᵀs/n for s of (network, example)."""
        back = (slope @ features) * (2 / EXAMPLES)
        return torch.cat((x[:, :DIM] * back, x[:, DIM:] * -back), dim=1)

    class Equation(torch.nn.Module):
        noise_type, sde_type = "general", "ito"

        def f(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            u, v = x[:, :DIM], x[:, DIM:]
            return upwards(x, targets - (u * u - v * v) @ features.T)

        def g(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            columns = [upwards(x, row.expand(len(x), -1)) for row in torch.eye(EXAMPLES)]
            return math.sqrt(NETWORK_LR) * NOISE * torch.stack(columns, dim=2)

        def f_and_g_prod(self, t: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.f(t, x), upwards(x, math.sqrt(NETWORK_LR) * NOISE * w)

    return _torchsde(Equation(), torch.ones((NETWORKS, 2 * DIM)), NETWORK_LR)


def diffrax_network() -> Run:
    """The same equation, with S as a function of dW instead of a matrix."""
    import jax
    import jax.numpy as jnp
    import lineax

    features, targets = (jnp.asarray(value.numpy()) for value in network())
    noise_shape = (NETWORKS, EXAMPLES)

    def upwards(x: Any, slope: Any) -> Any:
        back = (slope @ features) * (2 / EXAMPLES)
        return jnp.concatenate((x[:, :DIM] * back, x[:, DIM:] * -back), axis=1)

    def drift(t: Any, x: Any, args: Any) -> Any:
        u, v = x[:, :DIM], x[:, DIM:]
        return upwards(x, targets - (u * u - v * v) @ features.T)

    def diffusion(t: Any, x: Any, args: Any) -> Any:
        return lineax.FunctionLinearOperator(
            lambda w: upwards(x, math.sqrt(NETWORK_LR) * NOISE * w), jax.ShapeDtypeStruct(noise_shape, jnp.float32)
        )

    return _diffrax(drift, diffusion, noise_shape, jnp.ones((NETWORKS, 2 * DIM)), NETWORK_LR)
