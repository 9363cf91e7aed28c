"""Failed runs are results, what cannot be used is refused in one line, and nothing around a run is changed by it."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_tasks import noisy, smooth, task

from lightball.errors import InputError
from lightball.training import Recipe, load_model, train
from lightball.training.folder import held
from lightball.workloads import accuracy

RECIPE = Recipe(batch_size=50, effective_lr=0.3, epochs=4)
VALID_SCHEDULES = "constant, cosine, linear, step:0.5,0.75:0.1, or one of them after a warm-up, warmup:0.05+cosine"


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that diverges at once where the rate is too high."""
    return (outputs - targets[:, None]).square().sum(dim=1)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_rate_too_high_is_a_result(momentum: float, tmp_path: Path) -> None:
    workload = replace(smooth(), loss=squares)
    recipe = replace(RECIPE, effective_lr=100.0, momentum=momentum, epochs=40, eval_every=1)
    history = train(workload, recipe, 1, folder=tmp_path, checkpoint_every=2)
    assert history.failed_at is not None
    assert [p.step for p in history.points] == list(range(history.failed_at + 1))
    lines = (tmp_path / "curve.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(history.failed_at + 1))
    # called again it fails again, at the same step
    again = train(workload, recipe, 1, folder=tmp_path, checkpoint_every=2)
    assert again.failed_at == history.failed_at
    assert repr(again) == repr(history)  # NaN is not equal to itself


def test_fails_where_the_vectorised_engine_does() -> None:
    from lightball.dynamics import Ensemble
    from lightball.oracles import MinibatchOracle, Sampling
    from lightball.rules import canonical

    workload = replace(smooth(), loss=squares)
    data = workload.train
    oracle = MinibatchOracle(workload.model, squares, data.inputs, data.targets, Sampling(250, 50))
    ensemble = Ensemble(oracle, [1], canonical(100.0))
    ensemble.advance(200)
    history = train(workload, replace(RECIPE, effective_lr=100.0, epochs=40), 1)
    assert history.failed_at == int(ensemble.failed_at[0])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_where_nobody_looks_at_each_step_nothing_changes(
    momentum: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU a look waits for the step: a run that has failed goes on for some steps that leave no trace."""
    workload = replace(smooth(), loss=squares)
    for epochs, effective_lr in ((4, 0.01), (40, 2.0)):
        recipe = replace(RECIPE, effective_lr=effective_lr, momentum=momentum, epochs=epochs, eval_every=9)
        history = train(workload, recipe, 1)
        with monkeypatch.context() as patched:
            patched.setattr("lightball.training.loop._look_every", lambda *_: 32)
            folder = tmp_path / str(effective_lr)
            assert train(workload, recipe, 1, folder=folder, checkpoint_every=7) == history
        if history.failed_at is not None:
            kept = [int(path.name[-6:]) for path in (folder / "checkpoints").iterdir()]
            assert max(kept, default=0) <= history.failed_at
        assert (history.failed_at is None) == (epochs == 4)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_loss_that_is_never_finite(precision: str) -> None:
    workload = replace(smooth(), loss=lambda outputs, _: outputs.sum(dim=1) * math.nan)
    history = train(workload, replace(RECIPE, precision=precision), 1)  # type: ignore[arg-type]
    assert history.failed_at == 0
    assert [p.step for p in history.points] == [0]
    assert math.isnan(history.points[0].train_loss)


def test_nothing_around_a_run_changes(tmp_path: Path) -> None:
    workload = noisy()
    data = [t.clone() for d in (workload.train, workload.validation, workload.test) for t in (d.inputs, d.targets)]
    torch.manual_seed(7)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    for precision in ("float32", "bfloat16", "float16"):
        recipe = replace(RECIPE, precision=precision)
        train(workload, recipe, 1, folder=tmp_path / precision)
        train(workload, recipe, 1, folder=tmp_path / precision)
        load_model(workload, tmp_path / precision)
    with pytest.raises(ZeroDivisionError):
        train(workload, RECIPE, 1, on_point=lambda _: 1 // 0)  # type: ignore[arg-type, return-value]
    after = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    splits = (workload.train, workload.validation, workload.test)
    assert all(map(torch.equal, data, [t for d in splits for t in (d.inputs, d.targets)]))
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_around_a_run_does_not_change_it(precision: Any) -> None:
    recipe = replace(RECIPE, precision=precision)
    history = train(noisy(), recipe, 1)
    torch.manual_seed(8)
    for around in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        with around:
            assert train(noisy(), recipe, 1) == history


WRONG_RECIPES: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 0}, "batch_size is 0, but must be a whole number from 1 up"),
    ({"batch_size": 2.0}, "batch_size is 2.0, but must be a whole number from 1 up"),
    ({"epochs": 0}, "epochs is 0, but must be a whole number from 1 up"),
    ({"accumulate": True}, "accumulate is True, but must be a whole number from 1 up"),
    (
        {"accumulate": 51},
        "accumulate is 51, but must be at most the batch size, 50: a micro-batch has at least one example",
    ),
    ({"eval_every": 0}, "eval_every is 0, but must be a whole number from 1 up"),
    ({"effective_lr": 0.0}, "effective_lr is 0.0, but must be a finite number above 0"),
    ({"effective_lr": "0.1"}, "effective_lr is '0.1', but must be a finite number above 0"),
    ({"effective_lr": math.inf}, "effective_lr is inf, but must be a finite number above 0"),
    ({"momentum": 1.0}, "momentum is 1.0, but must be a number from 0 up and below 1; 0 is SGD"),
    ({"momentum": -0.1}, "momentum is -0.1, but must be a number from 0 up and below 1; 0 is SGD"),
    ({"weight_decay": math.nan}, "weight_decay is nan, but must be a finite number from 0 up"),
    ({"clip_norm": -1.0}, "clip_norm is -1.0, but must be a finite number from 0 up; 0 clips nothing"),
    ({"sampling": "random"}, "sampling is 'random', but must be shuffle or iid"),
    ({"precision": "float64"}, "precision is 'float64', but must be float32 or bfloat16 or float16"),
    ({"drop_last": 1}, "drop_last is 1, but must be True or False"),
    ({"schedule": "sine"}, f"unknown schedule 'sine'; valid are {VALID_SCHEDULES}"),
    ({"schedule": None}, f"schedule is None, but must be text: {VALID_SCHEDULES}"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_RECIPES, ids=lambda value: str(value)[:40])
def test_wrong_recipes(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(RECIPE, **wrong)
    assert str(caught.value) == message


WRONG_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"device": "tpu0"}, r"device 'tpu0' cannot be used: .+ \(choose cpu or cuda\)"),
    ({"device": "meta"}, "device is 'meta', but must be cpu, cuda, or one GPU such as cuda:1"),
    ({"device": "cuda:99"}, r"device 'cuda:99' cannot be used: .+ \(choose cpu or cuda\)"),
    ({"checkpoint_every": 0}, "checkpoint_every is 0, but must be a whole number from 1 up"),
    (
        {"checkpoint_every": 5},
        "checkpoint_every is given without a folder to write to: give folder, or leave checkpoint_every out",
    ),
    ({"tensorboard": True}, "tensorboard is given without a folder to write to: give folder, or leave tensorboard out"),
    ({"accuracies": "never"}, "accuracies is 'never', but must be always or ends or best"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_ARGUMENTS, ids=lambda value: str(value)[:40])
def test_wrong_arguments(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        train(smooth(), RECIPE, 1, **wrong)


def test_a_batch_that_does_not_fit() -> None:
    message = "^batch size 251 does not fit the 250 training examples: choose one between 1 and 250$"
    with pytest.raises(InputError, match=message):
        train(smooth(), replace(RECIPE, batch_size=251), 1)


def test_a_loss_that_is_already_a_mean() -> None:
    message = (
        r"^the loss or the metric gives shape \(\) for 100 examples, but must give one number for each, shape "
        r"\(100,\): pass reduction='none'$"
    )
    with pytest.raises(InputError, match=message):
        train(replace(smooth(), loss=nn.functional.cross_entropy), RECIPE, 1)


def test_a_model_with_nothing_to_train() -> None:
    def frozen() -> nn.Module:
        return nn.Linear(20, 5).requires_grad_(False)

    message = "^the model has no trainable parameter: at least one must have requires_grad=True$"
    with pytest.raises(InputError, match=message):
        train(task(frozen), RECIPE, 1)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^cannot write to the folder '.*file': File exists; choose another$"):
        train(smooth(), RECIPE, 1, folder=tmp_path / "file")


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_two_at_once_in_one_folder(tmp_path: Path) -> None:
    message = "^another process trains in the folder '.*run': wait for it, or choose another folder$"
    with held(tmp_path / "run"), pytest.raises(InputError, match=message):
        train(smooth(), RECIPE, 1, folder=tmp_path / "run")
    train(smooth(), RECIPE, 1, folder=tmp_path / "run")  # when it has ended


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(smooth(), RECIPE, 1)
    calls: list[int] = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 6:  # in the second checkpoint
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    message = (
        r"^cannot write the checkpoint '.*step-000010': No space left on device; make room, or move what is in the "
        "way, and train again with the same folder to go on$"
    )
    with pytest.raises(InputError, match=message):
        train(smooth(), RECIPE, 1, folder=tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000005"]
    assert train(smooth(), RECIPE, 1, folder=tmp_path) == whole


@pytest.mark.parametrize(("batch_size", "accumulate", "widest"), [(1, 1, 32), (25, 1, 50), (50, 50, 32)])
def test_evaluation_takes_at_least_32_examples_at_a_time(batch_size: int, accumulate: int, widest: int) -> None:
    widths: list[int] = []

    def accuracy_seen(outputs: Tensor, targets: Tensor) -> Tensor:
        widths.append(len(targets))
        return accuracy(outputs, targets)

    recipe = Recipe(batch_size=batch_size, effective_lr=0.1, accumulate=accumulate)
    train(replace(smooth(), metric=accuracy_seen), recipe, 1, accuracies="ends")
    assert max(widths) == widest
