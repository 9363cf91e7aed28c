"""Numbers of steps, weight decay of matrices alone, updates in backward, compiled training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from training_tasks import noisy, smooth, task

from lightball.dynamics import compiler_available
from lightball.errors import InputError
from lightball.oracles import build
from lightball.training import History, Point, Recipe, load_model, train
from lightball.workloads import Workload, cross_entropy

SEED = 3
BASE = Recipe(batch_size=50, effective_lr=0.5, momentum=0.9, epochs=4, weight_decay=0.01)


def trained(workload: Workload, recipe: Recipe, folder: Path) -> tuple[dict[str, Tensor], History]:
    """Parameters and buffers at the end."""
    history = train(workload, recipe, SEED, folder=folder)
    return dict(load_model(workload, folder).state_dict()), history


def distance(workload: Workload, a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest difference of a coordinate, as a share of the largest displacement of one."""
    origin = build(workload.model, SEED).state_dict()
    return max(float((a[n] - b[n]).abs().max()) for n in a) / max(float((b[n] - origin[n]).abs().max()) for n in b)


# --- num_steps


def test_so_many_steps_are_made_and_the_schedule_runs_over_them(tmp_path: Path) -> None:
    recipe = replace(BASE, num_steps=12, schedule="linear")
    weights, history = trained(smooth(), recipe, tmp_path / "steps")
    assert [(p.step, p.epoch) for p in history.points] == [(0, 0), (5, 1), (10, 2), (12, 2.4)]
    # of epochs nothing is left
    assert train(smooth(), replace(recipe, epochs=9), SEED) == history
    # and where the two agree they are the same run
    by_epochs, _ = trained(smooth(), replace(BASE, schedule="linear", epochs=3), tmp_path / "epochs")
    by_steps, _ = trained(smooth(), replace(BASE, schedule="linear", num_steps=15), tmp_path / "same")
    assert all(torch.equal(by_epochs[name], by_steps[name]) for name in by_epochs)
    assert distance(smooth(), weights, by_epochs) > 1e-3


def test_steps_of_svag_are_those_of_ell_1() -> None:
    history = train(smooth(), replace(BASE, ell=2, num_steps=7), SEED)
    assert [(p.step, p.epoch) for p in history.points] == [(0, 0), (10, 1), (14, 1.4)]


# --- decay


