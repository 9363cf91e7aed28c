import io
import os
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

from lightball import InputError
from lightball.studies.engines.process import train_run
from lightball.studies.runs import Run
from lightball.studies.settings import Settings
from lightball.workloads import Data
from lightball.workloads.cifar10 import MEAN, STD, cifar10, read_split
from lightball.workloads.load import load

Image = pytest.importorskip("PIL.Image")
with_data = pytest.mark.skipif(
    not os.environ.get("LIGHTBALL_DATA"), reason="needs real images: LIGHTBALL_DATA names no folder"
)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write(path, rows, labels):
    parquet.write_table(pa.table({"img": rows, "label": labels}), path)


def test_pixels_and_labels_come_in_the_order_of_files_and_rows(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(5, 32, 32, 3), dtype=np.uint8)
    write(tmp_path / "train-00000-of-00002.parquet", [png(p) for p in pixels[:3]], [4, 1, 9])
    write(tmp_path / "train-00001-of-00002.parquet", [png(p) for p in pixels[3:]], [0, 2])

    data = read_split(tmp_path, "train")

    assert torch.equal(data.inputs, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert data.targets.tolist() == [4, 1, 9, 0, 2]


def test_a_broken_image_is_named(tmp_path):
    good = png(np.zeros((32, 32, 3), np.uint8))
    write(tmp_path / "train-0.parquet", [good, {"bytes": good["bytes"][:40], "path": None}], [0, 1])
    with pytest.raises(InputError, match=r"the image in row 1 of '.*train-0.parquet' cannot be decoded"):
        read_split(tmp_path, "train")


def test_images_of_another_size_are_refused(tmp_path):
    write(tmp_path / "train-0.parquet", [png(np.zeros((28, 30, 3), np.uint8))], [0])
    with pytest.raises(InputError, match=r"row 0 of .* has \(28, 30\) pixels, but must have 32 × 32"):
        read_split(tmp_path, "train")


def test_other_columns_and_no_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no file train-\*.parquet"):
        read_split(tmp_path, "train")
    parquet.write_table(pa.table({"image": [1]}), tmp_path / "train-0.parquet")
    with pytest.raises(InputError, match="with columns img and label"):
        read_split(tmp_path, "train")


def test_a_folder_must_be_known_and_there(tmp_path, monkeypatch):
    monkeypatch.delenv("LIGHTBALL_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)  # as where it is not installed
    with pytest.raises(InputError, match="variable LIGHTBALL_DATA to the folder that holds cifar10/"):
        load("cifar10", together=False)
    with pytest.raises(InputError, match=r"there is no folder '.*cifar10': LIGHTBALL_DATA must name"):
        cifar10(tmp_path)


def made(folder, num_train, num_test):
    """CIFAR-10 of random pixels, in its layout."""
    (folder / "cifar10").mkdir()
    for split, count in (("train", num_train), ("test", num_test)):
        pixels = np.random.default_rng(count).integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
        write(folder / "cifar10" / f"{split}-0.parquet", [png(p) for p in pixels], [i % 10 for i in range(count)])
    return folder


def test_a_part_of_the_images_is_the_first_of_them(tmp_path):
    made(tmp_path, 12, 6)
    every = read_split(tmp_path / "cifar10", "train")

    workload = cifar10(tmp_path, depth=8, num_train=5, num_validation=3, num_test=4)

    assert torch.equal(workload.train.inputs, every.inputs[:5])
    assert torch.equal(workload.validation.inputs, every.inputs[5:8])
    assert len(workload.test) == 4
    assert sum(isinstance(m, torch.nn.Conv2d) for m in workload.model().modules()) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": 10, "num_validation": 3}, "has 12 training images, but 13 are needed"),
        ({}, "has 12 training images, but 5,001 are needed"),
        ({"num_validation": 3, "num_test": 7}, "has 6 test images, but 7 are needed"),
        ({"num_validation": 3, "num_train": 1}, "num_train is 1, but must be a whole number from 2 up"),
    ],
)
def test_more_images_than_there_are_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        cifar10(made(tmp_path, 12, 6), **options)


def test_the_memory_format_changes_nothing_but_itself(tmp_path):
    made(tmp_path, 12, 6)
    logits = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        workload = cifar10(tmp_path, depth=8, num_validation=3, channels_last=channels_last)
        model = workload.model().eval()
        logits.append(model(workload.test.inputs))
        (weights,) = (w for name, w in model.named_parameters() if name.endswith("features.3.body.0.weight"))
        assert weights.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert torch.allclose(*logits, atol=1e-5)


def test_without_a_folder_the_images_come_from_the_hub(monkeypatch):
    """By a stand-in for datasets, which is not asked to decode the images."""

    class Split:
        def __init__(self, count):
            images = [png(np.full((32, 32, 3), i, np.uint8)) for i in range(count)]
            self.table = pa.table({"img": images, "label": [*range(count)], "other": [0] * count})

        def select_columns(self, names):
            self.table = self.table.select(names)
            return self

        def with_format(self, kind):
            return self if kind == "arrow" else None

        def __getitem__(self, _):
            return self.table

    counts = {"train": 8, "test": 4}
    hub = SimpleNamespace(load_dataset=lambda name, split: Split(counts[split]) if name == "uoft-cs/cifar10" else None)
    monkeypatch.delenv("LIGHTBALL_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    read_split.cache_clear()

    workload = cifar10(num_train=4, num_validation=2)

    assert workload.train.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert workload.validation.targets.tolist() == [4, 5]
    assert len(workload.test) == 4

    def no_network(name, split):
        raise ConnectionError("no route")

    hub.load_dataset = no_network
    read_split.cache_clear()
    with pytest.raises(InputError, match=r"cannot load uoft-cs/cifar10 \(train\) .*no route.*\(--data\)"):
        cifar10()


@with_data
def test_the_real_images_train():
    workload = cifar10()
    pixels = workload.train.inputs / 255

    assert (len(workload.train), len(workload.validation), len(workload.test)) == (45_000, 5_000, 10_000)
    assert workload.test.targets.bincount().tolist() == [1000] * 10
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(MEAN, abs=2e-3)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx(STD, abs=2e-3)

    def few(data):
        return Data(data.inputs[:64], data.targets[:64])

    object.__setattr__(workload, "train", few(workload.train))
    object.__setattr__(workload, "validation", few(workload.validation))
    object.__setattr__(workload, "test", few(workload.test))
    settings = Settings(engine="process", epochs=4, batch_sizes=(16,))
    sgd, sgdm = (train_run(workload, settings, Run(16, 0.05, 1, momentum), "cpu") for momentum in (0.0, 0.9))
    for outcome in (sgd, sgdm):
        assert not outcome.failed
    assert sgd.untrained == sgdm.untrained  # a pair starts from the same weights
