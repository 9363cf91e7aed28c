"""Which modules can be many models at once: what is refused, and that the rest has each model's own gradients."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.oracles import MinibatchOracle, Sampling, build, check_vectorisable


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets[:, None]).square().mean(dim=1)


class Residual(nn.Module):
    """Calls a module and adds its input, so that modules can be nested."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)  # type: ignore[no-any-return]


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Reading(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.abs().max().item()


class Drawing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Counting(nn.Module):
    """Counts its calls in a buffer, in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            self.calls += 1
        else:
            self.calls = self.calls + 1
        return x


def nested(module: nn.Module) -> nn.Module:
    """The module under the name '1.inner.2'."""
    inside = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), module)
    return nn.Sequential(nn.Linear(4, 4), Residual(inside), nn.Linear(4, 2)).double()


REFUSED = [
    (nn.BatchNorm1d(4), "(BatchNorm1d) normalises by the batch"),
    (nn.Dropout(0.25), "(Dropout, p=0.25) draws from one generator"),
    (nn.AlphaDropout(0.5), "(AlphaDropout, p=0.5) draws from one generator"),
    (Branching(), "(Branching) cannot be vectorised over models: "),
    (Reading(), "(Reading) cannot be vectorised over models: "),
    (Drawing(), "(Drawing) cannot be vectorised over models: "),
    (nn.RReLU(), "(RReLU) cannot be vectorised over models: "),
    (Counting(in_place=True), "(Counting) changes its buffer 'calls' in the forward pass"),
    (Counting(in_place=False), "(Counting) changes its buffer 'calls' in the forward pass"),
]


@pytest.mark.parametrize(("module", "message"), REFUSED, ids=lambda v: type(v).__name__)
def test_refusals_name_the_module(module: nn.Module, message: str) -> None:
    model = nested(copy.deepcopy(module))
    with pytest.raises(InputError, match="^" + re.escape(f"module '1.inner.2' {message}")) as error:
        check_vectorisable(model, random(2, 4))
    assert "\n" not in str(error.value)


def test_refusals_say_what_to_do() -> None:
    with pytest.raises(InputError) as error:
        check_vectorisable(nested(nn.BatchNorm1d(4)), random(2, 4))
    assert str(error.value) == (
        "module '1.inner.2' (BatchNorm1d) normalises by the batch and may keep running statistics, which many models "
        "trained and evaluated at once cannot share: use GroupNorm or LayerNorm"
    )
    with pytest.raises(InputError) as error:
        check_vectorisable(nested(nn.Dropout(0.5)), random(2, 4))
    assert str(error.value) == (
        "module '1.inner.2' (Dropout, p=0.5) draws from one generator for all models trained at once: set p=0, or use "
        "weight decay instead"
    )
    with pytest.raises(InputError, match=re.escape("(avoid control flow on tensor values, .item() and in-place")):
        check_vectorisable(nested(Branching()), random(2, 4))


def test_the_outermost_module_is_called_model() -> None:
    class Task(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError

    with pytest.raises(InputError, match=r"^module 'model' \(Task\) cannot be vectorised over models: ValueError"):
        check_vectorisable(Task(4, 2), random(2, 4).float())


def test_what_has_no_gradient_is_refused() -> None:
    """In eval mode torch takes a fused path through this layer, which vmap cannot differentiate."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True).eval()
    with pytest.raises(InputError, match=r"derivative for .* is not implemented"):
        check_vectorisable(layer, random(2, 5, 4).float())


@pytest.mark.parametrize(
    "module", [*(module for module, _ in REFUSED), nn.GroupNorm(2, 4)], ids=lambda v: type(v).__name__
)
def test_checking_changes_nothing(module: nn.Module) -> None:
    model = nested(copy.deepcopy(module))
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    model[0].eval()
    same = unchanged(model)
    try:
        check_vectorisable(model, random(2, 4))
    except InputError:
        refused = True
    else:
        refused = False
    assert refused == (not isinstance(module, nn.GroupNorm))
    same()


def unchanged(model: nn.Module) -> Callable[[], None]:
    """A check that nothing of the model, nor the global generator, is other than now."""
    state = copy.deepcopy(model.state_dict())
    identities = [(name, id(t)) for name, t in (*model.named_parameters(), *model.named_buffers())]
    flags = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    rng = torch.get_rng_state()

    def check() -> None:
        assert model.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert identities == [(name, id(t)) for name, t in (*model.named_parameters(), *model.named_buffers())]
        for p, (requires_grad, grad) in zip(model.parameters(), flags, strict=True):
            assert p.requires_grad == requires_grad
            assert (p.grad is None) if grad is None else torch.equal(p.grad, grad)
        assert modes == [module.training for module in model.modules()]
        assert torch.equal(torch.get_rng_state(), rng)
        assert torch.is_grad_enabled()
        for module in model.modules():
            assert not module._forward_pre_hooks
            assert not module._forward_hooks

    return check


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(torch.tanh(self.first(x))))  # type: ignore[no-any-return]


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.attention(x, x, x)[0].mean(dim=1))  # type: ignore[no-any-return]


