"""Curves on disk: written at once, without gaps or repetitions after an interruption, readable by TensorBoard."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from training_tasks import smooth

from lightball.errors import InputError
from lightball.training import Point, Recipe, train
from lightball.training.curves import curve_file

RECIPE = Recipe(batch_size=50, effective_lr=0.3, epochs=4)  # 20 steps
TAGS = ("train_loss", "validation_accuracy", "test_accuracy")


def lines(folder: Path) -> list[dict[str, float | None]]:
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


def test_each_point_is_on_disk_when_it_is_announced(tmp_path: Path) -> None:
    seen = []

    def look(point: Point) -> None:
        assert lines(tmp_path)[-1] == asdict(point)
        assert events(tmp_path, "train_loss")[-1] == (point.step, pytest.approx(point.train_loss, rel=1e-6))
        seen.append(point)

    history = train(smooth(), RECIPE, 1, folder=tmp_path, tensorboard=True, on_point=look)
    assert tuple(seen) == history.points
    assert lines(tmp_path) == [asdict(point) for point in history.points]


def test_points_after_the_checkpoint_are_dropped_before_going_on(tmp_path: Path) -> None:
    def stop(point: Point) -> None:
        if point.step == 15:
            raise KeyboardInterrupt

    options = {"folder": tmp_path, "checkpoint_every": 8, "tensorboard": True, "accuracies": "ends"}
    with pytest.raises(KeyboardInterrupt):
        train(smooth(), RECIPE, 1, on_point=stop, **options)  # type: ignore[arg-type]
    assert [line["step"] for line in lines(tmp_path)] == [0, 5, 10, 15]
    at_start: list[int | float | None] = []
    taken: list[int] = []

    def look(point: Point) -> None:
        if not taken:
            at_start.extend(line["step"] for line in lines(tmp_path))
        taken.append(point.step)

    history = train(smooth(), RECIPE, 1, on_point=look, **options)  # type: ignore[arg-type]
    assert taken == [10, 15, 20]
    assert at_start == [0, 5, 10]
    assert lines(tmp_path) == [asdict(point) for point in history.points]
    for tag in TAGS:
        values = [(p.step, getattr(p, tag)) for p in history.points if getattr(p, tag) is not None]
        assert events(tmp_path, tag) == [(step, pytest.approx(value, rel=1e-6)) for step, value in values]
    assert len(events(tmp_path, "test_accuracy")) == 2


def test_tensorboard_can_be_asked_for_later(tmp_path: Path) -> None:
    history = train(smooth(), RECIPE, 1, folder=tmp_path)
    train(smooth(), RECIPE, 1, folder=tmp_path, tensorboard=True)
    assert [step for step, _ in events(tmp_path, "train_loss")] == [point.step for point in history.points]


def test_without_tensorboard_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    message = r"^tensorboard is True, but TensorBoard is not installed: pip install lightball\[tensorboard\]$"
    with pytest.raises(InputError, match=message):
        train(smooth(), RECIPE, 1, folder=tmp_path, tensorboard=True)


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    points = [Point(0, 0.0, 1.5, None, 0.1), Point(5, 1.0, float("nan"), None, float("inf"))]
    path = tmp_path / "curve.jsonl"
    with curve_file(path, points[:1]) as write:
        write(points[1])
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == asdict(points[0])
    assert (second["train_loss"], second["test_accuracy"]) == (None, None)


def in_the_way(path: Path) -> None:
    (path / "kept").mkdir(parents=True)


WAYS = {"curve.jsonl": "the curve", "curve.tmp": "the curve", "tensorboard": "TensorBoard's events to"}


@pytest.mark.parametrize(("name", "what"), WAYS.items())
def test_what_is_in_the_way_is_named(name: str, what: str, tmp_path: Path) -> None:
    in_the_way(tmp_path / name) if name != "tensorboard" else (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"^cannot write {what} '.+': .+; make room, or move what is in the way, and"):
        train(smooth(), RECIPE, 1, folder=tmp_path, tensorboard=True)
    assert name == "curve.tmp" or not (tmp_path / "curve.tmp").exists()
    if name == "tensorboard":
        (tmp_path / name).unlink()
    else:
        shutil.rmtree(tmp_path / name)
    assert train(smooth(), RECIPE, 1, folder=tmp_path, tensorboard=True) == train(smooth(), RECIPE, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_curve_that_does_not_fit_any_more(tmp_path: Path) -> None:
    """The file becomes a device that is always full while the run goes on."""

    def fill(point: Point) -> None:
        if point.step == 10:
            (tmp_path / "curve.jsonl").unlink()
            (tmp_path / "curve.jsonl").symlink_to("/dev/full")

    with pytest.raises(
        InputError, match=r"^cannot write the curve '.*curve.jsonl': No space left on device; make room"
    ):
        train(smooth(), RECIPE, 1, folder=tmp_path, on_point=fill)
    (tmp_path / "curve.jsonl").unlink()
    assert train(smooth(), RECIPE, 1, folder=tmp_path) == train(smooth(), RECIPE, 1)


LIMITED = """
import resource, sys
from pathlib import Path
from lightball.errors import InputError
from lightball.training import Point
from lightball.training.checkpoints import Checkpoint, save
from lightball.training.curves import curve_file, tensorboard_events
import torch, torch.utils.tensorboard

folder, what = Path(sys.argv[1]), sys.argv[2]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    if what == "checkpoint":
        save(folder, 1, Checkpoint({}, {}, {"x": torch.zeros(1000)}))
    sink = curve_file(folder / "curve.jsonl", []) if what == "curve" else tensorboard_events(folder, [])
    with sink as write:
        for step in range(100):
            write(Point(step, 0.0, 1.0, 1.0, 1.0))
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize("what", ["curve", "events", "checkpoint"])
def test_every_file_that_cannot_grow_is_one_line(what: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", LIMITED, str(tmp_path), what]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(printed) == 1
    assert printed[0].startswith("cannot write ")
    assert "File too large" in printed[0]
    assert not list(tmp_path.glob("*.tmp"))


def test_errors_of_the_caller_are_left_alone(tmp_path: Path) -> None:
    def fails(point: Point) -> None:
        raise OSError(5, "of the caller")

    with pytest.raises(OSError, match="of the caller"):
        train(smooth(), RECIPE, 1, folder=tmp_path, tensorboard=True, on_point=fails)
