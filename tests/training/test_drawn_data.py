"""Each seed of a study has a sample of its own, and the best checkpoint by validation is the one that is tested."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightball import Data, InputError, Workload
from lightball.studies.engines.process import train_run
from lightball.studies.engines.tasks import source_of
from lightball.studies.runs import Run
from lightball.studies.settings import Settings
from lightball.training import History, Point, Recipe, load_model, train
from lightball.workloads import check, fingerprint, identity

SETTINGS = Settings(engine="process", epochs=6, batch_sizes=(8,))


def points(count: int, seed: int) -> Data:
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return Data(inputs, (inputs.sum(1) > 0).long())


def sample(seed: int) -> tuple[Data, Data]:
    return points(40, 2 * seed + 100), points(30, 2 * seed + 101)


def task(**changes: object) -> Workload:
    train_data, validation = sample(7)
    base = Workload("drawn", lambda: nn.Linear(4, 2), train_data, validation, points(50, 0), draw=sample)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_run_has_the_data_of_its_seed(tmp_path: Path) -> None:
    recipe = Recipe(batch_size=8, effective_lr=0.5, epochs=2)
    drawn = train(task(), recipe, 3, folder=tmp_path)

    alone = replace(task(), train=sample(3)[0], validation=sample(3)[1], draw=None)
    assert drawn == train(alone, recipe, 3)
    assert drawn != train(task(), recipe, 4)
    assert load_model(task(), tmp_path)(task().test.inputs).shape == (50, 2)


def test_both_rules_of_a_pair_have_the_same_sample() -> None:
    sgd, sgdm = (train_run(task(), SETTINGS, Run(8, 0.1, 5, momentum), "cpu") for momentum in (0.0, 0.9))
    other = train_run(task(), SETTINGS, Run(8, 0.1, 6, 0.0), "cpu")

    assert sgd.untrained == sgdm.untrained
    assert sgd.untrained["validation_accuracy"] != other.untrained["validation_accuracy"]


def test_what_is_drawn_is_part_of_the_identity() -> None:
    other = task(draw=lambda seed: sample(seed + 1))

    assert identity(task()) == identity(task())
    assert identity(other) != identity(task())
    assert fingerprint(other, together=False) != fingerprint(task(), together=False)


@dataclass(frozen=True)
class Shifted:
    by: int
    of: Callable[[int], tuple[Data, Data]] = sample

    def __call__(self, seed: int) -> tuple[Data, Data]:
        return self.of(seed + self.by if seed else seed)


def test_a_draw_that_differs_at_other_seeds_only_is_another_source() -> None:
    one, again, other = (task(draw=Shifted(by)) for by in (1, 1, 2))

    assert identity(one) == identity(other)  # which holds the data of seed 0
    assert source_of(one) == source_of(again) != source_of(other)


def few(seed: int) -> tuple[Data, Data]:
    return points(39, seed), points(30, seed)


def broken(seed: int) -> tuple[Data, Data]:
    raise ValueError(f"no file for seed {seed}")


def not_finite(seed: int) -> tuple[Data, Data]:
    train_data, validation = sample(seed)
    return Data(torch.full_like(train_data.inputs, math.nan), train_data.targets), validation


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (few, r"draw\(0\) gives 39 training examples, but train has 40: every seed needs as many"),
        (broken, r"draw\(0\) fails: .*no file for seed 0.* \(draw must be a function of a seed"),
        (not_finite, r"train of draw\(0\).inputs has values that are not finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(task(draw=draw), together=False)


def test_models_that_are_trained_at_once_share_their_data() -> None:
    with pytest.raises(InputError, match=r"draws other data for each seed, .* by itself, --engine process"):
        check(task())


def point(step: int, validation: float | None, test: float | None = None) -> Point:
    return Point(step, step / 5, 1.0, validation, test)


@pytest.mark.parametrize(
    ("validations", "best"),
    [((0.9, 0.5, 0.7, 0.7, 0.6), 2), ((0.9,), 0), ((0.1, None, None), 2), ((0.2, math.nan, 0.1), 2)],
    ids=["the first of equals, and not the untrained", "no training", "not measured", "not a number"],
)
def test_the_best_point(validations: tuple[float | None, ...], best: int) -> None:
    history = History(tuple(point(i, v) for i, v in enumerate(validations)), None)
    assert history.best.step == best


class Rising(nn.Module):
    """Right about the first ``steps % 6`` tenths of the examples, whatever is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        right = torch.arange(len(x)) < len(x) * (self.steps % 6) / 10
        return torch.stack([right.logical_not(), right], dim=1) + self.weight


def test_the_best_checkpoint_is_tested() -> None:
    ones = Data(torch.zeros(30, 1), torch.ones(30, dtype=torch.long))
    rising = Workload("rising", Rising, ones, ones, ones)
    recipe = Recipe(batch_size=10, effective_lr=1e-9, epochs=3, eval_every=1)

    history = train(rising, recipe, 1, accuracies="best")

    assert [p.validation_accuracy for p in history.points] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0, 0.1, 0.2, 0.3]
    )
    assert [p.test_accuracy is not None for p in history.points] == [True] * 6 + [False] * 4
    assert (history.best.step, history.best.test_accuracy) == (5, pytest.approx(0.5))
    last, best = (
        train_run(
            rising,
            replace(SETTINGS, epochs=3, batch_sizes=(10,), eval_every=1, checkpoint=checkpoint),  # type: ignore[arg-type]
            Run(10, 1e-9, 1, 0.0),
            "cpu",
        )
        for checkpoint in ("last", "best")
    )
    assert (last.final["test_accuracy"], best.final["test_accuracy"]) == pytest.approx((0.3, 0.5))
    assert last.final["train_loss"] == best.final["train_loss"]
    assert last.curve == best.curve
    assert len(last.curve) == 4