class Pooled(nn.Module):
    """Mean over positions of what comes out of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x).mean(dim=1)  # type: ignore[no-any-return]


class Spare(nn.Linear):
    """With a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.spare = nn.Parameter(torch.ones(3))


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    nn.init.eye_(model[0].weight.requires_grad_(False))
    return model


def sequential(module: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), module, nn.Linear(4, 2))


def encoder() -> nn.Module:
    return Pooled(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True))


ROWS, SERIES, WORDS = random(6, 4), random(6, 5, 4), torch.arange(30).reshape(6, 5) % 7
ACCEPTED = {
    "dropout of nothing": (lambda: sequential(nn.Dropout(0.0)), ROWS),
    "dropout in eval mode": (lambda: sequential(nn.Dropout(0.5)).eval(), ROWS),
    "group norm": (lambda: sequential(nn.GroupNorm(2, 4)), ROWS),
    "layer norm": (lambda: sequential(nn.LayerNorm(4)), ROWS),
    "batch norm in eval mode": (lambda: sequential(nn.BatchNorm1d(4)).eval(), ROWS),
    "in-place activation": (lambda: sequential(nn.ReLU(inplace=True)), ROWS),
    "tied weights": (Tied, ROWS),
    "frozen parameters": (frozen, ROWS),
    "unused parameter": (Spare, ROWS),
    "attention": (Attending, SERIES),
    "transformer": (encoder, SERIES),
    "embedding": (lambda: Pooled(nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 2))), WORDS),
    "convolution": (lambda: Pooled(nn.Conv1d(5, 2, 3)), SERIES),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("seeds", [[2], [0, 2, 0]])
@pytest.mark.parametrize("name", ACCEPTED)
def test_gradients_are_those_of_each_model(name: str, seeds: list[int]) -> None:
    factory, inputs = ACCEPTED[name]
    targets = torch.linspace(-1, 1, 6, dtype=torch.float64)
    oracle = MinibatchOracle(lambda: factory().double(), squares, inputs, targets, Sampling(6, 4))
    same = unchanged(oracle.model)
    check_vectorisable(oracle.model, inputs[:2])
    x, sample = oracle.init(seeds), oracle.stream(seeds)(0)
    losses, gradients = oracle.noisy_gradient(x, sample)
    everywhere = oracle.loss(x)
    same()
    assert gradients.keys() == x.keys()
    for i, seed in enumerate(seeds):
        model = build(oracle.model_factory, seed)
        loss = squares(model(inputs[sample[i]]), targets[sample[i]]).mean()
        loss.backward()
        # float64: agreement to a few roundings
        torch.testing.assert_close(losses[i], loss.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(everywhere[i], squares(model(inputs), targets).mean().detach(), rtol=1e-12, atol=0)
        trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        assert trainable.keys() == x.keys()
        for n, p in trainable.items():
            torch.testing.assert_close(x[n][i], p.detach(), rtol=0, atol=0)
            expected = torch.zeros_like(p) if p.grad is None else p.grad
            torch.testing.assert_close(gradients[n][i], expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("recurrent", [nn.LSTM, nn.GRU])
def test_recurrent_layers_are_refused(recurrent: type[nn.Module]) -> None:
    """torch has no batching rule for them; a test that fails here says that it has got one."""
    model = nn.Sequential(nn.Identity(), recurrent(4, 3, batch_first=True))
    with pytest.raises(InputError, match=rf"^module '1' \({recurrent.__name__}\) cannot be vectorised"):
        check_vectorisable(model, SERIES[:2].float())
