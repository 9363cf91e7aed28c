"""Models that cannot be trained many at once: BatchNorm, dropout, recurrence, control flow on values; and odd ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from training_tasks import Branching, Noisy, Recurrent, noisy, smooth, task

from lightball.errors import InputError
from lightball.oracles import build, check_vectorisable
from lightball.training import Recipe, load_model, train

RECIPE = Recipe(batch_size=25, effective_lr=0.3, momentum=0.9, epochs=15)


@pytest.mark.parametrize(("model", "effective_lr"), [(Noisy, 0.3), (Recurrent, 5.0), (Branching, 0.3)])
def test_learns(model: type[nn.Module], effective_lr: float) -> None:
    points = train(task(model), replace(RECIPE, effective_lr=effective_lr, epochs=40), 1).points
    assert points[-1].train_loss < 0.5 * points[0].train_loss


def test_these_models_are_refused_by_the_vectorised_engine() -> None:
    for model in (Noisy, Branching):
        with pytest.raises(InputError):
            check_vectorisable(model(), smooth().train.inputs[:2])


def test_dropout_is_active_repeats_and_depends_on_the_seed() -> None:
    first, again = train(noisy(), RECIPE, 1), train(noisy(), RECIPE, 1)
    assert first == again
    assert train(noisy(), RECIPE, 2) != first

    def without_dropout() -> nn.Module:
        model = Noisy()
        model.drop.p = 0.0
        return model

    still = train(task(without_dropout), RECIPE, 1)
    assert still.points[0] == first.points[0]
    assert still.points[-1].train_loss < first.points[-1].train_loss


def test_batch_statistics_are_those_of_training_batches_only(tmp_path: Path) -> None:
    recipe = Recipe(batch_size=25, effective_lr=0.3, epochs=2, eval_every=1)
    often = train(noisy(), recipe, 1, folder=tmp_path)
    model = load_model(noisy(), tmp_path)
    assert not model.training
    assert int(model.norm.num_batches_tracked) == 20  # type: ignore[union-attr, arg-type]
    rarely = train(noisy(), Recipe(batch_size=25, effective_lr=0.3, epochs=2), 1)
    assert often.points[::10] == rarely.points


def test_what_an_evaluation_draws_or_writes_is_undone() -> None:
    """A model that draws and counts in eval mode too trains as if it were never evaluated."""

    class Restless(Noisy):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("noise", None)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.noise = 0.01 * torch.randn(()) if self.noise is None else self.noise + 0.01 * torch.randn(())
            return super().forward(x) + self.calls * self.noise

    often = train(task(Restless), Recipe(25, 0.3, epochs=2, eval_every=1), 1)
    rarely = train(task(Restless), Recipe(25, 0.3, epochs=2), 1)
    assert often.points[::10] == rarely.points


def test_a_module_frozen_in_eval_mode_by_its_own_train_stays_so(tmp_path: Path) -> None:
    class Frozen(Noisy):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self.norm.eval()
            return self

    train(task(Frozen), RECIPE, 1, folder=tmp_path)
    assert int(load_model(task(Frozen), tmp_path).norm.num_batches_tracked) == 0  # type: ignore[union-attr, arg-type]


def test_frozen_unused_and_tied_parameters(tmp_path: Path) -> None:
    def factory() -> nn.Module:
        model = Noisy()
        model.first.requires_grad_(False)
        model.spare = nn.Parameter(torch.ones(3))
        return model

    recipe = Recipe(25, 0.1, momentum=0.5, epochs=1, weight_decay=0.1)
    train(task(factory), recipe, 4, folder=tmp_path)
    start, end = build(factory, 4), load_model(task(factory), tmp_path)
    assert torch.equal(end.first.weight, start.first.weight)  # type: ignore[union-attr, arg-type]
    assert end.middle.weight is end.again.weight  # type: ignore[union-attr]
    assert not torch.equal(end.middle.weight, start.middle.weight)  # type: ignore[union-attr, arg-type]
    # gradient 0: only the weight decay acts, m' = β m + (1 − β) λ x
    x, m = 1.0, 0.0
    for _ in range(10):
        m = 0.5 * m + 0.5 * 0.1 * x
        x -= 0.1 * m
    torch.testing.assert_close(end.spare.detach(), torch.full((3,), x))  # type: ignore[operator]
