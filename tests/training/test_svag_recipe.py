"""Contract: `Recipe(ell=…)` is SVAG, as a literal loop with `torch.optim.SGD` writes it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_tasks import smooth

from lightball import InputError
from lightball.oracles import Sampling, build
from lightball.rules import schedules
from lightball.training import History, Recipe, load_model, train
from lightball.workloads import Workload

SEED = 3
BASE = Recipe(batch_size=50, effective_lr=0.5, epochs=4, momentum=0.9, weight_decay=0.01, ell=3)
RECIPES = {
    "SGDM": BASE,
    "SGD": replace(BASE, momentum=0.0),
    "cosine, micro-batches, clipped": replace(BASE, schedule="cosine", accumulate=3, clip_norm=0.2),
    "iid": replace(BASE, sampling="iid", ell=8, epochs=1),
}
TOLERANCE = 1e-13


def literal(workload: Workload, recipe: Recipe) -> list[Tensor]:
    """lr/ℓ, ℓ times the steps, and ½(1 ± √(2ℓ − 1)) of the losses on minibatches 2k and 2k + 1."""
    model = build(workload.model, SEED)
    sampling = Sampling(len(workload.train), recipe.batch_size, recipe.sampling)
    num_steps = recipe.ell * recipe.epochs * sampling.steps_per_epoch
    lr = recipe.effective_lr * (1 - recipe.momentum) / recipe.ell
    optimizer = torch.optim.SGD(model.parameters(), lr, recipe.momentum, 0, recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedules.parse(recipe.schedule, num_steps))
    minibatches: list[Tensor] = []
    for epoch in range(2 * recipe.ell * recipe.epochs):
        minibatches += sampling.epoch(SEED, epoch).split(recipe.batch_size)[: sampling.steps_per_epoch]
    for one, other in zip(minibatches[::2], minibatches[1::2], strict=True):
        optimizer.zero_grad()
        for sign, batch in ((1, one), (-1, other)):
            loss = nn.functional.cross_entropy(model(workload.train.inputs[batch]), workload.train.targets[batch])
            (0.5 * (1 + sign * math.sqrt(2 * recipe.ell - 1)) * loss).backward()
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        scheduler.step()
    return [p.detach() for p in model.parameters()]


def trained(workload: Workload, recipe: Recipe, folder: Path) -> tuple[list[Tensor], History]:
    history = train(workload, recipe, SEED, folder=folder)
    return [p.detach() for p in load_model(workload, folder).parameters()], history


def distance(workload: Workload, a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference of a coordinate, as a share of the largest displacement of one."""
    origin = [p.detach() for p in build(workload.model, SEED).parameters()]
    moved = max(float((y - z).abs().max()) for y, z in zip(b, origin, strict=True))
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True)) / moved


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_is_a_literal_loop(recipe: Recipe, tmp_path: Path) -> None:
    workload = smooth(torch.float64)
    found, history = trained(workload, recipe, tmp_path)

    assert distance(workload, found, literal(workload, recipe)) < TOLERANCE
    assert [point.epoch for point in history.points] == list(range(recipe.epochs + 1))
    assert history.points[-1].step == recipe.ell * recipe.epochs * (len(workload.train) // recipe.batch_size)


def test_another_ell_exceeds_the_tolerance(tmp_path: Path) -> None:
    workload = smooth(torch.float64)
    found, _ = trained(workload, replace(BASE, ell=2), tmp_path)
    assert distance(workload, found, literal(workload, BASE)) > 1e9 * TOLERANCE


@pytest.mark.parametrize(("batch_norm", "updates"), [("each", 2), ("once", 1), ("frozen", 0)])
def test_batch_norm_under_svag(batch_norm: str, updates: int, tmp_path: Path) -> None:
    base = smooth()
    width = base.train.inputs.shape[1]
    workload = replace(base, model=lambda: nn.Sequential(nn.BatchNorm1d(width), *base.model().children()))
    recipe = replace(BASE, batch_norm=batch_norm, epochs=1)  # type: ignore[arg-type]
    train(workload, recipe, SEED, folder=tmp_path)
    layer = load_model(workload, tmp_path)[0]  # type: ignore[index]

    num_steps = recipe.ell * (len(workload.train) // recipe.batch_size)
    assert layer.num_batches_tracked == updates * num_steps
    sampling = Sampling(len(workload.train), recipe.batch_size)
    minibatches = [b for e in range(2 * recipe.ell) for b in sampling.epoch(SEED, e).split(recipe.batch_size)]
    mean = torch.zeros(width)
    for number, batch in enumerate(minibatches):
        if number % 2 < updates:
            mean += 0.1 * (workload.train.inputs[batch].mean(0) - mean)
    torch.testing.assert_close(layer.running_mean, mean)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ell": 0}, "ell is 0, but must be a whole number from 1 up"),
        ({"ell": 1.5}, "ell is 1.5, but must be a whole number from 1 up"),
        ({"ell": 2, "batch_norm": "none"}, "batch_norm is 'none', but must be each or once or frozen"),
        ({"ell": 2, "drop_last": False}, "drop_last is False, but must be True where ell is above 1"),
    ],
    ids=str,
)
def test_bad_input(wrong: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match=message):
        Recipe(batch_size=8, effective_lr=0.1, **wrong)
