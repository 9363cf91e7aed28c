"""A step of SVAG for any model: its halves, its gradient, BatchNorm in three ways, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from training_tasks import Noisy, Recurrent, task

from lightball.errors import InputError
from lightball.optim.svag import SVAG
from lightball.oracles import MinibatchOracle, Sampling, Svag
from lightball.training.svag import halves, svag_step
from lightball.workloads import cross_entropy

Pair = tuple[Tensor, Tensor]


def mean_loss(model: nn.Module, batch: Pair) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def batch(size: int = 8, seed: int = 0) -> Pair:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(size, 20, generator=draw), torch.randint(0, 5, (size,), generator=draw)


def test_the_gradient_is_that_of_the_oracle() -> None:
    """For every split of six examples in two halves, so that the mean and the covariance are the oracle's too."""
    inputs, targets = (part[:6] for part in batch())
    oracle = Svag(MinibatchOracle(lambda: nn.Linear(20, 5), cross_entropy, inputs, targets, Sampling(6, 3)), 4.0)
    x = oracle.init([0])
    for sample in torch.combinations(torch.arange(6), 3):
        rest = torch.tensor([i for i in range(6) if i not in sample])
        model = nn.Linear(20, 5)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(x[name][0])
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        order = torch.cat((sample, rest))
        svag_step(model, mean_loss, (inputs[order], targets[order]), SVAG(torch.optim.SGD(model.parameters(), 1.0), 4))
        expected = oracle.noisy_gradient(x, torch.stack((sample, rest))[None])[1]
        for name, p in model.named_parameters():
            torch.testing.assert_close(4 * (before[name] - p), expected[name][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "lr"), [(Noisy, 0.05), (Recurrent, 0.5)])
def test_any_model_trains(kind: type[nn.Module], lr: float) -> None:
    torch.manual_seed(0)
    model, workload = kind(), task(kind).train
    optimizer = SVAG(torch.optim.SGD(model.parameters(), lr, momentum=0.9), 2)
    losses = []
    for _ in range(optimizer.num_steps(100)):
        examples = torch.randperm(len(workload))[:64]
        losses.append(svag_step(model, mean_loss, (workload.inputs[examples], workload.targets[examples]), optimizer))
    assert torch.stack(losses[-10:]).mean() < 0.7 * torch.stack(losses[:10]).mean()


def test_ell_1_is_a_step_on_the_first_half() -> None:
    model = Noisy()
    twin = copy.deepcopy(model)
    torch.manual_seed(0)  # dropout
    svag_step(model, mean_loss, batch(), SVAG(torch.optim.SGD(model.parameters(), lr=0.1), 1))
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    mean_loss(twin, halves(batch())[0]).backward()
    optimizer.step()
    assert all(map(torch.equal, model.state_dict().values(), twin.state_dict().values()))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(20)
        self.last = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(x))


@pytest.mark.parametrize(("batch_norm", "updates"), [("each", (0, 1)), ("once", (0,)), ("frozen", ())])
def test_running_statistics(batch_norm: str, updates: tuple[int, ...]) -> None:
    model, expected = Normed(), nn.BatchNorm1d(20)
    optimizer = SVAG(torch.optim.SGD(model.parameters(), lr=0.1), 4)
    for seed in (1, 2):
        svag_step(model, mean_loss, batch(seed=seed), optimizer, batch_norm)  # type: ignore[arg-type]
        for half in updates:
            expected(batch(seed=seed)[0].chunk(2)[half])
    assert torch.equal(model.norm.running_mean, expected.running_mean)
    assert torch.equal(model.norm.running_var, expected.running_var)
    assert model.norm.num_batches_tracked == 2 * len(updates)
    assert model.norm.training
    assert model.norm.track_running_stats


