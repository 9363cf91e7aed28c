"""On a GPU: the same curve as on the CPU to rounding, every precision, resuming, and the GPU's generator left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_tasks import noisy, smooth

from lightball.training import Point, Recipe, load_model, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

RECIPE = Recipe(batch_size=50, effective_lr=0.3, momentum=0.9, epochs=10, clip_norm=1.0, accumulate=2)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.05), ("float16", 0.05)])
def test_is_close_to_the_cpu(precision: Any, tolerance: float, tmp_path: Path) -> None:
    on_cpu = train(smooth(), RECIPE, 1)
    history = train(smooth(), replace(RECIPE, precision=precision), 1, device="cuda", folder=tmp_path)
    assert history.points[-1].train_loss == pytest.approx(on_cpu.points[-1].train_loss, rel=tolerance)
    assert {p.device.type for p in load_model(smooth(), tmp_path).parameters()} == {"cpu"}


def test_goes_on_with_dropout_and_leaves_the_generators_alone(tmp_path: Path) -> None:
    def stop(point: Point) -> None:
        if point.step == 25:
            raise KeyboardInterrupt

    torch.cuda.manual_seed(7)
    before = torch.cuda.get_rng_state(), torch.get_rng_state()
    whole = train(noisy(), RECIPE, 1, device="cuda")
    with pytest.raises(KeyboardInterrupt):
        train(noisy(), RECIPE, 1, device="cuda", folder=tmp_path, checkpoint_every=8, on_point=stop)
    parts = train(noisy(), RECIPE, 1, device="cuda", folder=tmp_path, checkpoint_every=8)
    losses = [[point.train_loss for point in history.points] for history in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert train(noisy(), RECIPE, 2, device="cuda").points[-1].train_loss != pytest.approx(losses[0][-1], rel=1e-3)
    assert all(map(torch.equal, before, (torch.cuda.get_rng_state(), torch.get_rng_state())))


def test_a_run_that_fails_between_two_looks_fails_at_its_step() -> None:
    def squares(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets[:, None]).square().sum(dim=1)

    recipe = replace(RECIPE, effective_lr=2.0, epochs=40, eval_every=50, clip_norm=0.0)
    workload = replace(smooth(), loss=squares)
    on_cpu, on_gpu = train(workload, recipe, 1), train(workload, recipe, 1, device="cuda")
    assert on_cpu.failed_at is not None
    assert on_gpu.failed_at == pytest.approx(on_cpu.failed_at, abs=2)
    assert [p.step for p in on_gpu.points] == [p.step for p in on_cpu.points]


@pytest.mark.parametrize("option", [{"in_backward": True}, {"compile": True}, {"decay": "matrices"}], ids=str)
def test_options_are_close_to_the_cpu(option: dict[str, Any]) -> None:
    recipe = replace(RECIPE, weight_decay=0.01, decay=option.get("decay", "all"))
    on_cpu = train(smooth(), recipe, 1)
    on_gpu = train(smooth(), replace(recipe, **option), 1, device="cuda")
    assert on_gpu.points[-1].train_loss == pytest.approx(on_cpu.points[-1].train_loss, rel=1e-3)
