"""The outermost eigenvalues against other solvers, with bounds that hold."""

from __future__ import annotations

import pytest
import torch
from curved import LOSS, digit_batches, perceptron
from scipy.sparse.linalg import LinearOperator, eigsh
from test_lanczos_measures import matrix

from lightball.errors import InputError
from lightball.probe.curvature import MEMORY_BUDGET, Curvature
from lightball.probe.eigenvalues import extreme_eigenvalues
from lightball.probe.objective import Objective

BUDGETS = {"one basis": MEMORY_BUDGET, "restarted": 16, "three vectors": 0}  # vectors, but for the first


def budget_of(name: str, dim: int) -> int:
    return BUDGETS[name] if name == "one basis" else BUDGETS[name] * dim * 8


@pytest.mark.parametrize("num_steps", [0, 60], ids=["at initialisation", "trained"])
def test_eigenvalues_of_the_digits_perceptron_are_those_of_arpack(num_steps: int) -> None:
    product = Curvature(Objective(perceptron(128, num_steps), LOSS), digit_batches(128, 72))
    largest, smallest = extreme_eigenvalues(product, product.dim)
    operator = LinearOperator(
        (product.dim, product.dim), matvec=lambda v: product(torch.from_numpy(v.reshape(1, -1)))[0].numpy(), dtype=float
    )
    for found, which in ((largest, "LA"), (smallest, "SA")):
        (exact,) = eigsh(operator, 1, which=which, return_eigenvectors=False, tol=1e-12)
        rounding = 16 * torch.finfo(torch.float64).eps * abs(exact)  # of ARPACK, whose value is not λ itself either
        assert abs(found.value - exact) <= min(found.residual + rounding, 1e-8)
        assert 0 < found.residual < 2e-8
        assert found.converged
    assert product.dim == 9610
    assert smallest.value < 0 < largest.value


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_eigenvalues_of_a_network_are_those_of_its_dense_matrix(kind: str) -> None:
    product = Curvature(Objective(perceptron(16), LOSS), digit_batches(100), kind)
    exact = torch.linalg.eigvalsh(product(torch.eye(product.dim, dtype=torch.float64)))
    largest, smallest = extreme_eigenvalues(product, product.dim, require_smallest=kind == "hessian")
    assert largest.converged
    assert abs(largest.value - exact[-1]) <= min(largest.residual, 1e-8)
    assert (exact - smallest.value).abs().min() <= smallest.residual
    if kind == "hessian":
        assert abs(smallest.value - exact[0]) <= min(smallest.residual, 1e-8)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize(
    "ends",
    [(-3.0, 3.0), (-3.0, 2.999), (-2.999, 3.0), (-3.0, -1.0), (1.0, 3.0)],
    ids=["equal and opposite", "negative a little larger", "positive a little larger", "all negative", "all positive"],
)
def test_spectra_of_both_signs_do_not_deceive(ends: tuple[float, float], budget: str) -> None:
    # Power iteration swings between both ends here, and what it converges to is neither.
    inner = torch.linspace(0.9 * ends[0] + 0.1 * ends[1], 0.1 * ends[0] + 0.9 * ends[1], 200, dtype=torch.float64)
    dense = matrix(torch.cat([torch.tensor(ends, dtype=torch.float64), inner]))
    found = extreme_eigenvalues(lambda v: v @ dense, len(dense), memory_budget=budget_of(budget, len(dense)))
    for value, exact in zip(found, reversed(ends), strict=True):
        assert value.converged
        assert abs(value.value - exact) <= min(value.residual, 1e-8)


@pytest.mark.parametrize("budget", BUDGETS)
def test_bounds_hold_where_the_search_was_cut_short(budget: str) -> None:
    exact = torch.linspace(-1, 1, 400, dtype=torch.float64) ** 3
    dense = matrix(exact)
    for max_products in (5, 12, 30):
        for seed in range(5):
            for found in extreme_eigenvalues(
                lambda v: v @ dense,
                400,
                tolerance=1e-12,
                max_products=max_products,
                seed=seed,
                memory_budget=budget_of(budget, 400),
            ):
                assert not found.converged
                assert (exact - found.value).abs().min() <= found.residual


@pytest.mark.parametrize("budget", BUDGETS)
def test_products_stay_within_their_number(budget: str) -> None:
    dense, asked = matrix(torch.linspace(-1, 1, 400, dtype=torch.float64) ** 3), []

    def product(v: torch.Tensor) -> torch.Tensor:
        asked.append(len(v))
        return v @ dense

    for most in (4, 5, 40):
        asked.clear()
        extreme_eigenvalues(
            product, 400, dtype=torch.float64, device="cpu", max_products=most, memory_budget=budget_of(budget, 400)
        )
        assert sum(asked) <= most


def test_a_clustered_end_needs_restarts_that_keep_enough() -> None:
    values = torch.cat([torch.linspace(0, 1, 200), 1 + torch.linspace(1e-3, 1e-2, 10), torch.linspace(-0.1, 0, 90)])
    dense = matrix(values.double())
    largest, smallest = extreme_eigenvalues(lambda v: v @ dense, 300, memory_budget=30 * 300 * 8, max_products=2000)
    assert abs(largest.value - 1.01) < 1e-7
    assert abs(smallest.value + 0.1) < 1e-7


def test_small_and_degenerate_matrices() -> None:
    for budget in (MEMORY_BUDGET, 0):
        for dense in (torch.eye(5), torch.zeros(5, 5), torch.diag(torch.tensor([1.0, 1, -2, -2, -2])), torch.eye(1)):
            dense = dense.double()
            found = extreme_eigenvalues(lambda v, dense=dense: v @ dense, len(dense), memory_budget=budget)
            exact = torch.linalg.eigvalsh(dense)
            assert [value.value for value in found] == pytest.approx([float(exact[-1]), float(exact[0])], abs=1e-14)
            assert all(value.converged for value in found)


def test_seeds_are_its_own_and_single_precision_is_told_apart() -> None:
    dense = matrix(torch.linspace(-1, 2, 50, dtype=torch.float64)).float()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    found = [extreme_eigenvalues(lambda v: v.float() @ dense, 50, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert found[0] == found[1] != found[2]
    for largest, smallest in found:
        assert largest.value == pytest.approx(2, abs=largest.residual)
        assert smallest.value == pytest.approx(-1, abs=smallest.residual)
        assert 0 < largest.residual < 1e-3
    with pytest.raises(InputError, match="max_products 3"):
        extreme_eigenvalues(lambda v: v, 3, max_products=3)