@pytest.mark.parametrize("batch_norm", ["each", "once", "frozen"])
def test_what_the_halves_are_normalised_by(batch_norm: str) -> None:
    """By themselves or, frozen, by the running statistics: seen in the gradient of the last layer's weight."""
    model, plain = Normed(), Normed()
    inputs, targets = batch()
    optimizer = SVAG(torch.optim.SGD(model.parameters(), lr=1.0), 4)
    svag_step(model, mean_loss, (inputs, targets), optimizer, batch_norm)  # type: ignore[arg-type]
    if batch_norm == "frozen":
        plain.eval()
    for weight, x, y in zip(optimizer.weights, inputs.chunk(2), targets.chunk(2), strict=True):
        (weight * mean_loss(plain, (x, y))).backward()
    assert model.last.weight.grad is not None
    torch.testing.assert_close(model.last.weight.grad, plain.last.weight.grad)


def test_layers_that_stand_still_stay_so() -> None:
    """A BatchNorm in eval mode is none of this, and the modes come back when the loss raises."""
    model = Normed()
    model.norm.eval()
    optimizer = SVAG(torch.optim.SGD(model.parameters(), lr=0.1), 4)
    for batch_norm in ("each", "once", "frozen"):
        svag_step(model, mean_loss, batch(), optimizer, batch_norm)  # type: ignore[arg-type]
        assert not model.norm.training
        assert model.norm.num_batches_tracked == 0
    model.norm.train()

    def failing_at_the_second(model: nn.Module, batch: Pair) -> Tensor:
        if batch[1].sum() < 0:
            raise ZeroDivisionError
        return mean_loss(model, batch)

    inputs, targets = batch()
    targets[4:] = -1
    for batch_norm in ("once", "frozen"):
        with pytest.raises(ZeroDivisionError):
            svag_step(model, failing_at_the_second, (inputs, targets), optimizer, batch_norm)  # type: ignore[arg-type]
        assert model.norm.training
        assert model.norm.track_running_stats


class Named(NamedTuple):
    inputs: Tensor
    targets: Tensor


def test_halves_keep_their_containers() -> None:
    x, y = torch.arange(4), torch.arange(4) + 10
    assert torch.equal(halves(x)[1], torch.tensor([2, 3]))
    first, second = halves({"a": x, "b": [y, (x,)]})
    assert first["b"][0].tolist() == [10, 11]
    assert isinstance(first["b"][1], tuple)
    assert second["b"][1][0].tolist() == [2, 3]
    assert isinstance(halves(Named(x, y))[0], Named)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        action()
    return str(error.value)


def test_what_cannot_be_split_is_refused() -> None:
    rule = "SVAG requires tensors of one even length, 2B, to split: use an even batch size with drop_last=True"
    assert refusal(lambda: halves(torch.zeros(7))) == f"a batch with 7 examples; {rule}"
    assert refusal(lambda: halves((torch.zeros(4), torch.zeros(6)))) == f"a batch with 4 and 6 examples; {rule}"
    assert refusal(lambda: halves(())) == f"a batch with no examples; {rule}"
    others = "SVAG can split tensors of examples, in tuples, lists and mappings: keep everything else out of the batch"
    assert refusal(lambda: halves((torch.zeros(4), "text"))) == f"a batch holds a str; {others}"
    assert refusal(lambda: halves((torch.zeros(4), torch.tensor(2)))) == f"a batch holds a single number; {others}"
    model = Normed()
    optimizer = SVAG(torch.optim.SGD(model.parameters(), lr=0.1), 4)
    assert refusal(lambda: svag_step(model, mean_loss, batch(), optimizer, "twice")) == (  # type: ignore[arg-type]
        "batch_norm is 'twice'; required is one of each, once, frozen"
    )


def test_a_plain_optimizer_is_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(
        InputError, match=r"svag_step got a SGD; required is an SVAG: wrap it, as SVAG\(optimizer, ell=4\)"
    ):
        svag_step(model, lambda m, b: m(b).mean(), torch.ones(4, 2), torch.optim.SGD(model.parameters()))  # type: ignore[arg-type]
