"""A task whose training can be slowed down, watched and killed through files, without being another task."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

from lightball.studies.settings import Settings
from lightball.workloads import Data, Workload

SETTINGS = Settings(
    engine="process",
    batch_sizes=(16,),
    num_steps=20,
    eval_every=4,
    lr=(0.2,),
    stages=(6,),
    tuning_seeds=1,
    max_extensions=0,
    confirm_rates="selected",
)


def signs() -> Data:
    inputs = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
    return Data(inputs, (inputs.sum(dim=1) > 0).long())


def watched(folder: Path) -> Workload:
    """Two layers with dropout between them, so that a run depends on generators too.

    Each training step leaves a byte in ``steps``. It sleeps while ``slow`` is there; where ``deadly`` is, it removes it
    and kills its process in the tenth step. Steps in workers raise while ``broken`` is there.
    """
    home = os.getpid()

    class Watched(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and len(x) == 16:
                with (folder / "steps").open("ab") as file:
                    file.write(b".")
                if (folder / "slow").exists():
                    time.sleep(0.05)
                if os.getpid() != home and (folder / "deadly").exists() and steps_in(folder) == 10:
                    (folder / "deadly").unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
                if os.getpid() != home and (folder / "broken").exists():
                    raise RuntimeError("out of luck")
            return super().forward(x)

    def model() -> nn.Module:
        return Watched(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2))

    return Workload("watched", model, signs(), signs(), signs())


def steps_in(folder: Path) -> int:
    """Training steps that were taken since the file was last removed."""
    path = folder / "steps"
    return len(path.read_bytes()) if path.exists() else 0