class Scaled(nn.Module):
    """A bias, a scale of one axis, a scalar, and matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(20, 16)
        self.norm = nn.LayerNorm(16)
        self.temperature = nn.Parameter(torch.ones(()))
        self.last = nn.Linear(16, 5)
        self.to(torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.norm(self.first(x)))) * self.temperature


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_matrices_alone_decay(momentum: float, in_backward: bool, tmp_path: Path) -> None:
    workload = task(Scaled, torch.float64)
    recipe = replace(BASE, momentum=momentum, weight_decay=0.1, decay="matrices", epochs=2, in_backward=in_backward)
    found, _ = trained(workload, recipe, tmp_path / "matrices")

    model = build(workload.model, SEED)
    by_axes: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for p in model.parameters():
        by_axes[p.ndim > 1].append(p)
    groups = [{"params": by_axes[True], "weight_decay": 0.1}, {"params": by_axes[False], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, recipe.effective_lr * (1 - momentum), momentum)
    from lightball.oracles import Sampling

    for epoch in range(2):
        for batch in Sampling(250, 50).epoch(SEED, epoch).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(workload.train.inputs[batch]), workload.train.targets[batch]).backward()
            optimizer.step()
    assert distance(workload, found, dict(model.state_dict())) < 1e-13
    everything, _ = trained(workload, replace(recipe, decay="all"), tmp_path / "all")
    assert distance(workload, everything, found) > 1e-4


# --- in_backward


class Odd(nn.Module):
    """Parameters that the loss does not depend on, or in few steps only, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 32), nn.SiLU(), nn.Linear(32, 5))
        self.spare = nn.Parameter(torch.ones(3, 2))
        self.rare = nn.Parameter(torch.zeros(5))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.to(torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.net(x)
        large = x[:, :1] > 2.3
        return outputs + large * self.rare if large.any() else outputs


IN_BACKWARD = {
    "SGDM": BASE,
    "SGD": replace(BASE, momentum=0.0),
    "clipped": replace(BASE, clip_norm=0.2),
    "micro-batches, cosine": replace(BASE, accumulate=3, schedule="cosine"),
    "SVAG, clipped, micro-batches": replace(BASE, ell=2, accumulate=2, clip_norm=0.2, epochs=2),
    "matrices alone decay": replace(BASE, decay="matrices"),
    "bfloat16": replace(BASE, precision="bfloat16"),
}


@pytest.mark.parametrize("recipe", IN_BACKWARD.values(), ids=IN_BACKWARD)
def test_updates_in_backward_follow_the_same_trajectory(recipe: Recipe, tmp_path: Path) -> None:
    workload = task(Odd, torch.float64)
    after, history = trained(workload, recipe, tmp_path / "after")
    within, same = trained(workload, replace(recipe, in_backward=True), tmp_path / "within")
    assert distance(workload, within, after) < 1e-12
    assert [p.step for p in same.points] == [p.step for p in history.points]
    assert not torch.equal(after["spare"], torch.ones(3, 2))  # it decays


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_dropout_batch_norm_and_tied_weights_in_backward(clip_norm: float, tmp_path: Path) -> None:
    """Clipping makes two passes: with the same dropout, and once into the running statistics."""
    recipe = replace(BASE, clip_norm=clip_norm, accumulate=2)
    after, _ = trained(noisy(), recipe, tmp_path / "after")
    within, _ = trained(noisy(), replace(recipe, in_backward=True), tmp_path / "within")
    assert within["norm.num_batches_tracked"] == after["norm.num_batches_tracked"] == 40
    assert distance(noisy(), within, after) < 1e-5


def test_one_gradient_is_alive_at_a_time(tmp_path: Path) -> None:
    alive: list[int] = []

    def model() -> nn.Module:
        made = Odd()
        for p in made.parameters():
            if p.requires_grad:
                p.register_post_accumulate_grad_hook(
                    lambda _: alive.append(sum(p.grad is not None for p in made.parameters()))
                )
        return made

    workload = task(model, torch.float64)
    train(workload, BASE, SEED)
    assert max(alive) == 5
    alive.clear()
    train(workload, replace(BASE, in_backward=True), SEED)
    assert max(alive) == 1


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_a_loss_that_is_not_finite_fails_at_the_same_step(clip_norm: float) -> None:
    def fragile(outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets) + torch.where(outputs.abs().amax(dim=1) > 4, torch.nan, 0.0)

    workload = replace(smooth(), loss=fragile)
    recipe = replace(BASE, effective_lr=5.0, epochs=20, accumulate=2, clip_norm=clip_norm)
    plain = train(workload, recipe, SEED)
    assert plain.failed_at is not None
    assert plain.failed_at > 5
    assert train(workload, replace(recipe, in_backward=True), SEED).failed_at == plain.failed_at


def test_goes_on_to_the_bit_in_backward(tmp_path: Path) -> None:
    recipe = replace(BASE, in_backward=True, clip_norm=0.3, eval_every=3)

    def stop(point: Point) -> None:
        if point.step == 12:
            raise KeyboardInterrupt

    whole = train(noisy(), recipe, SEED, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(noisy(), recipe, SEED, folder=tmp_path / "parts", checkpoint_every=4, on_point=stop)
    assert train(noisy(), recipe, SEED, folder=tmp_path / "parts") == whole
    tensors = [load_file(tmp_path / run / "checkpoints/step-000020/tensors.safetensors") for run in ("whole", "parts")]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    assert any(name.startswith("momentum_buffer.") for name in tensors[0])


# --- compile


@pytest.mark.skipif(not compiler_available(), reason="torch.compile needs a C++ compiler")
def test_the_forward_pass_of_training_is_compiled_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[bool, int]] = []
    compile_for_real = torch.compile

    def watched(model: nn.Module) -> Callable[[Tensor], Tensor]:
        compiled = compile_for_real(model)

        def forward(inputs: Tensor) -> Tensor:
            shapes.append((model.training, len(inputs)))
            return compiled(inputs)

        return forward

    monkeypatch.setattr(torch, "compile", watched)
    eager, history = trained(smooth(), replace(BASE, epochs=1), tmp_path / "eager")
    assert shapes == []
    compiled, same = trained(smooth(), replace(BASE, epochs=1, compile=True), tmp_path / "compiled")
    assert shapes == [(True, 50)] * 5
    assert distance(smooth(), compiled, eager) < 1e-5
    assert [p.train_loss for p in same.points] == pytest.approx([p.train_loss for p in history.points], rel=1e-5)
    saved = [load_file(tmp_path / run / "checkpoints/step-000005/tensors.safetensors") for run in ("eager", "compiled")]
    assert saved[0].keys() == saved[1].keys()


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightball.training.state.compiler_available", lambda: False)
    with pytest.raises(InputError, match=r"^compile is True, but there is no C\+\+ compiler that runs"):
        train(smooth(), replace(BASE, compile=True), SEED)


# --- refusals


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_steps": 0}, "num_steps is 0, but must be a whole number from 1 up"),
    ({"num_steps": 1.5}, "num_steps is 1.5, but must be a whole number from 1 up"),
    ({"decay": "none"}, "decay is 'none', but must be all or matrices"),
    ({"in_backward": 1}, "in_backward is 1, but must be True or False"),
    ({"compile": "on"}, "compile is 'on', but must be True or False"),
    (
        {"in_backward": True, "precision": "float16"},
        "in_backward is True, but must be False in float16, whose gradients are scaled until all are there: use "
        "bfloat16 or float32",
    ),
    (
        {"in_backward": True, "compile": True},
        "in_backward is True, but must be False with compile, whose backward pass makes all gradients at once: choose "
        "one of the two",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_values(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(BASE, **wrong)
    assert str(caught.value) == message


def test_float16_weights_are_not_updated_in_backward() -> None:
    def half() -> nn.Module:
        return nn.Linear(20, 5).half()

    with pytest.raises(InputError, match="in_backward=True with float16 parameters"):
        train(task(half, torch.float16), replace(BASE, in_backward=True), SEED)


def test_a_checkpoint_from_before_these_options_goes_on(tmp_path: Path) -> None:
    """What it does not name was as it is by default, and anything else is another run."""
    import hashlib
    import json

    whole = train(noisy(), BASE, SEED, folder=tmp_path)
    folder = tmp_path / "checkpoints/step-000020"
    state = json.loads((folder / "state.json").read_text())
    for name in ("num_steps", "decay", "in_backward", "compile"):
        del state["asked"][name]
    del state["digest"]
    digest = hashlib.blake2b((folder / "tensors.safetensors").read_bytes())
    digest.update(json.dumps(state, sort_keys=True).encode())
    (folder / "state.json").write_text(json.dumps({**state, "digest": digest.hexdigest()[:32]}))
    taken: list[Point] = []
    assert train(noisy(), BASE, SEED, folder=tmp_path, on_point=taken.append) == whole
    assert taken == []
    with pytest.raises(InputError, match="holds another run, with decay all, not matrices: choose"):
        train(noisy(), replace(BASE, decay="matrices"), SEED, folder=tmp_path)


def test_sparse_gradients_still_move(tmp_path: Path) -> None:
    class Embedded(nn.Module):
        def __init__(self, sparse: bool) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 8, sparse=sparse)
            self.last = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.table((x.abs() * 3).long().clamp(max=9)).mean(dim=1))

    histories = [train(task(lambda s=s: Embedded(s)), BASE, SEED) for s in (False, True)]  # type: ignore[misc]
    assert histories[0] == histories[1]
    assert math.isfinite(histories[0].points[-1].train_loss)
