"""Checkpoints: complete or absent, the last two, damage found and named, and no other run's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from training_tasks import Noisy, noisy, smooth

from lightball.errors import InputError
from lightball.training import History, Point, Recipe, load_model, train
from lightball.workloads import Workload, cross_entropy

RECIPE = Recipe(batch_size=25, effective_lr=0.3, momentum=0.9, epochs=3, clip_norm=1.0, accumulate=2, eval_every=5)


def train_until(step: int, folder: Path, task: Workload | None = None, checkpoint_every: int = 4) -> None:
    """Train, and leave when the point at ``step`` is measured."""

    def stop(point: Point) -> None:
        if point.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(task or noisy(), RECIPE, 1, folder=folder, checkpoint_every=checkpoint_every, on_point=stop)


def go_on(folder: Path) -> History:
    return train(noisy(), RECIPE, 1, folder=folder, checkpoint_every=4)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def same_tensors(a: Path, b: Path) -> bool:
    x, y = (load_file(folder / "checkpoints/step-000030/tensors.safetensors") for folder in (a, b))
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


def test_the_last_two_are_kept_and_hold_what_they_should(tmp_path: Path) -> None:
    go_on(tmp_path)
    assert names(tmp_path) == ["step-000028", "step-000030"]
    folder = tmp_path / "checkpoints/step-000030"
    assert sorted(path.name for path in folder.iterdir()) == ["state.json", "tensors.safetensors"]
    state = json.loads((folder / "state.json").read_text())
    assert state["format"] == 1
    assert state["versions"].keys() == {"lightball", "torch", "python"}
    assert state["asked"]["seed"] == 1
    assert state["asked"]["effective_lr"] == 0.3
    assert [point["step"] for point in state["values"]["points"]] == [0, 5, 10, 15, 20, 25, 30]
    tensors = load_file(folder / "tensors.safetensors")
    kinds = {name.split(".")[0] for name in tensors}
    assert kinds == {"parameter", "buffer", "momentum_buffer", "generator"}
    # the tied weight is there once, in the layout of its values
    model = load_model(noisy(), tmp_path)
    assert "parameter.again.weight" not in tensors
    assert torch.equal(tensors["parameter.middle.weight"], model.again.weight)  # type: ignore[union-attr, arg-type]
    assert not model.middle.weight.is_contiguous()  # type: ignore[union-attr, operator]


def test_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole = go_on(tmp_path / "whole")
    train_until(20, tmp_path / "parts")  # the newest checkpoint is of step 16
    assert go_on(tmp_path / "parts") == whole
    assert same_tensors(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_run_is_not_computed_again(tmp_path: Path) -> None:
    whole = go_on(tmp_path)
    taken: list[object] = []
    assert train(noisy(), RECIPE, 1, folder=tmp_path, checkpoint_every=4, on_point=taken.append) == whole
    assert taken == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def change_a_number(path: Path) -> None:
    path.write_text(path.read_text().replace('"step": 16', '"step": 15'))


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "tensors cut": ("tensors.safetensors", cut),
    "a bit of a tensor": ("tensors.safetensors", flip),
    "tensors gone": ("tensors.safetensors", Path.unlink),
    "state cut": ("state.json", cut),
    "state empty": ("state.json", lambda path: path.write_bytes(b"")),
    "state of another kind": ("state.json", lambda path: path.write_text("[1]") and None),
    "a number of the state": ("state.json", change_a_number),
    "state gone": ("state.json", Path.unlink),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_one_is_named_and_the_one_before_it_used(damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole = go_on(tmp_path / "whole")
    train_until(20, tmp_path / "parts")
    name, spoil = damage
    spoil(tmp_path / "parts/checkpoints/step-000016" / name)
    with pytest.warns(UserWarning, match=r"step-000016' is damaged \(.+\); going on from the one before it"):
        assert go_on(tmp_path / "parts") == whole
    assert same_tensors(tmp_path / "whole", tmp_path / "parts")
    assert names(tmp_path / "parts") == ["step-000028", "step-000030"]


def test_two_readable_ones_stay_however_far_ahead_the_damaged_one_was(tmp_path: Path) -> None:
    train_until(20, tmp_path)
    cut(tmp_path / "checkpoints/step-000016/state.json")
    with pytest.warns(UserWarning, match="step-000016"):
        train_until(15, tmp_path, checkpoint_every=1)
    assert names(tmp_path) == ["step-000013", "step-000014"]


def test_begins_again_where_all_are_damaged(tmp_path: Path) -> None:
    whole = go_on(tmp_path / "whole")
    train_until(20, tmp_path / "parts")
    for path in (tmp_path / "parts/checkpoints").glob("*/tensors.safetensors"):
        cut(path)
    with pytest.warns(UserWarning, match="or from the beginning") as caught:
        assert go_on(tmp_path / "parts") == whole
    assert len(caught) == 2


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    train_until(20, tmp_path)
    left = tmp_path / "checkpoints" / "5f0c.tmp"
    shutil.copytree(tmp_path / "checkpoints/step-000016", left)
    go_on(tmp_path)
    assert names(tmp_path) == ["step-000028", "step-000030"]


def doubled() -> Workload:
    return replace(noisy(), loss=lambda outputs, targets: 2 * cross_entropy(outputs, targets))


def undropped() -> Workload:
    def model() -> nn.Module:
        made = Noisy()
        made.drop.p = 0.0
        return made

    return replace(noisy(), model=model)


OTHER = {
    "recipe": (noisy, {"effective_lr": 0.2, "clip_norm": 0.0}, 1, "effective_lr 0.3, not 0.2; clip_norm 1.0, not 0.0"),
    "seed": (noisy, {}, 2, "seed 1, not 2"),
    "workload": (smooth, {}, 1, "workload [0-9a-f]{16}, not [0-9a-f]{16}"),
    "loss": (doubled, {}, 1, "a loss, metric or forward pass of fingerprint [0-9a-f]{16}, not [0-9a-f]{16}"),
    "dropout": (undropped, {}, 1, "a loss, metric or forward pass of fingerprint [0-9a-f]{16}, not [0-9a-f]{16}"),
}


@pytest.mark.parametrize(("task", "changes", "seed", "named"), OTHER.values(), ids=OTHER)
def test_another_run_is_refused_and_left_alone(task, changes, seed, named, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole = go_on(tmp_path)
    curve = (tmp_path / "curve.jsonl").read_text()
    message = f"the folder '.*' holds another run, with {named}: choose another folder, or delete that one$"
    with pytest.raises(InputError, match=message):
        train(task(), replace(RECIPE, **changes), seed, folder=tmp_path)
    assert (tmp_path / "curve.jsonl").read_text() == curve
    assert go_on(tmp_path) == whole


def test_accuracies_are_part_of_the_run(tmp_path: Path) -> None:
    go_on(tmp_path)
    with pytest.raises(InputError, match="with accuracies always, not ends: choose"):
        train(noisy(), RECIPE, 1, folder=tmp_path, accuracies="ends")


def test_another_format_is_refused(tmp_path: Path) -> None:
    go_on(tmp_path)
    path = tmp_path / "checkpoints/step-000030/state.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    message = r"has format 2, but this version of lightball reads 1: go on with lightball .+, or choose another folder$"
    with pytest.raises(InputError, match=message):
        go_on(tmp_path)


def test_load_model_takes_the_newest_readable_one_and_no_other_workload(tmp_path: Path) -> None:
    go_on(tmp_path)
    newest = load_model(noisy(), tmp_path)
    cut(tmp_path / "checkpoints/step-000030/state.json")
    with pytest.warns(UserWarning, match="step-000030"):
        before = load_model(noisy(), tmp_path)
    assert not torch.equal(newest.last.weight, before.last.weight)  # type: ignore[union-attr, arg-type]
    assert (int(newest.norm.num_batches_tracked), int(before.norm.num_batches_tracked)) == (60, 56)  # type: ignore[union-attr, arg-type]
    another = r"holds a run of another workload, \w{16}, not \w{16}: give the workload that was trained there$"
    with pytest.warns(UserWarning, match="step-000030"), pytest.raises(InputError, match=another):
        load_model(smooth(), tmp_path)
    with pytest.raises(InputError, match=r"no checkpoint that can be read in '.*nothing': give the folder that was"):
        load_model(smooth(), tmp_path / "nothing")


def test_buffers_that_the_forward_pass_makes_or_resizes(tmp_path: Path) -> None:
    from training_tasks import Noisy, task

    class Remembering(Noisy):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last_inputs", None)
            self.register_buffer("means", torch.zeros(0), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.last_inputs = x.detach().clone()
                self.means = torch.cat([self.means, x.detach().mean().reshape(1)])
            return super().forward(x + (0 if self.last_inputs is None else self.means.mean()))

    whole = train(task(Remembering), RECIPE, 1)
    train_until(20, tmp_path, task(Remembering))
    assert train(task(Remembering), RECIPE, 1, folder=tmp_path) == whole
    assert len(load_model(task(Remembering), tmp_path).means) == 60  # type: ignore[arg-type]


def test_load_model_computes_no_loss(tmp_path: Path) -> None:
    def never(outputs: Tensor, targets: Tensor) -> Tensor:
        raise AssertionError

    go_on(tmp_path)
    load_model(replace(noisy(), loss=never, metric=never), tmp_path)
