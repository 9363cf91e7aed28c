"""BatchNorm over processes: 2 × 32, 1 × 64 and 2 × 16 × 2 give the same loss, gradients and running statistics."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

sys.path.insert(0, str(Path(__file__).parent))  # in processes that are spawned

from made_images import make_folder, small

from lightball.training import Recipe, train
from lightball.training.ranks import Ranks
from lightball.workloads.imagenet import GroupBatchNorm2d

NUM = 64


def network(group: int = 32) -> nn.Module:
    """Two convolutions, whose weights see the gradient through BatchNorm."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), GroupBatchNorm2d(6, group), nn.Tanh(), nn.Conv2d(6, 4, 3), GroupBatchNorm2d(4, group)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 16, 3)).double()


def step(ranks: int, rank: int, accumulate: int, group: int = 32) -> dict[str, Tensor]:
    """Loss, gradients and running statistics of a step on 64 images, summed over ranks as in training."""
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(NUM, 3, 8, 8, generator=draw, dtype=torch.float64) + torch.arange(NUM)[:, None, None, None] / 9
    targets = torch.randint(3, (NUM,), generator=draw)
    model = network(group)
    norms = [m for m in model if isinstance(m, GroupBatchNorm2d)]
    for norm in norms:
        norm.prepare(0, images)
    total = torch.zeros((), dtype=torch.float64)
    for batch in torch.arange(NUM).chunk(accumulate):
        share = batch.chunk(ranks)[rank]
        loss = nn.functional.cross_entropy(model(images[share]), targets[share], reduction="sum") / NUM
        loss.backward()
        total += loss.detach()
    found = {"loss": total, **{name: p.grad for name, p in model.named_parameters()}}
    if ranks > 1:
        for value in found.values():
            distributed.all_reduce(value)
    for norm in norms:
        norm.settle()
    return found | {name: b.double() for name, b in model.named_buffers() if "pending" not in name}


def trained(folder: str, ranks: Ranks | None) -> dict[str, Tensor]:
    """The curve of a run on images: two steps of 32, normalised in one group over all processes."""
    recipe = Recipe(32, 0.02, momentum=0.9, epochs=1, num_steps=2, eval_every=1, drop_last=True)
    history = train(small(Path(folder), bn_group=32), recipe, 1, ranks=ranks)
    return {"losses": torch.tensor([point.train_loss for point in history.points])}


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=4)
    try:
        result = {"4 x 16": step(4, rank, 1), "4 x 8 x 2": step(4, rank, 2)}
        unannounced = network()
        if rank == 0:  # which must not wait for the others
            result["alone"] = {"out": unannounced(torch.randn(16, 3, 8, 8, dtype=torch.float64))}
        torch.save(result, f"{folder}/four-{rank}.pt")
    finally:
        distributed.destroy_process_group()
    if rank < 2:
        as_two(rank, folder)


def as_two(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/two", rank=rank, world_size=2)
    try:
        result = {
            "2 x 32": step(2, rank, 1),
            "2 x 16 x 2": step(2, rank, 2),
            "wider": step(2, rank, 1, group=NUM),
            "one group": step(2, rank, 1, group=128),
            "trained": trained(folder, Ranks(rank, 2, torch.device("cpu"))),
        }
        torch.save(result, f"{folder}/two-{rank}.pt")
    finally:
        distributed.destroy_process_group()


def agree(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.allclose(value, other[name], rtol=1e-6, atol=1e-9), name


@pytest.mark.skipif(not distributed.is_available() or os.name != "posix", reason="needs gloo")
def test_the_same_on_any_number_of_processes(tmp_path: Path) -> None:
    make_folder(tmp_path)
    torch.multiprocessing.spawn(process, (str(tmp_path),), nprocs=4)
    alone = step(1, 0, 1)
    agree(step(1, 0, 2), alone)
    for rank in range(2):
        found = torch.load(tmp_path / f"two-{rank}.pt", weights_only=True)
        agree(found["2 x 32"], alone)
        agree(found["2 x 16 x 2"], alone)
        agree(found["wider"], step(1, 0, 1, group=NUM))
        agree(found["one group"], step(1, 0, 1, group=128))
        assert torch.allclose(found["trained"]["losses"], trained(str(tmp_path), None)["losses"], rtol=1e-4)
    for rank in range(4):
        found = torch.load(tmp_path / f"four-{rank}.pt", weights_only=True)
        agree(found["4 x 16"], alone)  # each group on two of four
        agree(found["4 x 8 x 2"], alone)
    # The groups matter: another size gives another loss.
    assert not torch.allclose(step(1, 0, 1, group=16)["loss"], alone["loss"], rtol=1e-4)
