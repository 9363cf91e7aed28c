"""Forecasts of a task on which nothing was set: how far "valid" can be trusted elsewhere.

    python benchmarks/forecast_unseen.py       # some ten minutes

A net with GELU and LayerNorm on 256 examples with noisy labels, at initialisation, after 150 and after 1,650 steps; 32
pairs of SGD and SGDM for each cell, drawn with replacement. Prints every cell; there is no target to meet.
"""

from __future__ import annotations

import click
import torch
from torch import nn

from lightball.forecast import forecast
from lightball.forecast.measured import measured_value
from lightball.oracles import build, generator
from lightball.probe import look_ahead, probe, supervised
from lightball.workloads import Data, Workload

PHASES = {"init": 0, "early": 150, "late": 1500}  # steps of training since the phase before
CELLS = ((0.05, 50, 16), (0.1, 100, 16), (0.1, 100, 64), (0.2, 50, 16), (0.2, 50, 64), (0.3, 60, 32))
EXAMPLES, PAIRS, HORIZON = 256, 32, 20.0


def task() -> Workload:
    """Labels of a random net whose outputs are noisy."""
    draw = generator(use="unseen task")
    inputs = torch.randn(EXAMPLES, 12, generator=draw)
    first, second = torch.randn(12, 24, generator=draw) / 12**0.5, torch.randn(24, 4, generator=draw) / 24**0.5
    outputs = 3 * torch.tanh(inputs @ first) @ second + torch.randn(EXAMPLES, 4, generator=draw)
    data = Data(inputs, outputs.argmax(dim=1))
    return Workload("unseen", model, data, data, data)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 4))


@click.command(help=__doc__.split("\n")[0])
def main() -> None:
    torch.set_num_threads(1)
    workload = task()
    inputs, targets = workload.train.inputs, workload.train.targets
    net = build(workload.model, seed=0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    draw = generator(use="unseen training")
    loss = supervised(workload.loss)
    micro = list(zip(inputs.split(8), targets.split(8), strict=True))
    good = valid = 0
    for phase, steps in PHASES.items():
        for _ in range(steps):
            batch = torch.randint(EXAMPLES, (32,), generator=draw)
            optimizer.zero_grad()
            workload.loss(net(inputs[batch]), targets[batch]).mean().backward()
            optimizer.step()
        now = probe(net, loss, micro, curvature_batches=len(micro), per_example=True)
        seen = look_ahead(now, net, loss, [(inputs, targets)], HORIZON, noise_data=micro, per_example=True)
        for rate, num_steps, size in CELLS:
            said = forecast(seen, rate, batch_size=size, num_steps=num_steps)
            real = measured_value(
                workload, net, [rate], batch_size=size, num_steps=num_steps, fewest_pairs=PAIRS, most_pairs=PAIRS
            )[rate, num_steps]
            within = abs(said.value.value - real.mean) <= max(0.25 * abs(real.mean), 2 * real.standard_error)
            valid, good = valid + said.validity.valid, good + (said.validity.valid and within)
            click.echo(
                f"{phase:6} η {rate:4} K {num_steps:3} B {size:2}  {real.mean:+.5f} ± {real.standard_error:.5f}  "
                f"forecast {said.value.value:+.5f}  {'good' if within else 'off'}  {said.validity.reason or 'valid'}"
            )
    click.echo(f"{good} of {valid} valid forecasts are within a quarter or two standard errors")


if __name__ == "__main__":
    main()
