"""`lightball reproduce imagenet`: a folder of JPEGs, and what the command refuses."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL.Image")
from reproduced_images import write_imagenet

from lightball.cli.main import main
from lightball.reproduce.imagenet import PRESETS, ImagenetSettings, imagenet_parts, read_imagenet, run_imagenet
from lightball.workloads.cifar10 import read_split


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes, 100 images to train on and 20 to test on; photographs where there are some."""
    if data := os.environ.get("LIGHTBALL_DATA"):
        split = read_split(Path(data) / "cifar10", "test", 1_000)
        kept = split.targets < 4
        images, labels = split.inputs[kept][:120].numpy(), split.targets[kept][:120].numpy()
    else:
        labels = np.arange(120) % 4
        images = np.random.default_rng(0).integers(100, size=(120, 3, 32, 32)) + 50 * labels[:, None, None, None]
    return write_imagenet(tmp_path_factory.mktemp("jpegs"), images.astype(np.uint8), labels, num_train=100)


def command(data: Path, out: Path, *more: str) -> list[str]:
    return ["reproduce", "imagenet", "--scale", "smoke", "--data", str(data), "--out", str(out), *more]


def test_smoke_on_jpegs(jpegs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(jpegs, tmp_path, "--batch-sizes", "32", "--epochs", "3", "--schedule", "constant")) == 0
    said = capsys.readouterr().out
    assert said.startswith("ImageNet, ResNet-18, 3 epochs a run: SGD against SGDM\n  part      runs")
    assert "At batch size 32 " in said

    result = json.loads((tmp_path / "imagenet.json").read_text())
    assert result["finished"]
    (batch,) = result["batches"]
    assert (batch["batch_size"], batch["pairs"], batch["effective_lr"]) == (32, 6, 0.125)
    settings = result["studies"]["batch-32"]["settings"]
    assert (settings["decay"], settings["checkpoint"], settings["tune"]) == ("matrices", "median", "sgdm")
    names = {"gap-accuracy", "gap-loss", "accuracy", "loss"}
    assert {path.stem for path in tmp_path.glob("*.svg")} == {f"imagenet-{name}" for name in names}


def test_a_spent_budget_stops_cleanly(jpegs: Path, tmp_path: Path) -> None:
    smoke = replace(PRESETS["smoke"], data=jpegs)
    stopped = run_imagenet(smoke, out=tmp_path, device="cpu", deadline=0.0)
    assert not stopped.finished
    assert stopped.batches == ()
    assert read_imagenet(smoke, tmp_path).as_json() == stopped.as_json()


def test_rates_are_in_proportion_to_the_batch_size() -> None:
    parts = imagenet_parts(ImagenetSettings(), "cpu")
    assert [part.name for part in parts] == ["batch-64", "batch-256", "batch-1024", "batch-4096", "batch-16384"]
    assert [part.settings.lr for part in parts[:3]] == [(0.125, 0.25, 0.5), (0.5, 1.0, 2.0), (2.0, 4.0, 8.0)]
    assert [part.settings.accumulate for part in parts] == [1, 1, 4, 16, 64]
    assert parts[1].settings.precision == "float32"
    assert imagenet_parts(ImagenetSettings(), "cuda")[1].settings.precision == "bfloat16"


def test_the_schedule_is_that_of_the_recipe() -> None:
    from lightball.rules import schedules

    steps = 5_004  # of an epoch at B = 256
    schedule = schedules.parse(ImagenetSettings().schedule, 90 * steps)
    factors = [schedule(round(epoch * steps)) for epoch in (2.5, 5.01, 29.9, 30.1, 59.9, 60.1, 79.9, 80.1, 89)]
    assert factors == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-sizes", "48"], "micro-batch is 32, but must divide the batch size 48"),
        (["--seeds", "5"], "seeds is 5, but must be at least 6"),
        (["--momentum", "1"], "momentum is 1, but must be above 0 and below 1"),
        (["--bn-group", "24"], "bn_group is 24, but must be a power of 2"),
        (["--data", "nowhere"], "there is no folder 'nowhere'"),
    ],
)
def test_refusals_are_one_line(
    jpegs: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(jpegs, tmp_path, *options, "--plan")) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"lightball: {message}")
    assert said.err.count("\n") == 1
