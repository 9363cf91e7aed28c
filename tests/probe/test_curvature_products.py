"""Products with Hessian and Gauss–Newton matrix against matrices that are written out."""

from __future__ import annotations

import pytest
import torch
from curved import LOSS, dense_gauss_newton, dense_hessian, digit_batches, perceptron
from torch import nn
from torch.func import functional_call, hessian

from lightball.errors import InputError
from lightball.probe.curvature import Curvature
from lightball.probe.objective import Objective, supervised

UNEQUAL = (40, 3, 57)


def exact_hessian(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """By forward over reverse mode, another way than the products'."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    flat = torch.cat([p.flatten() for p in parameters.values()])

    def loss(x: torch.Tensor) -> torch.Tensor:
        pieces = x.split([p.numel() for p in parameters.values()])
        named = {name: piece.reshape(p.shape) for (name, p), piece in zip(parameters.items(), pieces, strict=True)}
        return nn.functional.cross_entropy(functional_call(model, named, (inputs,)), targets)

    return hessian(loss)(flat)


@pytest.mark.parametrize("num_steps", [0, 60], ids=["at initialisation", "trained"])
@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_matrix_of_unequal_batches_is_that_of_all_their_examples(kind: str, num_steps: int) -> None:
    model, batches = perceptron(6, num_steps), digit_batches(*UNEQUAL)
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = (exact_hessian if kind == "hessian" else dense_gauss_newton)(model, inputs, targets)
    product = Curvature(Objective(model, LOSS), batches, kind)
    found = product(torch.eye(product.dim, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert product.num_examples == sum(UNEQUAL)
    if kind == "hessian":
        assert torch.linalg.eigvalsh(found)[0] < -1e-3, "the spectrum has both signs"


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_graphs_kept_or_made_anew_and_vectors_together_or_apart_give_the_same(kind: str) -> None:
    objective, batches = Objective(perceptron(6), LOSS), digit_batches(*UNEQUAL)
    vectors = torch.randn(5, objective.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept, anew = Curvature(objective, batches, kind), Curvature(objective, batches, kind, memory_budget=0)
    expected = torch.cat([kept(vector[None]) for vector in vectors])
    for product in (kept, anew, kept):
        torch.testing.assert_close(product(vectors), expected, rtol=0, atol=1e-14)
    assert len(kept._kept) == 3
    assert not anew._kept


def test_the_graph_is_built_once_and_shared_by_vectors() -> None:
    calls = []

    def loss(model: nn.Module, batch: tuple) -> torch.Tensor:
        calls.append(len(batch[1]))
        return LOSS(model, batch)

    objective, batches = Objective(perceptron(6), loss), digit_batches(20, 30)
    vectors = torch.ones(4, objective.dim, dtype=torch.float64)
    kept = Curvature(objective, batches)
    for _ in range(3):
        kept(vectors)
    assert calls == [20, 30]
    anew = Curvature(objective, batches, memory_budget=1)
    for _ in range(3):
        anew(vectors[:1])
    assert calls == 4 * [20, 30]


def test_vectors_go_one_by_one_where_an_operation_cannot_be_batched() -> None:
    class Sine(torch.autograd.Function):
        """Differentiable as often as one likes, but without a rule for vmap."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            if torch._C._functorch.is_batchedtensor(gradient):
                raise RuntimeError("Batching rule not implemented")
            return gradient * x.cos()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 3, dtype=torch.float64)

        def forward(self, x):
            return Sine.apply(self.linear(x))

    model, batches = Net(), [(digit_batches(30)[0][0], digit_batches(30)[0][1] % 3)]
    product = Curvature(Objective(model, LOSS), batches, "hessian")
    found = product(torch.eye(product.dim, dtype=torch.float64))
    assert not product._together
    torch.testing.assert_close(found, dense_hessian(model, batches), rtol=0, atol=1e-8)


def test_a_parameter_that_enters_linearly_or_not_at_all_has_no_curvature() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
            self.linear = nn.Parameter(torch.ones(3, dtype=torch.float64))
            self.square = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def loss(model: Net, batch: torch.Tensor) -> torch.Tensor:
        return model.linear.sum() + (batch.mean() * model.square**2).sum()

    product = Curvature(Objective(Net(), loss), [torch.full((4,), 3.0, dtype=torch.float64)])
    found = product(torch.eye(6, dtype=torch.float64))
    assert found.diag().tolist() == [0, 0, 0, 0, 0, 6]
    affine = Curvature(Objective(Net(), lambda model, _: model.linear.sum()), [torch.ones(1)])
    assert not affine(torch.ones(1, 6, dtype=torch.float64)).any()


def test_what_cannot_be_used_is_told_in_one_line() -> None:
    objective, batches = Objective(perceptron(4), LOSS), digit_batches(8)
    vector = torch.ones(1, objective.dim, dtype=torch.float64)
    with pytest.raises(InputError, match="no batch"):
        Curvature(objective, [])
    with pytest.raises(InputError, match="curvature is 'gauss'"):
        Curvature(objective, batches, "gauss")
    with pytest.raises(InputError, match="no examples"):
        Curvature(objective, [(torch.zeros(0, 64), torch.zeros(0, dtype=torch.long))])
    plain = Objective(perceptron(4), lambda model, batch: LOSS(model, batch))
    with pytest.raises(InputError, match="supervised"):
        Curvature(plain, batches, "ggn")(vector)
    root = Objective(perceptron(4), lambda model, batch: LOSS(model, batch) + (model[0].bias * 0).abs().sum() ** 1.5)
    with pytest.raises(InputError, match="second derivative of some operation is infinite"):
        Curvature(root, batches)(vector)


class Once(torch.autograd.Function):
    """Autograd passes by its backward, as if that were constant."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * 2 * ctx.saved_tensors[0]


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
@pytest.mark.parametrize("num_vectors", [1, 3])
def test_a_function_that_is_differentiable_once_is_named(kind: str, num_vectors: int) -> None:
    class Net(nn.Linear):
        def forward(self, x):
            return Once.apply(super().forward(x))

    product = Curvature(Objective(Net(64, 10).double(), LOSS), digit_batches(8), kind)
    with pytest.raises(InputError, match=r"cannot be differentiated twice: OnceBackward .*plain torch operations"):
        product(torch.ones(num_vectors, product.dim, dtype=torch.float64))


def test_an_operation_without_second_derivative_is_named() -> None:
    def loss(model: nn.Module, batch: tuple) -> torch.Tensor:
        log_probabilities = model(batch[0]).log_softmax(dim=-1)[:, None]
        length, targets = torch.ones(1, dtype=torch.long), torch.ones(1, 1, dtype=torch.long)
        return nn.functional.ctc_loss(log_probabilities, targets, length * len(batch[0]), length)

    product = Curvature(Objective(perceptron(4), loss), digit_batches(8))
    with pytest.raises(InputError, match=r"cannot be differentiated twice: [\w:]*ctc\w* has no second derivative"):
        product(torch.ones(1, product.dim, dtype=torch.float64))


def test_supervised_takes_single_losses_or_their_mean() -> None:
    batches = digit_batches(16)
    mean = supervised(nn.functional.cross_entropy)
    vector = torch.ones(1, Objective(perceptron(4), LOSS).dim, dtype=torch.float64)
    for kind in ("hessian", "ggn"):
        one, other = (Curvature(Objective(perceptron(4), loss), batches, kind)(vector) for loss in (LOSS, mean))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-15)
