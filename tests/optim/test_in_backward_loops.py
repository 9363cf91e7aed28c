"""In backward inside other people's code: Transformers, Accelerate, Lightning, torch.compile; and the two passes."""

from __future__ import annotations

import random
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.optim.sgd import SGD


class Normalised(nn.Module):
    """Batch normalisation, with a running and with a cumulative average, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 4), nn.BatchNorm1d(4, momentum=None)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def batch(k: int) -> Tensor:
    return torch.randn(16, 3, generator=torch.Generator().manual_seed(k))


def assert_equal(a: nn.Module, b: nn.Module) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


def test_two_passes_leave_what_one_leaves() -> None:
    """Weights, running statistics, losses and random numbers, bit for bit."""
    ended = []
    for in_backward, clipping in ((False, "global"), (True, "exact")):
        model, losses = Normalised(), []
        optimizer = SGD(
            model.parameters(),
            lr=0.1,
            momentum=0.9,
            in_backward=in_backward,
            max_norm=0.2,
            clipping=clipping,  # type: ignore[arg-type]
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            for k in range(4):

                def closure(model: nn.Module = model, optimizer: SGD = optimizer, k: int = k) -> Tensor:
                    optimizer.zero_grad()
                    loss = (model(batch(k)) - 3).pow(2).mean()
                    loss.backward()
                    return loss

                losses.append(optimizer.step(closure).item())
            ended.append((model, losses, torch.rand(3).tolist()))
    assert ended[0][1:] == ended[1][1:]
    assert_equal(ended[0][0], ended[1][0])


@pytest.mark.filterwarnings("ignore:Using `torch.compile.module.` when there are global hooks")
def test_two_passes_of_a_compiled_model_count_as_one() -> None:
    model = Normalised().layers[:2]
    compiled: Any = torch.compile(model, backend="aot_eager")
    optimizer = SGD(model.parameters(), lr=0.1, in_backward=True, max_norm=0.2, clipping="exact")
    for k in range(3):
        optimizer.step(lambda k=k: compiled(batch(k)).pow(3).sum().backward())
    assert model[1].num_batches_tracked == 3


def test_a_loss_with_random_numbers_of_another_library_is_noticed() -> None:
    model = nn.Linear(3, 1)
    optimizer = SGD(model.parameters(), in_backward=True, max_norm=1.0, clipping="exact")
    numbers = random.Random(0)
    with pytest.raises(InputError, match="no random numbers but torch's"):
        optimizer.step(lambda: (model(batch(0)) * numbers.random()).sum().backward())


def test_a_bert_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = transformers.BertForMaskedLM(config)
    second = transformers.BertForMaskedLM(config)
    second.load_state_dict(first.state_dict())
    for model, in_backward in ((first, False), (second, True)):
        optimizer = SGD(
            model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, max_norm=0.5, in_backward=in_backward
        )
        model.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            for k in range(3):
                tokens = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(k))
                model(input_ids=tokens, labels=tokens).loss.backward()
                assert in_backward == all(p.grad is None for p in model.parameters())
                optimizer.step()
                optimizer.zero_grad()
    assert_equal(first, second)


def test_a_compiled_model() -> None:
    models = Normalised(), Normalised()
    for model, in_backward in zip(models, (False, True), strict=True):
        optimizer = SGD(model.parameters(), lr=0.1, in_backward=in_backward)
        compiled: Any = torch.compile(model.layers[:2], backend="aot_eager")
        for k in range(2):
            compiled(batch(k)).pow(2).sum().backward()
            assert in_backward == (model.layers[0].weight.grad is None)
            optimizer.step()
            optimizer.zero_grad()
    assert_equal(*models)


@pytest.fixture
def accelerator() -> Any:
    return pytest.importorskip("accelerate").Accelerator(cpu=True, gradient_accumulation_steps=2)


def train_with(accelerator: Any, in_backward: bool, accumulate: bool) -> nn.Module:
    model = nn.Linear(3, 2)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    inner = SGD(model.parameters(), lr=0.1, momentum=0.9, in_backward=in_backward)
    prepared, optimizer = accelerator.prepare(model, inner)
    for k in range(4):
        with accelerator.accumulate(prepared):
            adding = in_backward and accumulate and not accelerator.sync_gradients
            with inner.accumulating() if adding else nullcontext():
                accelerator.backward(prepared(batch(k)).pow(2).mean())
            optimizer.step()
            optimizer.zero_grad()
    return model


def test_accelerate(accelerator: Any) -> None:
    assert_equal(train_with(accelerator, False, True), train_with(accelerator, True, True))


def test_accelerate_that_accumulates_without_saying_so(accelerator: Any) -> None:
    with pytest.raises(InputError, match="got a second gradient before step"):
        train_with(accelerator, True, False)


def lightning_run(in_backward: bool, clipping: str, accumulate: int = 1) -> nn.Module:
    lightning = pytest.importorskip("lightning")

    class Fit(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = Normalised()

        def training_step(self, x: Tensor, _: int) -> Tensor:
            return (self.model(x) - 3).pow(2).mean()

        def configure_optimizers(self) -> Any:
            return SGD(
                self.parameters(),
                lr=0.1,
                momentum=0.9,
                max_norm=0.2,
                in_backward=in_backward,
                clipping=clipping,  # type: ignore[arg-type]
            )

    fit = Fit()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accumulate_grad_batches=accumulate,
        ).fit(fit, torch.utils.data.DataLoader([batch(k) for k in range(3)], batch_size=None))
    return fit.model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("in_step", "in_backward"), [("parameter", "parameter"), ("global", "exact")])
def test_lightning(in_step: str, in_backward: str) -> None:
    assert_equal(lightning_run(False, in_step), lightning_run(True, in_backward))


@pytest.mark.filterwarnings("ignore")
def test_lightning_that_accumulates_without_saying_so() -> None:
    with pytest.raises(InputError, match="got a second gradient before step"):
        lightning_run(True, "parameter", accumulate=3)
