import io
import os

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
    with pytest.raises(InputError, match="variable LIGHTBALL_DATA to the folder that holds cifar10/"):
        load("cifar10", together=False)
    with pytest.raises(InputError, match=r"there is no folder '.*cifar10': LIGHTBALL_DATA must name"):
        cifar10(tmp_path)


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
