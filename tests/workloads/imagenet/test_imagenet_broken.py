"""Images that do not decode are named and counted, and others stand in; too many end the run."""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from made_images import encoded, make_folder, photograph, pixels, small

from lightball.errors import InputError
from lightball.training import Recipe, train
from lightball.workloads.imagenet.listing import list_folder

RECIPE = Recipe(16, 0.02, epochs=1, drop_last=True, num_steps=3)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Three of the bears are broken, each in its own way, the last of them too."""
    make_folder(tmp_path, 30, 3)
    bears = sorted((tmp_path / "train" / "bear").iterdir())
    bears[3].write_bytes(b"")
    bears[4].write_bytes(bears[4].read_bytes()[:300])
    bears[29].write_text("<html>not found</html>")
    return tmp_path


def rows_of(folder: Path, *names: str) -> torch.Tensor:
    listing = list_folder(folder)
    numbers = {listing.source.name(i): i for i in range(len(listing.labels))}
    return torch.tensor([[numbers[f"train/{name}.JPEG"], 0] for name in names])


@pytest.mark.parametrize("train_mode", [True, False])
def test_the_next_of_the_class_stands_in(damaged: Path, train_mode: bool) -> None:
    workload = small(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = pixels(workload, rows_of(damaged, "bear/bear_003", "bear/bear_004", "bear/bear_029"), train_mode)
    if not train_mode:
        whole = pixels(workload, rows_of(damaged, "bear/bear_005", "bear/bear_005", "bear/bear_000"))
        assert torch.equal(seen, whole)
    else:  # an example keeps its own random part, whichever image that is cut from
        assert not torch.equal(seen[0], seen[1])


def test_each_is_named_once(damaged: Path) -> None:
    layer = small(damaged).model()[0].eval()
    rows = rows_of(damaged, "bear/bear_003", "bear/bear_010", "bear/bear_029")
    with pytest.warns(UserWarning, match="cannot be decoded") as caught:
        [layer(rows) for _ in range(2)]
    messages = sorted(str(warning.message) for warning in caught)
    assert len(messages) == 3
    assert "train/bear/bear_003.JPEG" in messages[0]
    assert "train/bear/bear_004.JPEG" in messages[1]
    assert "train/bear/bear_029.JPEG" in messages[2]
    assert "that makes 3, and at most 100 may be broken" in "".join(messages)


@pytest.mark.parametrize("workers", [0, 1])
def test_more_than_may_be_end_the_run_with_their_names(damaged: Path, workers: int) -> None:
    rows = rows_of(damaged, "bear/bear_003", "bear/bear_029")
    allowed = small(damaged, max_broken=3, workers=workers).model()[0].train()
    refused = deepcopy(allowed)  # with the same processes
    refused.max_broken = 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for layer in (allowed, refused):
            layer.prepare(0, rows)
        allowed(rows)
        with pytest.raises(
            InputError, match=r"^3 images cannot be decoded, but at most 2 may be \(max_broken\): train/"
        ) as e:
            refused(rows)
    assert all(f"bear_{n}.JPEG" in str(e.value) for n in ("003", "004", "029"))


def test_runs_with_broken_images_are_the_same_with_and_without_processes(damaged: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        histories = [train(small(damaged, workers=workers), RECIPE, 1) for workers in (0, 1)]
    assert histories[0] == histories[1]
    assert histories[0].failed_at is None


def test_a_class_without_any_image_that_decodes_is_one_line(damaged: Path) -> None:
    for path in (damaged / "val" / "cloud").iterdir():
        path.write_bytes(b"x")
    workload = small(damaged)
    with pytest.raises(InputError, match=r"^no image of the class of 'val/cloud/cloud_00\d.JPEG' can be decoded: "):
        workload.model()[0].eval()(workload.test.inputs)


def test_a_file_that_has_gone_is_broken(damaged: Path) -> None:
    workload, rows = small(damaged), rows_of(damaged, "dune/dune_006", "dune/dune_007")
    (damaged / "train" / "dune" / "dune_007.JPEG").unlink()
    with pytest.warns(UserWarning, match=r"'train/dune/dune_007.JPEG' cannot be decoded \(.*No such file"):
        pixels(workload, rows)


def test_files_in_disguise_are_images(tmp_path: Path) -> None:
    make_folder(tmp_path, 20, 2)
    path = tmp_path / "train" / "apple" / "apple_001.JPEG"
    path.write_bytes(encoded(photograph(1), "PNG"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels(small(tmp_path), rows_of(tmp_path, "apple/apple_001"))
