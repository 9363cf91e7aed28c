"""Gauss quadratures by Lanczos against spectral measures that are written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from curved import LOSS, dense_gauss_newton, digit_batches, perceptron
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, grad, jvp

from lightball.errors import InputError
from lightball.probe.curvature import Curvature
from lightball.probe.lanczos import lanczos, measure
from lightball.probe.measure import SpectralMeasure
from lightball.probe.objective import Objective
from lightball.workloads import cross_entropy


def matrix(values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Symmetric, with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=generator))
    return (q * values) @ q.T


def random_vectors(num_vectors: int, dim: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(num_vectors, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_steps", [0, 60], ids=["at initialisation", "trained"])
@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_polynomials_to_degree_2m_minus_1_are_exact_for_a_network(kind: str, num_steps: int) -> None:
    model, batches = perceptron(16, num_steps), digit_batches(60, 20)
    objective = Objective(model, LOSS)
    product = Curvature(objective, batches, kind)
    dense = torch.cat([product(some) for some in torch.eye(product.dim, dtype=torch.float64).split(64)])
    if kind == "ggn":
        joint = [torch.cat(parts) for parts in zip(*batches, strict=True)]
        torch.testing.assert_close(dense, dense_gauss_newton(model, *joint), rtol=0, atol=1e-13)
    gradients = torch.stack([objective.loss_and_gradient(batch)[1] for batch in batches])
    scale = float(torch.linalg.matrix_norm(dense, 2))
    for steps in (1, 3, 6):
        found = measure(lanczos(product, gradients, steps))
        powers = gradients.clone()
        for degree in range(2 * steps):
            exact = (gradients * powers).sum(dim=1).numpy() / scale**degree
            np.testing.assert_allclose(
                found.per_vector(lambda h, d=degree: (h / scale) ** d), exact, rtol=0, atol=1e-12 * found.mass
            )
            powers = powers @ dense
        assert abs((gradients * powers).sum(dim=1)[0] / scale ** (2 * steps)) > 0
        beyond = found.per_vector(lambda h, d=2 * steps: (h / scale) ** d)
        exact = (gradients * powers).sum(dim=1).numpy() / scale ** (2 * steps)
        assert np.abs(beyond - exact).max() > 1e-9 * found.mass, "degree 2m is beyond a Gauss quadrature"
    assert found.mass == pytest.approx(float(gradients.square().sum(dim=1).mean()), rel=1e-12)


@pytest.mark.parametrize("num_steps", [0, 60], ids=["at initialisation", "trained"])
def test_curvature_along_the_gradient_of_the_digits_perceptron(num_steps: int) -> None:
    objective, batches = Objective(perceptron(128, num_steps), LOSS), digit_batches(256)
    product = Curvature(objective, batches)
    gradient = objective.loss_and_gradient(batches[0])[1]
    parameters = {name: p.detach() for name, p in objective.model.named_parameters()}
    direction = dict(zip(objective.names, objective.parts(gradient), strict=True))

    def loss(x: dict[str, torch.Tensor]) -> torch.Tensor:
        return cross_entropy(functional_call(objective.model, x, (batches[0][0],)), batches[0][1]).mean()

    # Forward over reverse mode, while products are reverse over reverse.
    _, image = jvp(grad(loss), (parameters,), (direction,))
    along = float(gradient @ objective.flat(image))
    assert objective.dim == 9610
    assert float(gradient @ product(gradient[None])[0]) == pytest.approx(along, abs=1e-12)
    for steps in (1, 5, 20):
        found = measure(lanczos(product, gradient[None], steps))
        assert found.integral(lambda h: h) == pytest.approx(along, abs=1e-10)


def test_trace_by_random_signs() -> None:
    product = Curvature(Objective(perceptron(6), LOSS), digit_batches(50))
    exact = float(product(torch.eye(product.dim, dtype=torch.float64)).trace())
    found = measure(lanczos(product, random_vectors(40, product.dim).sign(), 2))
    error = found.standard_error(lambda h: h)
    assert 0 < error < 0.2 * abs(exact)
    assert abs(found.integral(lambda h: h) - exact) < 3 * error


def test_start_vectors_do_not_meet() -> None:
    dense = matrix(torch.linspace(-1, 2, 30, dtype=torch.float64))
    starts = random_vectors(3, 30)
    together = measure(lanczos(lambda v: v @ dense, starts, 8))
    for row, start in enumerate(starts):
        alone = measure(lanczos(lambda v: v @ dense, start[None], 8))
        np.testing.assert_allclose(together.nodes[row], alone.nodes[0], atol=1e-12)
        np.testing.assert_allclose(together.weights[row], alone.weights[0], atol=1e-12)


def test_a_krylov_space_that_ends_is_exact_and_asks_for_no_more() -> None:
    values = torch.tensor([-1.0, 0.5, 2.0] * 4, dtype=torch.float64)
    dense, asked = matrix(values), []

    def product(v: torch.Tensor) -> torch.Tensor:
        asked.append(len(v))
        return v @ dense

    _, vectors = torch.linalg.eigh(dense)
    starts = torch.stack([vectors[:, 0], torch.zeros_like(vectors[0]), *random_vectors(1, 12)])
    for reorthogonalise in (True, False):
        asked.clear()
        found = lanczos(product, starts, 12, reorthogonalise=reorthogonalise)
        assert found.steps.tolist() == [1, 0, 3]
        assert asked == [2, 1, 1]
        quadrature = measure(found)
        kept = quadrature.weights[2] > 0
        np.testing.assert_allclose(quadrature.nodes[2][kept], [-1, 0.5, 2], atol=1e-12)
        np.testing.assert_allclose(quadrature.per_vector(np.ones_like), [1, 0, starts[2].square().sum()])
    assert measure(lanczos(lambda v: 0 * v, starts, 5)).integral(lambda h: h + 1) == pytest.approx(
        float(starts.square().sum(dim=1).mean())
    )


def test_without_reorthogonalisation_ghosts_share_the_mass_and_the_measure_stays_right() -> None:
    # Two eigenvalues far out converge soon; from then on rounding brings copies of them.
    values = torch.cat([torch.linspace(-0.5, 1, 300, dtype=torch.float64), torch.tensor([40.0, -30.0]).double()])
    dense, start = matrix(values), random_vectors(1, 302)
    exact_values, vectors = torch.linalg.eigh(dense)
    masses = (start[0] @ vectors).square().numpy()
    plain = lanczos(lambda v: v @ dense, start, 80, reorthogonalise=False)
    full = lanczos(lambda v: v @ dense, start, 80, reorthogonalise=True)
    assert plain.basis is None
    assert full.basis is not None

    def near(found: SpectralMeasure, value: float) -> np.ndarray:
        return found.weights[0][np.abs(found.nodes[0] - value) < 1e-3]

    assert len(near(measure(plain), 40)) > 1, "this case must have ghosts, or the test tests nothing"
    assert len(near(measure(full), 40)) == 1
    for f in (np.ones_like, lambda h: h, lambda h: h**2, lambda h: 1 / (1 + (h / 10) ** 2), lambda h: np.exp(-(h**2))):
        exact = float(masses @ f(exact_values.numpy()))
        assert measure(plain).integral(f) == pytest.approx(exact, rel=1e-9)
        assert measure(full).integral(f) == pytest.approx(exact, rel=1e-9)


def test_reorthogonalisation_keeps_to_the_budget() -> None:
    dense = matrix(torch.linspace(-1, 2, 50, dtype=torch.float64))
    starts = random_vectors(2, 50)
    needed = 10 * 2 * 50 * 8
    kept = lanczos(lambda v: v @ dense, starts, 10, memory_budget=needed)
    assert kept.basis is not None
    flat = kept.basis[:, 0]
    torch.testing.assert_close(flat @ flat.T, torch.eye(10, dtype=torch.float64), rtol=0, atol=1e-14)
    assert lanczos(lambda v: v @ dense, starts, 10, memory_budget=needed - 1).basis is None


def test_lanczos_refuses_what_has_no_start() -> None:
    with pytest.raises(InputError, match="not finite"):
        lanczos(lambda v: v, torch.tensor([[math.nan, 1.0]]), 2)
    with pytest.raises(InputError, match="0 steps"):
        lanczos(lambda v: v, torch.ones(1, 2), 0)


def test_padding_has_no_say_and_errors_are_over_vectors() -> None:
    found = SpectralMeasure(np.array([[1.0, 2.0], [4.0, 0.0]]), np.array([[0.5, 1.0], [2.0, 0.0]]))
    assert found.mass == 1.75
    np.testing.assert_allclose(found.per_vector(lambda h: 1 / h), [1.0, 0.5])
    assert found.integral(np.ones_like) == 1.75
    assert found.integral(lambda h: 3.0) == 5.25
    assert found.standard_error(lambda h: h) == pytest.approx(abs(2.5 - 8) / 2)
    assert math.isnan(SpectralMeasure(found.nodes[:1], found.weights[:1]).standard_error(lambda h: h))
    assert found.rescaled(7.0).integral(lambda h: h) == pytest.approx(found.integral(lambda h: h) * 4)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_compressed_measures_keep_moments_and_positive_weights(seed: int, num_nodes: int) -> None:
    random = np.random.default_rng(seed)
    nodes, weights = random.normal(size=(4, 5)), random.exponential(size=(4, 5))
    weights[1, 3:] = 0
    nodes[1, 3:] = 0
    nodes[2] = nodes[0]  # vectors often meet at the outermost eigenvalues
    found = SpectralMeasure(nodes, weights)
    small = found.compressed(num_nodes)
    assert small.nodes.shape == (1, num_nodes)
    assert (small.weights > 0).all()
    scale = np.abs(nodes).max()
    for degree in range(2 * num_nodes):
        of_small, of_all = (each.integral(lambda h, d=degree: (h / scale) ** d) for each in (small, found))
        assert of_small == pytest.approx(of_all, abs=1e-12 * found.mass)


def test_measures_of_few_nodes_or_none_are_compressed_to_themselves() -> None:
    three = SpectralMeasure(np.array([[1.0, 2.0, 2.0]]), np.array([[0.5, 1.0, 3.0]])).compressed(10)
    np.testing.assert_allclose(three.nodes, [[1, 2]])
    np.testing.assert_allclose(three.weights, [[0.5, 4]])
    assert SpectralMeasure(np.zeros((2, 1)), np.zeros((2, 1))).compressed(3).mass == 0
    with pytest.raises(ValueError, match="negative"):
        SpectralMeasure(np.ones((1, 1)), -np.ones((1, 1))).compressed(1)
