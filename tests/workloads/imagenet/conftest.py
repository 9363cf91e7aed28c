"""One thread in every test of this room, so that results can be compared to the bit; caches lie in folders of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_images import make_folder, small

from lightball.workloads import Workload


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic photographs of four classes, 30 each to train on and 5 to test on."""
    root = tmp_path_factory.mktemp("images")
    make_folder(root)
    return root


@pytest.fixture(scope="session")
def in_processes(folder: Path) -> Workload:
    """The task of these images with decoding processes, which take seconds to start and are shared by all tests."""
    return small(folder, workers=2)
