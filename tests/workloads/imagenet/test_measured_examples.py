"""The examples that the training loss is measured on are checked, and are part of what a workload is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from lightball.errors import InputError
from lightball.training import Recipe, train
from lightball.workloads import Data, Workload, check, identity

DRAW = torch.Generator().manual_seed(0)
DATA = Data(torch.randn(64, 3, generator=DRAW), torch.arange(64) % 2)
ALL = Workload("some", lambda: nn.Linear(3, 2), DATA, DATA, DATA)
SOME = replace(ALL, measured=Data(DATA.inputs[:8], DATA.targets[:8]))


def test_the_training_loss_is_measured_on_them() -> None:
    points = train(SOME, Recipe(16, 0.1, epochs=1), 1).points
    on_eight = replace(ALL, train=SOME.measured)
    assert points[0].train_loss == train(on_eight, Recipe(8, 0.1, epochs=1), 1).points[0].train_loss
    assert points[0].train_loss != train(ALL, Recipe(16, 0.1, epochs=1), 1).points[0].train_loss


def test_identity_sees_them_only_where_they_are_given() -> None:
    # As it was before there was such a field: stored studies are named by it.
    assert identity(ALL) == "1130c3c3f480680b"
    assert identity(SOME) != identity(ALL)
    assert identity(SOME) != identity(replace(SOME, measured=DATA))


def test_it_needs_models_that_are_trained_alone() -> None:
    assert check(SOME, together=False) is SOME
    with pytest.raises(
        InputError, match=r"^the task measures its training loss on some examples, .* --engine process$"
    ):
        check(SOME)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (DATA.inputs, "measured is a Tensor, but must be lightball.Data"),
        (Data(DATA.inputs[:1], DATA.targets[:1]), "measured has 1 inputs and 1 targets: .* at least 2"),
        (Data(DATA.inputs[:, :2], DATA.targets), r"measured.inputs are torch.float32 of shape \(64, 2\), train.inputs"),
        (Data(DATA.inputs, DATA.targets.float()), "measured.targets are torch.float32 of shape"),
    ],
)
def test_what_is_no_part_of_the_training_data_is_refused(measured: Data, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(replace(ALL, measured=measured), together=False)


def test_samples_of_seeds_are_measured_whole() -> None:
    with pytest.raises(InputError, match=r"^the task has both draw and measured, .*leave measured out$"):
        check(replace(SOME, draw=lambda seed: (DATA, DATA)), together=False)
