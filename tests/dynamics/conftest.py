"""What the tests of this room share: one thread, and the plain loop that ensembles are held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice

import pytest
import torch
from torch import Tensor, nn

from lightball.oracles import MinibatchOracle, Sampling, build
from lightball.workloads import load

PlainLoop = Callable[..., tuple[dict[str, Tensor], list[float]]]
MakeOracle = Callable[..., MinibatchOracle]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_oracle() -> MakeOracle:
    """The first examples of a bundled task as an oracle: in float64 as it is, in float32 with SiLU for ReLU.

    A ReLU whose input lies within rounding of 0 lets a gradient through or does not; in float32 that happens within
    a hundred steps and moves a trajectory by up to 1e-2, so that nothing sharp could be said of it.
    """

    def make(
        task: str = "digits", sampling: Sampling | None = None, dtype: torch.dtype = torch.float32
    ) -> MinibatchOracle:
        sampling = sampling or Sampling(250, 50)
        workload, n = load(task), sampling.num_examples
        inputs, targets = workload.train.inputs[:n].to(dtype), workload.train.targets[:n]

        def factory() -> nn.Module:
            model = workload.model().to(dtype)
            for name, module in list(model.named_children()):
                if isinstance(module, nn.ReLU) and dtype == torch.float32:
                    setattr(model, name, nn.SiLU())
            return model

        return MinibatchOracle(factory, workload.loss, inputs, targets, sampling)

    return make


@pytest.fixture
def plain_loop() -> PlainLoop:
    """One model, ``torch.optim.SGD`` in its usual sum form, and nothing of lightball but weights and data order."""

    def train(  # type: ignore[no-untyped-def]
        oracle, seed, lr, momentum, num_steps, *, weight_decay=0.0, cosine=None, swap=False
    ) -> tuple[dict[str, Tensor], list[float]]:
        model = build(oracle.model_factory, seed)
        optimizer = torch.optim.SGD(model.parameters(), lr * (1 - momentum), momentum, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, cosine) if cosine else None
        losses = []
        for batch in islice(_batches(oracle.sampling, seed), num_steps):
            if swap and not losses:  # another example in the place of the first of all
                batch = torch.cat([(batch[:1] + 1) % oracle.sampling.num_examples, batch[1:]])
            loss = oracle.loss_fn(model(oracle.inputs[batch]), oracle.targets[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if schedule:
                schedule.step()
            losses.append(loss.item())
        return {name: p.detach() for name, p in model.named_parameters()}, losses

    return train


def _batches(sampling: Sampling, seed: int) -> Iterator[Tensor]:
    for epoch in count():
        for batch in sampling.epoch(seed, epoch).split(sampling.batch_size):
            if len(batch) == sampling.batch_size or not sampling.drop_last:
                yield batch
