"""Φ against closed forms and another integrator; tangent and normal spaces; losses without a manifold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from lightball.dynamics.manifold import geometry, hessian_trace, project, retract, sharpness
from lightball.errors import InputError
from lightball.oracles import Flattened, FunctionOracle, MinibatchOracle, Sampling
from lightball.oracles.derivatives import gradient, hessian


def oracle_of(loss: Callable[[Tensor], Tensor], *x0: float) -> FunctionOracle:
    return FunctionOracle(
        loss, lambda n, g: torch.zeros(n, len(x0), dtype=torch.float64), torch.tensor(x0, dtype=torch.float64)
    )


def bent(x: Tensor) -> Tensor:
    """Two equations in four dimensions: Γ is a curved surface."""
    one = x[:, 0] * x[:, 2] - 1 + 0.3 * x[:, 1] ** 2
    two = x[:, 1] * x[:, 3] - 0.5 * x[:, 0] + 0.2 * x[:, 2] ** 3
    return 0.5 * (one**2 + 3 * two**2)


BENT = oracle_of(bent, 1.1, 0.7, 0.9, 0.4)
STARTS = {"x": torch.tensor([[1.1, 0.7, 0.9, 0.4], [1.4, -0.5, 0.8, 0.1], [0.7, 1.0, 1.2, 0.6]], dtype=torch.float64)}
HYPERBOLA = oracle_of(lambda x: 0.5 * (x.prod(dim=1) - 1) ** 2, 2.0, 0.5)


def test_limit_of_gradient_flow_in_closed_form() -> None:
    # The flow keeps x² − y², and ends on xy = 1: the last start is far, where the loss is not convex.
    x = torch.tensor([[2.0, 0.5], [2.0, 1.0], [3.0, -0.2], [0.1, 0.2], [5.0, 4.0]], dtype=torch.float64)
    kept = x[:, 0] ** 2 - x[:, 1] ** 2
    root = torch.sqrt((kept + torch.sqrt(kept**2 + 4)) / 2)
    torch.testing.assert_close(project(HYPERBOLA, {"x": x})["x"], torch.stack([root, 1 / root], 1), rtol=0, atol=1e-13)


def test_limit_of_a_stiff_flow() -> None:
    # Curvatures 4,000 and 1; z follows x slowly to xy = 1, z = x, and pulls x along.
    k = 1_000.0
    stiff = oracle_of(lambda x: 0.5 * k * (x[:, 0] * x[:, 1] - 1) ** 2 + 0.5 * (x[:, 2] - x[:, 0]) ** 2, 2.0, 0.5, 0.0)

    def slope(_: float, p: np.ndarray) -> np.ndarray:
        x, y, z = p
        return -np.array([k * (x * y - 1) * y + x - z, k * (x * y - 1) * x, z - x])

    limit = solve_ivp(slope, (0, 60), [2.0, 0.5, 0.0], method="Radau", rtol=1e-10, atol=1e-12).y[:, -1]
    found = project(stiff, stiff.start(1))["x"][0].numpy()
    np.testing.assert_allclose(found, limit, rtol=0, atol=1e-8)
    assert abs(found[0] * found[1] - 1) < 1e-14


def test_limit_of_a_curved_flow_against_scipy() -> None:
    found = project(BENT, STARTS)["x"]
    for start, limit in zip(STARTS["x"], found, strict=True):
        flown = solve_ivp(
            lambda _, p: -gradient(BENT, {"x": torch.from_numpy(p)[None]})[0].numpy(),
            (0, 80),
            start.numpy(),
            method="DOP853",
            rtol=1e-12,
            atol=1e-13,
        )
        np.testing.assert_allclose(limit.numpy(), flown.y[:, -1], rtol=0, atol=1e-11)


def test_a_start_alone_or_among_others_ends_at_the_same_point() -> None:
    together = project(BENT, STARTS)["x"]
    alone = torch.cat([project(BENT, {"x": start[None]})["x"] for start in STARTS["x"]])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-13)
    torch.testing.assert_close(project(BENT, {"x": together})["x"], together, rtol=0, atol=1e-14)


def test_projections() -> None:
    x = project(BENT, STARTS)
    spaces, h = geometry(BENT, x), hessian(BENT, x)
    p, n, inverse = spaces.tangent_projection(), spaces.normal_projection(), spaces.pseudo_inverse()
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=1e-12)  # noqa: E731
    close(p @ p, p)
    close(p, p.mT)
    close(p + n, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))
    close(torch.einsum("rii->r", p), torch.full((3,), 2.0, dtype=torch.float64))
    close(p @ h, torch.zeros_like(h))
    close(h @ inverse, n)
    close(inverse, torch.linalg.pinv(h, rtol=1e-9, hermitian=True))
    close(spaces.curvatures.sum(dim=1), hessian_trace(BENT, x))
    close(spaces.curvatures[:, -1], sharpness(BENT, x))
    m = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = spaces.inverse_lyapunov(m)
    close(h @ y + y @ h, n @ m @ n)


def test_tangent_projection_is_the_derivative_of_the_limit() -> None:
    x, h = project(BENT, {"x": STARTS["x"][:1]}), 1e-3
    moved = torch.cat([x["x"] + k * h * torch.eye(4, dtype=torch.float64) for k in (2, 1, -1, -2)])
    far, near, back, behind = project(BENT, {"x": moved})["x"].reshape(4, 4, 4)
    slope = (8 * (near - back) - (far - behind)) / (12 * h)
    torch.testing.assert_close(slope.mT, geometry(BENT, x).tangent_projection()[0], rtol=0, atol=1e-9)


def test_retraction_agrees_with_the_limit_to_second_order() -> None:
    x = project(BENT, {"x": STARTS["x"][:1]})
    spaces = geometry(BENT, x)
    along = (spaces.tangent_projection()[0] @ torch.tensor([0.3, 1.0, -0.4, 0.2], dtype=torch.float64))[None]
    gaps = []
    for h in (0.04, 0.02):
        moved = {"x": x["x"] + h * along}
        back = retract(BENT, moved, spaces)
        assert float(BENT.loss(back)[0]) < 1e-28
        gaps.append(float((back["x"] - project(BENT, moved)["x"]).norm()))
    assert 6 < gaps[0] / gaps[1] < 10  # third order: 8


def test_a_network_that_fits_its_examples_is_on_a_manifold_with_a_normal_for_each() -> None:
    torch.manual_seed(0)
    inputs = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    network = Flattened(
        MinibatchOracle(
            lambda: nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double(),
            lambda outputs, targets: (outputs - targets).square().sum(dim=1),
            inputs,
            torch.sin(2 * inputs),
            Sampling(5, 1, "iid"),
        )
    )
    x = project(network, network.start(1))
    assert float(network.loss(x)[0]) < 1e-28
    assert geometry(network, x).rank == 5


@settings(max_examples=8)
@given(st.floats(0.3, 3.0), st.floats(-2.0, 2.0), st.floats(0, 6.28))
def test_limit_turns_with_the_loss(x: float, y: float, angle: float) -> None:
    turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float64)
    turned = oracle_of(lambda p: 0.5 * ((p @ turn).prod(dim=1) - 1) ** 2, 1.0, 1.0)
    start = torch.tensor([[x, y]], dtype=torch.float64)
    if abs(x + y) < 0.1:
        return  # about the saddle's stable manifold, from which the flow takes either way
    expected = project(HYPERBOLA, {"x": start})["x"] @ turn.mT
    torch.testing.assert_close(project(turned, {"x": start @ turn.mT})["x"], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda x: (x**2).sum(dim=1), "ends in an isolated minimizer (the Hessian has rank 2 in 2 dimensions)"),
        (lambda x: x[:, 0] ** 4 + x[:, 1] ** 2, "is flatter than quadratic around it"),
        (lambda x: torch.exp(-x[:, 0]) + x[:, 1] ** 2, "attains no minimum from here"),
        (lambda x: x[:, 1] ** 2 - x[:, 0] ** 2, "gradient flow diverges: the loss has no minimizer"),
        (lambda x: x[:, 1] ** 2 - (x[:, 0] - 1) ** 2, "is not positive semidefinite: its smallest eigenvalue is -1 "),
        (lambda x: 0 * x.sum(dim=1), "the Hessian where gradient flow ends is zero"),
    ],
    ids=["isolated", "quartic", "asymptotic", "unbounded", "saddle", "constant"],
)
def test_a_loss_without_a_manifold_is_refused(loss: Callable[[Tensor], Tensor], message: str) -> None:
    oracle = oracle_of(loss, 1.0, 1.0)
    with pytest.raises(InputError) as error:
        project(oracle, oracle.start(1))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_minimizers_of_different_rank_are_refused() -> None:
    # Minimizers are the plane x = 0 and, across from it, the line x = 1, y = 0.
    crossing = oracle_of(lambda p: 0.5 * (p[:, 0] * (p[:, 0] - 1)) ** 2 + 0.5 * (p[:, 0] * p[:, 1]) ** 2, 1, 1, 1)
    with pytest.raises(InputError, match="the Hessian has rank 1 at one minimizer and 2 at another"):
        project(crossing, {"x": torch.tensor([[0.1, 1.0, 0.0], [0.9, 0.1, 0.0]], dtype=torch.float64)})


def test_single_precision_is_refused() -> None:
    with pytest.raises(InputError, match="the parameters are of float32: the limit of gradient flow needs float64"):
        project(HYPERBOLA, {"x": torch.ones(1, 2)})


def test_a_manifold_through_the_origin() -> None:
    flat = oracle_of(lambda x: 0.5 * x[:, 0] ** 2, 0.0, 0.0)
    starts = {"x": torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)}
    expected = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(project(flat, starts)["x"], expected, rtol=0, atol=1e-15)
    # Where the gradient is rounded by far more than x is large.
    wave = oracle_of(lambda x: 0.5 * (torch.sin(x[:, 0] + x[:, 1] ** 2 + 1) - np.sin(1.0)) ** 2, 0.0, 0.0)
    origin = project(wave, {"x": torch.tensor([[0.0, 0.0], [0.1, 0.0]], dtype=torch.float64)})["x"]
    assert float(origin.norm(dim=1).max()) < 1e-15
    back = retract(flat, {"x": starts["x"][:1]}, geometry(flat, {"x": starts["x"][:1]}))
    assert not back["x"].any()


def test_a_point_far_from_the_manifold_is_not_taken_back() -> None:
    x = project(BENT, {"x": STARTS["x"][:1]})
    with pytest.raises(InputError, match="too far from the manifold of minimizers to be taken back to it"):
        retract(BENT, {"x": x["x"] + 30}, geometry(BENT, x))
