"""The monitor under DistributedDataParallel: two processes, of which the first measures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn

sys.path.insert(0, str(Path(__file__).parent))  # in processes that are spawned
from monitored import Net, examples, loss_of, seed_all

from lightball.errors import InputError
from lightball.forecast.monitor import Effort, Monitor, read_monitor


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    try:
        plain, watched = trained(rank, None), trained(rank, folder)
        same = all(map(torch.equal, plain.state_dict().values(), watched.state_dict().values()))
        shared = nn.SyncBatchNorm.convert_sync_batchnorm(Net())
        with pytest.raises(InputError, match="SyncBatchNorm"):
            Monitor(shared, torch.optim.SGD(shared.parameters(), lr=0.1), loss_of, path=f"{folder}/shared.jsonl")
        Path(folder, f"rank-{rank}").write_text(f"the same: {same}")
    finally:
        distributed.destroy_process_group()


def trained(rank: int, folder: str | None) -> nn.Module:
    seed_all()
    inner = Net()
    model = nn.parallel.DistributedDataParallel(inner)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    inputs, targets = (each[rank::2] for each in examples())
    settings: dict[str, Any] = {"path": f"{folder}/m.jsonl", "effort": Effort(pairs=10), "on_error": "raise"}
    monitor = Monitor(model, optimizer, loss_of, 20, **settings) if folder else None
    for step in range(40):
        rows = torch.arange(16) + 16 * (step % 8)
        optimizer.zero_grad()
        loss_of(model, (inputs[rows], targets[rows])).backward()
        optimizer.step()
        if monitor is not None:
            monitor.step((inputs[rows], targets[rows]))
    return inner


def test_one_process_measures_and_both_train_as_before(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(process, (str(tmp_path),), nprocs=2)
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == ["the same: True"] * 2
    records = read_monitor(tmp_path / "m.jsonl")
    assert [r.step for r in records] == [20, 40]
    assert records[-1].batch_size == 32
    assert records[-1].trace_noise_of_pairs is not None
    assert records[-1].trace_noise_of_pairs.n >= 9
    # Gradients are seen before they are averaged over the processes: else this would be half as much.
    assert 0.7 < records[-1].trace_noise_of_pairs.value / records[-1].trace_noise.value < 1.6
