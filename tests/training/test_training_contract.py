"""Contract: `train` moves a model as a loop with `torch.optim.SGD` does, and as the vectorised engine does.

Tolerances are shares of the distance that the model has moved in about 50 steps of a smooth task: at most 5e-7 was seen
in float32 and 5e-16 in float64, and 0 without momentum. The negative controls, such as β off by 0.01, ended 0.01 or
more away, and must exceed the float32 tolerance a thousand times.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_tasks import NUM_EXAMPLES, smooth

from lightball.dynamics import Ensemble
from lightball.oracles import MinibatchOracle, Sampling, build
from lightball.rules import canonical, schedules
from lightball.training import Recipe, load_model, train
from lightball.workloads import Workload

TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-13}
SEED = 3
BASE = Recipe(batch_size=50, effective_lr=0.5, epochs=10, weight_decay=0.01)

RECIPES = {
    "SGD": BASE,
    "SGDM": replace(BASE, momentum=0.9),
    "SGD, cosine": replace(BASE, schedule="cosine"),
    "SGDM, warm-up, linear": replace(BASE, momentum=0.9, schedule="warmup:0.2+linear"),
    "SGDM, decay by steps": replace(BASE, momentum=0.5, schedule="step:0.5,0.75:0.1"),
    "SGDM, incomplete last batch": replace(BASE, momentum=0.9, batch_size=60, drop_last=False),
    "SGD, iid": replace(BASE, sampling="iid"),
    "SGDM, clipped": replace(BASE, momentum=0.9, clip_norm=0.2),
    "SGDM, three unequal micro-batches": replace(BASE, momentum=0.9, accumulate=3),
    "all at once": replace(
        BASE, momentum=0.9, batch_size=60, drop_last=False, accumulate=7, clip_norm=0.2, schedule="cosine"
    ),
}


def plain_loop(workload: Workload, recipe: Recipe, seed: int) -> dict[str, Tensor]:
    """`torch.optim.SGD` in its sum form on whole batches, and nothing of lightball but weights and data order."""
    model = build(workload.model, seed)
    sampling = Sampling(len(workload.train), recipe.batch_size, recipe.sampling, recipe.drop_last)
    factor = schedules.parse(recipe.schedule, recipe.epochs * sampling.steps_per_epoch)
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.effective_lr * (1 - recipe.momentum), recipe.momentum, 0, recipe.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for epoch in range(recipe.epochs):
        for batch in sampling.epoch(seed, epoch).split(recipe.batch_size)[: sampling.steps_per_epoch]:
            outputs = model(workload.train.inputs[batch])
            optimizer.zero_grad()
            nn.functional.cross_entropy(outputs, workload.train.targets[batch]).backward()
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            scheduler.step()
    return weights(model)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


def trained(workload: Workload, recipe: Recipe, folder: Path, **options: Any) -> dict[str, Tensor]:
    train(workload, recipe, SEED, folder=folder, **options)
    return weights(load_model(workload, folder))


def distance(workload: Workload, a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest difference of a coordinate, as a share of the largest displacement of one."""
    origin = weights(build(workload.model, SEED))
    return max(float((a[n] - b[n]).abs().max()) for n in a) / max(float((b[n] - origin[n]).abs().max()) for n in b)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_is_torch_sgd(recipe: Recipe, dtype: torch.dtype, tmp_path: Path) -> None:
    workload = smooth(dtype)
    difference = distance(workload, trained(workload, recipe, tmp_path), plain_loop(workload, recipe, SEED))
    assert difference < TOLERANCE[dtype]


@pytest.mark.parametrize(
    "wrong",
    [{"momentum": 0.89}, {"schedule": "cosine"}, {"weight_decay": 0.011}, {"clip_norm": 0.21}, {"sampling": "iid"}],
    ids=str,
)
def test_controls_exceed_the_tolerance(wrong: dict[str, Any], tmp_path: Path) -> None:
    workload, recipe = smooth(), replace(BASE, momentum=0.9, clip_norm=0.2)
    got = trained(workload, replace(recipe, **wrong), tmp_path)
    assert distance(workload, got, plain_loop(workload, recipe, SEED)) > 1000 * TOLERANCE[torch.float32]


@pytest.mark.parametrize("schedule", ["constant", "warmup:0.1+cosine"])
def test_is_the_vectorised_engine(schedule: str, tmp_path: Path) -> None:
    workload = smooth()
    sampling = Sampling(NUM_EXAMPLES, BASE.batch_size)
    oracle = MinibatchOracle(workload.model, workload.loss, workload.train.inputs, workload.train.targets, sampling)
    momenta = torch.tensor([0.0, 0.9])
    hyper = canonical(torch.full((2,), BASE.effective_lr), momenta, BASE.weight_decay)
    ensemble = Ensemble(oracle, [SEED, SEED], hyper, schedules.parse(schedule, 50))
    ensemble.advance(50)
    losses = ensemble.measure(oracle.loss)
    for i, momentum in enumerate((0.0, 0.9)):
        recipe = replace(BASE, momentum=momentum, schedule=schedule)
        history = train(workload, recipe, SEED, folder=tmp_path / str(i))
        got = weights(load_model(workload, tmp_path / str(i)))
        replica = {name: p[i] for name, p in ensemble.x.items()}
        assert history.points[-1].step == 50
        assert distance(workload, got, replica) < TOLERANCE[torch.float32]
        assert history.points[-1].train_loss == pytest.approx(float(losses[i]), rel=1e-6)


def test_epochs_and_points() -> None:
    taken = []
    history = train(smooth(), replace(BASE, epochs=2, eval_every=4), SEED, on_point=taken.append)
    assert [(p.step, p.epoch) for p in history.points] == [(0, 0), (4, 0.8), (8, 1.6), (10, 2)]
    assert list(history.points) == taken
    each_epoch = train(smooth(), replace(BASE, epochs=2), SEED)
    assert [p.step for p in each_epoch.points] == [0, 5, 10]
    assert each_epoch.points[-1] == history.points[-1]
    ends = train(smooth(), replace(BASE, epochs=2), SEED, accuracies="ends")
    assert [p.train_loss for p in ends.points] == [p.train_loss for p in each_epoch.points]
    assert [p.test_accuracy is None for p in ends.points] == [False, True, False]
    assert (ends.points[0], ends.points[2]) == (each_epoch.points[0], each_epoch.points[2])


def test_points_are_means_over_all_examples(tmp_path: Path) -> None:
    workload = smooth(torch.float64)
    point = train(workload, replace(BASE, batch_size=60), SEED, folder=tmp_path).points[-1]
    model = load_model(workload, tmp_path)
    with torch.no_grad():
        loss = workload.loss(model(workload.train.inputs), workload.train.targets).mean()
        scores = [workload.metric(model(d.inputs), d.targets).mean() for d in (workload.validation, workload.test)]
    assert point.train_loss == pytest.approx(float(loss), rel=1e-13)
    assert (point.validation_accuracy, point.test_accuracy) == pytest.approx([float(s) for s in scores])


def test_sgd_keeps_no_momentum_buffer(tmp_path: Path) -> None:
    from safetensors import safe_open

    for momentum, expected in ((0.0, 0), (0.9, 4)):
        folder = tmp_path / str(momentum)
        train(smooth(), replace(BASE, momentum=momentum, epochs=1), SEED, folder=folder)
        with safe_open(folder / "checkpoints/step-000005/tensors.safetensors", "pt") as file:
            assert sum(name.startswith("momentum_buffer.") for name in file.keys()) == expected  # noqa: SIM118
