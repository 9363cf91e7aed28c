"""bfloat16 and float16: nearly as good as float32, parameters stay in float32, and the loss scale does what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from training_tasks import smooth

from lightball.oracles import build
from lightball.training import Point, Recipe, load_model, train
from lightball.training.loss_scale import LossScale
from lightball.workloads import Workload, cross_entropy, load

RECIPE = Recipe(batch_size=50, effective_lr=0.3, momentum=0.9, epochs=4)


@pytest.mark.parametrize(("task", "epochs"), [("digits", 6), ("digits-conv", 3)])
def test_trains_nearly_as_well(task: str, epochs: int) -> None:
    workload = load(task)
    recipe = Recipe(batch_size=32, effective_lr=0.2, momentum=0.9, epochs=epochs)
    full = train(workload, recipe, 1)
    assert full.points[-1].test_accuracy > 0.9  # type: ignore[operator]
    for precision in ("bfloat16", "float16"):
        half = train(workload, replace(recipe, precision=precision), 1)  # type: ignore[arg-type]
        assert half.failed_at is None
        assert half != full, "nothing was computed in half precision"
        assert half.points[-1].train_loss == pytest.approx(full.points[-1].train_loss, rel=0.1)
        assert half.points[-1].test_accuracy == pytest.approx(full.points[-1].test_accuracy, abs=0.02)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_forward_pass_is_in_half_precision_and_the_weights_are_not(precision: str, tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):  # the fingerprint of the run is taken in the model's own precision
            seen.add(outputs.dtype)
        return cross_entropy(outputs, targets)

    workload = replace(smooth(), loss=loss)
    train(workload, replace(RECIPE, precision=precision), 1, folder=tmp_path)  # type: ignore[arg-type]
    assert seen == {getattr(torch, precision)}
    assert {p.dtype for p in load_model(workload, tmp_path).parameters()} == {torch.float32}


def steep(factor: float) -> Workload:
    """A loss whose gradients overflow in float16 until its scale is small enough."""
    return replace(smooth(), loss=lambda outputs, targets: factor * cross_entropy(outputs, targets))


def loss_scale_in(checkpoint: Path) -> dict[str, float]:
    return json.loads((checkpoint / "state.json").read_text())["values"]["loss_scale"]  # type: ignore[no-any-return]


def test_an_overflow_skips_the_step_and_halves_the_scale(tmp_path: Path) -> None:
    workload = steep(1e4)
    recipe = replace(RECIPE, batch_size=250, epochs=1, precision="float16", weight_decay=0.1)
    history = train(workload, recipe, 1, folder=tmp_path)
    assert history.failed_at is None
    assert history.points[0] == replace(history.points[1], step=0, epoch=0.0)
    assert loss_scale_in(tmp_path / "checkpoints/step-000001") == {"value": 2.0**15, "good_steps": 0}
    start, end = build(workload.model, 1), load_model(workload, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(start.parameters(), end.parameters(), strict=True))
    from safetensors.torch import load_file

    tensors = load_file(next(tmp_path.glob("checkpoints/*/tensors.safetensors")))
    buffers = [value for name, value in tensors.items() if name.startswith("momentum_buffer.")]
    assert buffers
    assert not any(buffer.any() for buffer in buffers)


def test_goes_on_at_a_scale_that_fits(tmp_path: Path) -> None:
    """Few steps are lost: the curve is close to that of float32, and the rate takes the factor back."""
    recipe = replace(RECIPE, effective_lr=RECIPE.effective_lr / 1e3, epochs=30, accumulate=3)
    half = train(steep(1e3), replace(recipe, precision="float16"), 1, folder=tmp_path)
    full = train(steep(1e3), recipe, 1)
    assert half.points[-1].train_loss == pytest.approx(full.points[-1].train_loss, rel=0.1)
    assert full.points[-1].train_loss < 0.7 * full.points[0].train_loss


def test_a_scale_below_one_is_a_failure() -> None:
    history = train(steep(1e9), replace(RECIPE, precision="float16"), 1)
    assert history.failed_at == 16  # from 2¹⁶ the 17th halving goes below 1
    assert history.points[-1].step == 15


def test_the_scale_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    def stop(point: Point) -> None:
        if point.step == 15:
            raise KeyboardInterrupt

    recipe = replace(RECIPE, effective_lr=RECIPE.effective_lr / 1e2, precision="float16")
    whole = train(steep(1e2), recipe, 1)
    with pytest.raises(KeyboardInterrupt):
        train(steep(1e2), recipe, 1, folder=tmp_path, on_point=stop)
    scale = loss_scale_in(max(tmp_path.glob("checkpoints/*")))
    assert scale["value"] < 2.0**16
    assert scale["good_steps"] > 0
    assert train(steep(1e2), recipe, 1, folder=tmp_path) == whole


@pytest.mark.parametrize("scale", [1.0, 2.0**10])
def test_gradients_are_unscaled_before_they_are_clipped(scale: float, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Powers of two change no bit where nothing overflows or underflows: float32 under a scale, here."""
    from lightball.training import state

    recipe = replace(RECIPE, clip_norm=0.1)
    plain = train(smooth(), recipe, 1)
    begin = state.start

    def scaled(*arguments):  # type: ignore[no-untyped-def]
        made = begin(*arguments)
        made.loss_scale = LossScale(scale)
        return made

    monkeypatch.setattr("lightball.training.loop.start", scaled)
    assert train(smooth(), recipe, 1) == plain


@given(st.lists(st.booleans(), max_size=60))
def test_loss_scale_is_halved_by_each_overflow(steps: list[bool]) -> None:
    scale = LossScale()
    for finite in steps:
        scale = scale.after(finite)
    assert scale.value == 2.0 ** (16 - steps.count(False))
    assert scale.good_steps == (steps[::-1].index(False) if False in steps else len(steps))
    assert scale.exhausted == (steps.count(False) > 16)


def test_loss_scale_doubles_after_2000_good_steps() -> None:
    scale = LossScale()
    for _ in range(1999):
        scale = scale.after(True)
    assert scale == LossScale(2.0**16, 1999)
    assert scale.after(True) == LossScale(2.0**17, 0)
    assert scale.after(False) == LossScale(2.0**15, 0)
