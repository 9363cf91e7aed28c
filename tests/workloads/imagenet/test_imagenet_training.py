"""A workload of images is checked, trained, sent, copied and resumed like any other, to the bit."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_images import Image, small
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.oracles import build
from lightball.studies.engines.process import Processes
from lightball.studies.engines.tasks import open_task
from lightball.studies.runs import Chunk, Run
from lightball.studies.settings import Settings
from lightball.training import Recipe, train
from lightball.workloads import Workload, check, fingerprint
from lightball.workloads.cifar10 import read_split
from lightball.workloads.imagenet.layer import DecodeImages

RECIPE = Recipe(16, 0.05, momentum=0.9, epochs=1, drop_last=True)


def layer_of(workload: Workload, seed: int = 1) -> DecodeImages:
    layer = build(workload.model, seed)[0]
    assert isinstance(layer, DecodeImages)
    return layer.train()


def test_it_is_checked_and_refused_where_many_are_trained_at_once(folder: Path) -> None:
    workload = small(folder)
    assert check(workload, together=False) is workload
    with pytest.raises(InputError, match="--engine process"):
        check(workload)
    with pytest.raises(InputError, match="--engine process"):
        check(replace(workload, measured=None))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_any_number_of_decoding_processes_gives_the_same_run(
    folder: Path, in_processes: Workload, accumulate: int
) -> None:
    recipe = replace(RECIPE, batch_size=32, accumulate=accumulate)
    here, elsewhere = (train(workload, recipe, 1) for workload in (small(folder), in_processes))
    assert here.points[-1].step == 3
    assert here.failed_at is None
    assert here.points[-1].train_loss != here.points[0].train_loss
    assert elsewhere == here


def test_a_run_that_is_resumed_goes_on_to_the_bit(folder: Path, in_processes: Workload, tmp_path: Path) -> None:
    def stop(point: Any) -> None:
        if point.step == 2:
            raise KeyboardInterrupt

    recipe = replace(RECIPE, num_steps=4, eval_every=2)
    whole = train(small(folder), recipe, 1)
    with pytest.raises(KeyboardInterrupt):
        train(in_processes, recipe, 1, folder=tmp_path, checkpoint_every=1, on_point=stop)
    resumed = train(small(folder), recipe, 1, folder=tmp_path, checkpoint_every=1)
    assert resumed == whole


def test_what_is_seen_is_a_function_of_seed_step_and_image_alone(folder: Path, in_processes: Workload) -> None:
    rows = small(folder).train.inputs[:24]
    layer, other = layer_of(small(folder)), layer_of(in_processes)
    layer.prepare(7, rows)
    other.prepare(7, rows.flip(0))
    seen = layer(rows)
    assert torch.equal(torch.cat([other(part) for part in rows.flip(0).split(5)]).flip(0), seen)
    layer.prepare(8, rows)
    later = layer(rows)
    another = layer_of(small(folder), seed=2)
    another.prepare(7, rows)
    for different in (later, another(rows)):
        assert (different - seen).abs().flatten(1).amax(dim=1).min() > 0  # every image


def test_steps_can_be_announced_ahead_of_their_use(folder: Path, in_processes: Workload) -> None:
    rows = small(folder).train.inputs[:48]
    plain, eager = layer_of(small(folder)), layer_of(in_processes)
    expected = []
    for step, part in enumerate(rows.split(16)):
        plain.prepare(step, part)
        expected.append(plain(part))
    for step, part in enumerate(rows.split(16)):
        eager.prepare(step, part)
    eager.eval()(rows[:3])  # evaluation between two steps
    eager.train()
    for part, images in zip(rows.split(16), expected, strict=True):
        assert torch.equal(torch.cat([eager(half) for half in part.split(8)]), images)


@pytest.mark.parametrize("processes", [False, True])
def test_other_images_than_were_announced_are_refused(folder: Path, in_processes: Workload, processes: bool) -> None:
    workload = in_processes if processes else small(folder)
    rows = workload.train.inputs[:16]
    for asked in (rows.flip(0), torch.cat([rows, rows])):
        layer = layer_of(workload)
        layer.prepare(0, rows)
        with pytest.raises(InputError, match=r"^a forward pass asks for other images than were announced"):
            layer(asked)


def test_calls_that_are_not_announced_count_as_steps_and_checkpoints_know_how_many(folder: Path) -> None:
    rows = small(folder).train.inputs[:4]
    layer = layer_of(small(folder))
    layer(rows)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    second = layer(rows)
    other = layer_of(small(folder), seed=5)
    other.load_state_dict(state)
    assert torch.equal(other(rows), second)
    other.eval()
    assert torch.equal(other(rows), other(rows))
    assert other.calls == 2


def test_a_copy_has_nothing_under_way(folder: Path, in_processes: Workload) -> None:
    rows = small(folder).train.inputs[:16]
    layer, reference = layer_of(in_processes), layer_of(small(folder))
    layer.prepare(3, rows)
    copy = deepcopy(layer)
    copy.prepare(4, rows.flip(0))
    reference.prepare(3, rows)
    assert torch.equal(layer(rows), reference(rows))
    reference.prepare(4, rows)
    assert torch.equal(copy(rows.flip(0)).flip(0), reference(rows))


def test_a_compiled_model_sees_the_same(folder: Path) -> None:
    workload = small(folder)
    model = nn.Sequential(build(workload.model, 1)[0], nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    rows = workload.train.inputs[:4]
    twin = deepcopy(model)
    assert torch.equal(torch.compile(model, backend="eager")(rows), twin(rows))


def test_a_study_trains_it_in_worker_processes(folder: Path) -> None:
    """As an object it is sent to them; each has decoding processes of its own."""
    settings = Settings(engine="process", epochs=1, batch_sizes=(48,), drop_last=True)
    workload = small(folder, workers=1)
    task = open_task(workload, settings, "cpu")
    runs = [Run(48, 0.05, 1, momentum) for momentum in (0.0, 0.9)]
    engine = Processes(task, settings, "cpu", 1)
    try:
        found = {chunk: outcomes[0] for chunk, outcomes in engine.compute([Chunk((run,)) for run in runs])}
    finally:
        engine.close()
    for chunk, outcome in found.items():
        run = chunk.runs[0]
        here = train(
            small(folder),
            replace(RECIPE, batch_size=48, momentum=run.momentum, effective_lr=run.effective_lr),
            run.seed,
        )
        assert outcome.final["train_loss"] == here.points[-1].train_loss
    losses = {outcome.final["train_loss"] for outcome in found.values()}
    assert len(losses) == 2
    assert len({outcome.untrained["train_loss"] for outcome in found.values()}) == 1


def test_the_fingerprint_follows_the_network_and_the_size(folder: Path, in_processes: Workload) -> None:
    prints = {fingerprint(small(folder, **options), together=False) for options in ({}, {"size": 40}, {"bn_group": 8})}
    assert len(prints) == 3
    assert fingerprint(in_processes, together=False) in prints


@pytest.mark.skipif(not os.environ.get("LIGHTBALL_DATA"), reason="needs real images: LIGHTBALL_DATA names no folder")
def test_real_photographs_are_learned(tmp_path: Path) -> None:
    images = read_split(Path(os.environ["LIGHTBALL_DATA"]) / "cifar10", "test")
    for label, name in ((1, "car"), (8, "ship")):
        for i, number in enumerate((images.targets == label).nonzero()[:80, 0].tolist()):
            path = tmp_path / ("train" if i < 70 else "val") / name / f"{i}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.inputs[number].permute(1, 2, 0).numpy()).resize((64, 64)).save(path, quality=90)
    history = train(small(tmp_path, measured=None), replace(RECIPE, effective_lr=0.02, num_steps=24), 1)
    assert history.points[0].train_loss == pytest.approx(0.693, abs=0.05)
    assert history.points[-1].train_loss < 0.65
    assert history.points[-1].test_accuracy >= 0.7


def test_made_up_photographs_are_learned(folder: Path) -> None:
    history = train(small(folder, measured=None), replace(RECIPE, effective_lr=0.1, num_steps=30), 1)
    assert history.points[-1].train_loss < 0.75 * history.points[0].train_loss


def test_a_seed_that_was_loaded_is_the_one_that_counts(folder: Path) -> None:
    rows = small(folder).train.inputs[:4]
    layer, other = layer_of(small(folder)), layer_of(small(folder), seed=2)
    for one in (layer, other):
        one.prepare(0, rows)
    expected = layer(rows)
    assert not torch.equal(other(rows), expected)
    with torch.no_grad():
        other.seed.copy_(layer.seed)
    other.prepare(0, rows)
    assert torch.equal(other(rows), expected)


def test_the_pixels_are_on_the_device_and_standardised(folder: Path) -> None:
    layer = layer_of(small(folder))
    images: Tensor = layer(small(folder).train.inputs[:32])
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.mean().abs() < 1
    assert 0.2 < images.std() < 3
