"""Images in folders, in Parquet files and on the hub are one task; files that differ are another."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from made_images import CLASSES, encoded, make_folder, photograph, pixels, small

from lightball.errors import InputError
from lightball.workloads import identity
from lightball.workloads.imagenet import imagenet
from lightball.workloads.imagenet.listing import list_folder, successors
from lightball.workloads.imagenet.pixels import pixels_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LIGHTBALL_DATA", raising=False)
    return tmp_path / "cache"


def test_a_folder_is_split_and_each_image_has_its_label(folder: Path) -> None:
    workload = small(folder)
    assert [len(workload.train), len(workload.validation), len(workload.test)] == [108, 12, 20]
    assert workload.measured is not None
    assert len(workload.measured) == 24
    trained = set(workload.train.inputs[:, 0].tolist())
    assert trained.isdisjoint(workload.validation.inputs[:, 0].tolist())
    assert trained.issuperset(workload.measured.inputs[:, 0].tolist())
    listing = list_folder(folder)
    for data in (workload.train, workload.validation, workload.test, workload.measured):
        for (number, key), label in zip(data.inputs.tolist(), data.targets.tolist(), strict=True):
            assert listing.source.name(number).split("/")[1] == CLASSES[label]
            assert key == listing.keys[number]
    split = "train", "val"
    for data, name in zip((workload.train, workload.test), split, strict=True):
        assert {listing.source.name(n).split("/")[0] for n in data.inputs[:, 0].tolist()} == {name}


def test_the_pixels_are_those_of_the_file(folder: Path) -> None:
    workload = small(folder)
    seen = pixels(workload, workload.test.inputs[:7])
    assert seen.dtype == torch.float32
    assert seen.shape == (7, 3, 32, 32)
    for row, image in zip(workload.test.inputs[:7], seen, strict=True):
        content = (folder / list_folder(folder).source.name(int(row[0]))).read_bytes()
        assert np.allclose(image.permute(1, 2, 0), pixels_of(content, 32, None), atol=1e-3)


def test_identity_follows_names_and_sizes_and_not_where_the_folder_lies(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "imagenet"
    shutil.copytree(folder, copy)
    assert identity(small(copy)) == identity(small(folder))
    assert identity(small(tmp_path)) == identity(small(folder))  # the folder that holds imagenet/
    changed = copy / "train" / "bear" / "bear_007.JPEG"
    changed.write_bytes(changed.read_bytes() + b"\0")
    assert identity(small(copy)) != identity(small(folder))
    shutil.rmtree(copy)
    shutil.copytree(folder, copy)
    (copy / "val" / "dune" / "dune_001.JPEG").rename(copy / "val" / "dune" / "dune_0015.JPEG")
    assert identity(small(copy)) != identity(small(folder))


def test_identity_follows_what_the_loss_is_measured_on(folder: Path) -> None:
    assert identity(small(folder)) != identity(small(folder, measured=25))
    assert small(folder, measured=None).measured is None
    assert small(folder, measured=10_000).measured is None


def test_hidden_files_and_others_are_no_images(tmp_path: Path) -> None:
    make_folder(tmp_path, 4, 2)
    expected = list_folder(tmp_path)
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "bear" / "._bear_000.JPEG").write_bytes(b"x")
    (tmp_path / "train" / "bear" / "notes.txt").write_text("x")
    deeper = tmp_path / "train" / "bear" / "images"
    deeper.mkdir()
    assert np.array_equal(list_folder(tmp_path).keys, expected.keys)
    (deeper / "a.PNG").write_bytes(encoded(photograph(1), "PNG"))
    assert len(list_folder(tmp_path).labels) == len(expected.labels) + 1


def to_parquet(folder: Path, target: Path, test_name: str = "validation") -> None:
    """The images of a folder as on the hub, in several files of several row groups."""
    target.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("val", test_name)):
        rows = [
            ({"bytes": path.read_bytes(), "path": path.name}, CLASSES.index(path.parent.name))
            for path in sorted((folder / split).glob("*/*"))
        ]
        for part, first in enumerate(range(0, len(rows), 50)):
            images, labels = zip(*rows[first : first + 50], strict=True)
            file = target / f"{name}-0000{part}-of-00003.parquet"
            parquet.write_table(pa.table({"label": labels, "image": images, "more": labels}), file, row_group_size=16)


@pytest.mark.parametrize("test_name", ["validation", "val"])
def test_parquet_files_hold_the_same_images(folder: Path, tmp_path: Path, cache: Path, test_name: str) -> None:
    to_parquet(folder, tmp_path / "hub" / "data", test_name)
    one, other = small(folder), small(tmp_path / "hub")
    for split in ("train", "validation", "test", "measured"):
        mine, theirs = getattr(one, split), getattr(other, split)
        assert torch.equal(mine.targets, theirs.targets)
        assert torch.equal(mine.inputs[:, 0], theirs.inputs[:, 0])
        assert torch.equal(pixels(one, mine.inputs[:20], train=True), pixels(other, theirs.inputs[:20], train=True))
    written = {file: file.stat().st_mtime_ns for file in cache.rglob("*.arrow")}
    assert len(written) == 4
    assert identity(small(tmp_path / "hub")) == identity(other)
    assert {file: file.stat().st_mtime_ns for file in cache.rglob("*") if file.is_file()} == written


def test_parquet_files_that_hold_something_else_are_one_line(folder: Path, tmp_path: Path, cache: Path) -> None:
    to_parquet(folder, tmp_path)
    first = next(tmp_path.glob("train-00000*"))
    parquet.write_table(pa.table({"img": [1]}), first)
    with pytest.raises(InputError, match=r"^cannot copy '.*train-00000.*', columns image and label, .*XDG_CACHE_HOME"):
        small(tmp_path)
    assert not [file for file in cache.rglob("*") if file.is_file()]
    first.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"^cannot copy '.*train-00000.*': .*"):
        small(tmp_path)
    parquet.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), first)
    with pytest.raises(InputError, match=r"required are the columns image, of bytes and path, and label"):
        small(tmp_path)
    for file in tmp_path.glob("validation-*"):
        file.unlink()
    with pytest.raises(InputError, match=r"has no files validation-\*.parquet"):
        small(tmp_path)


class Hub:
    """What lightball uses of ``datasets``: splits in Arrow files of its cache."""

    def __init__(self, folder: Path, cache: Path, error: str = "") -> None:
        self.folder, self.cache, self.error = folder, cache, error
        self.asked: list[tuple[str, str]] = []

    def load_dataset(self, name: str, split: str) -> Any:
        self.asked.append((name, split))
        if self.error:
            raise ConnectionError(self.error)
        to_parquet(self.folder, self.cache)
        rows = pa.concat_tables(map(parquet.read_table, sorted(self.cache.glob(f"{split}-*"))))
        path = self.cache / f"{split}.arrow"
        with pa.ipc.new_stream(str(path), rows.schema) as stream:
            stream.write_table(rows)

        class Found(list[None]):
            cache_files = ({"filename": str(path)},)

        return Found([None] * len(rows))


def test_without_a_folder_images_come_from_the_hub(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    hub = Hub(folder, tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "datasets", hub)
    options = {"size": 32, "depth": 18, "workers": 0, "measured": 24}
    workload, local = imagenet(hub="someone/photos", **options), small(folder)
    assert hub.asked == [("someone/photos", "train"), ("someone/photos", "validation")]
    rows = local.train.inputs[:9]
    assert torch.equal(workload.train.inputs[:9, 0], rows[:, 0])
    assert torch.equal(pixels(workload, workload.train.inputs[:9]), pixels(local, rows))


def test_without_network_or_datasets_the_way_out_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "datasets", Hub(tmp_path, tmp_path, "Couldn't reach the hub\nmore"))
    with pytest.raises(
        InputError, match=r"cannot load ILSVRC/imagenet-1k \(train\) .* reach the hub \(look at .*--data"
    ):
        imagenet()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"needs datasets: pip install 'lightball\[text\]', or give a folder"):
        imagenet()


def test_folders_that_are_not_as_required_are_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            small(tmp_path / "x")

    refused(r"^there is no folder '.*x': give the folder that holds train/ and val/$")
    root = tmp_path / "x"
    root.mkdir()
    refused(r"has neither train/<class>/\*.JPEG nor train-\*.parquet: .*--data, or LIGHTBALL_DATA")
    (root / "train").mkdir()
    refused(r"has no folder val: required are")
    (root / "val").mkdir()
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"x")
    refused(r"train' has no class folders: sort its images")
    (root / "train" / "cat").mkdir()
    refused(r"val' has no class folders: sort its images")
    (root / "val" / "dog").mkdir()
    refused(r"val' has the class 'dog', which '.*train' has not")
    (root / "val" / "cat").mkdir()
    (root / "train" / "dog").mkdir()
    refused(r"train' holds no images in its class folders")
    (root / "train" / "dog" / "a.jpg").write_bytes(b"x")
    refused(r"val' holds no images")
    (root / "val" / "dog" / "a.jpg").write_bytes(b"x")
    refused(r"^of 1 training images 0 are held out for validation, but at least 2 must be, and 64 must be left")
    monkeypatch.setenv("LIGHTBALL_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"there is no folder '.*nowhere'"):
        imagenet()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"size": 8}, "size is 8, but must be at least 32"),
        ({"workers": -1}, "workers is -1, but must be at least 0"),
        ({"bn_group": 24}, "bn_group is 24, but must be a power of 2, such as 32"),
        ({"measured": 0}, "measured is 0, but at least 2 images are needed"),
        ({"num_validation": 100}, "of 120 training images 100 are held out"),
        ({"depth": 34}, "depth is 34, but must be 18 or 50"),
    ],
)
def test_numbers_that_cannot_be_are_one_line(folder: Path, option: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(folder, **option)


def test_stand_ins_go_round_in_a_class_and_split() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(5, size=200)
    following = successors(labels, 150)
    assert np.array_equal(np.sort(following), np.arange(200))
    assert np.array_equal(labels[following], labels)
    assert np.array_equal(following >= 150, np.arange(200) >= 150)
    for label in range(5):
        for members in (np.flatnonzero(labels[:150] == label), 150 + np.flatnonzero(labels[150:] == label)):
            assert np.array_equal(following[members], np.roll(members, -1))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    make_folder(tmp_path, 20, 2)
    (tmp_path / "train").chmod(0)
    with pytest.raises(InputError, match="cannot read the folder"):
        small(tmp_path)
