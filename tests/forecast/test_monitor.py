"""A monitor in a plain loop: it leaves no trace, survives what goes wrong, and finds what is there."""

from __future__ import annotations

import json
import logging
import math
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from monitored import Net, everything, examples, loss_of, seed_all, trained
from torch import nn

from lightball.errors import InputError
from lightball.forecast.monitor import Effort, Monitor, Outlook, phases_of_records, read_monitor
from lightball.forecast.monitor.journal import Journal
from lightball.forecast.monitor.record import Record
from lightball.probe import Probe, probe
from lightball.probe.estimates import Estimate


def monitor_at(path: Path, every: int = 20, **settings: Any) -> Any:
    return lambda model, optimizer: Monitor(
        model, optimizer, loss_of, every, path=path / "monitor.jsonl", **{"on_error": "raise", **settings}
    )


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
        (torch.optim.SGD, {"lr": 0.05}),
        (torch.optim.Adam, {"lr": 0.01}),
    ],
)
def test_a_monitored_training_is_the_same_to_the_bit(make: Any, settings: Any, tmp_path: Path) -> None:
    """With dropout, BatchNorm and a shuffle by the global generator; 50 steps, so that pairs are seen half way too."""
    model, optimizer, losses, _ = trained(50, None, make=make, **settings)
    plain = everything(model, optimizer)
    model, optimizer, again, monitor = trained(50, monitor_at(tmp_path, every=8), make=make, **settings)
    monitor.close()
    assert len(monitor.records) == 6
    assert again == losses
    assert everything(model, optimizer) == plain


def test_a_probe_that_fails_leaves_no_trace_either(tmp_path: Path) -> None:
    calls = 0

    def failing(model: nn.Module, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        model.train(False)
        model.seen = calls  # type: ignore[assignment]
        torch.rand(3)
        if calls % 5 == 0:
            raise RuntimeError("the disk of the feature store is gone")
        return loss_of(model, batch)

    model, optimizer, losses, _ = trained(30, None)
    plain = everything(model, optimizer)
    model, optimizer, again, monitor = trained(
        30, lambda m, o: Monitor(m, o, failing, 10, path=tmp_path / "monitor.jsonl")
    )
    monitor.close()
    assert (again, everything(model, optimizer)) == (losses, plain)
    read = read_monitor(tmp_path / "monitor.jsonl")
    assert [r.error for r in read] == ["RuntimeError: the disk of the feature store is gone"] * 3
    assert monitor.summary().failed == 3
    assert "3 probes failed" in str(monitor.summary())


def test_an_interrupt_passes(tmp_path: Path) -> None:
    def interrupted(model: nn.Module, batch: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(30, lambda m, o: Monitor(m, o, interrupted, 10, path=tmp_path / "monitor.jsonl"))


def test_a_record_says_what_a_full_probe_says(tmp_path: Path) -> None:
    """In eval mode, where the loss has no masks: tr Σ, sharpness and terms against a probe of all examples."""
    effort = Effort(microbatches=8, curvature_batches=8, lanczos_steps=12, noise_vectors=6, pairs=0)
    settings = {"effort": effort, "mode": "eval", "training_examples": 256, "batch_size": 32}
    model, optimizer, _, monitor = trained(40, monitor_at(tmp_path, every=40, **settings), batch_size=32)
    record = monitor.records[-1]
    truth = probe(model, loss_of, [examples()], mode="eval", per_example=True)
    assert record.loss == pytest.approx(truth.loss, rel=0.15)
    assert record.trace_noise.low < truth.trace_noise.value < record.trace_noise.high
    assert record.sharpness == pytest.approx(truth.sharpness.value, rel=0.25)
    assert record.effective_lr == pytest.approx(0.5)
    assert record.terms["noise"] == pytest.approx(0.5 * 0.5**2 * truth.noise_curvature.value / 32, rel=0.5)
    assert record.terms["descent"] == pytest.approx(-0.5 * record.gradient_norm_squared.value)
    assert record.terms["curvature"] > 0
    assert optimizer.param_groups[0]["momentum"] == record.momentum


def test_pairs_of_training_gradients_sharpen_the_noise(tmp_path: Path) -> None:
    """Over a stretch with rate 1e-6 they must hold tr Σ of one step's gradients, and more narrowly than the probe."""
    effort = Effort(pairs=60, microbatches=4)
    settings = {"effort": effort, "mode": "eval"}
    model, _, _, monitor = trained(200, monitor_at(tmp_path, every=200, **settings), lr=1e-6, momentum=0.9)
    record = monitor.records[-1]
    model.train()
    inputs, targets = examples()
    gradients = []
    for _ in range(600):
        rows = torch.randperm(len(inputs))[:16]
        found = torch.autograd.grad(loss_of(model, (inputs[rows], targets[rows])), list(model.parameters()))
        gradients.append(torch.cat([g.flatten() for g in found]))
    apart = torch.stack(gradients[::2]) - torch.stack(gradients[1::2])
    # A pair of batches that share no example is a little further apart than two that may.
    truth = float(apart.square().sum(dim=1).mean()) / (2 / 16) / (1 - 16 / 256)
    assert record.trace_noise_of_pairs.n >= 50
    assert record.trace_noise_of_pairs.value == pytest.approx(truth, rel=0.12)


def test_the_move_between_two_steps_is_taken_off(tmp_path: Path) -> None:
    """On L = ½ h x² with gradient noise: E ‖g₁ − g₂‖² has lr tr(HΣ) more than two draws at one point."""
    curvature, lr, dim = 1.0, 0.4, 400
    center = torch.randn(20000, dim, generator=torch.Generator().manual_seed(0))

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.zeros(dim))

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return 0.5 * curvature * (model.x - batch).square().sum(dim=1).mean()  # type: ignore[operator]

    model = Point()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    effort = Effort(pairs=60, microbatches=8)
    monitor = Monitor(model, optimizer, loss, 200, path=tmp_path / "m.jsonl", effort=effort, on_error="raise")
    for rows in torch.arange(200 * 8).split(8):
        optimizer.zero_grad()
        loss(model, center[rows]).backward()
        optimizer.step()
        monitor.step(center[rows])
    record = monitor.records[-1]
    assert record.trace_noise_of_pairs.value == pytest.approx(dim, rel=0.03)  # without correction 40 % more


def test_accumulated_microbatches_are_pairs_at_one_point(tmp_path: Path) -> None:
    """At a rate at which weights move far between steps; the same tr Σ from halves of each step's batch."""
    seed_all()
    model = Net().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    inputs, targets = examples()
    settings: dict[str, Any] = {"path": tmp_path / "m.jsonl", "effort": Effort(pairs=100), "on_error": "raise"}
    monitor = Monitor(model, optimizer, loss_of, 200, accumulation=4, **settings)
    for _ in range(200):
        optimizer.zero_grad()
        for rows in torch.randperm(len(inputs))[:64].split(16):
            batch = inputs[rows], targets[rows]
            (loss_of(model, batch) / 4).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
        monitor.step(batch)
    record = monitor.records[-1]
    truth = probe(model, loss_of, [(inputs, targets)], per_example=True).trace_noise
    assert record.trace_noise_of_pairs.n >= 90
    assert record.trace_noise_of_pairs.value == pytest.approx(truth.value, rel=0.1)
    assert record.batch_size == 64


def test_backward_passes_that_are_not_those_of_the_loss_are_noticed(tmp_path: Path) -> None:
    """Loss scaling that the monitor was not told of: pairs are 10⁴ times too far apart, and not used."""
    seed_all()
    model = Net().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    inputs, targets = examples()
    monitor = Monitor(model, optimizer, loss_of, 40, path=tmp_path / "m.jsonl", on_error="raise")
    for _ in range(40):
        rows = torch.randperm(len(inputs))[:16]
        optimizer.zero_grad()
        (100 * loss_of(model, (inputs[rows], targets[rows]))).backward()
        optimizer.step()
        monitor.step((inputs[rows], targets[rows]))
    record = monitor.records[-1]
    assert record.trace_noise_of_pairs.value > 1000 * record.trace_noise.value
    assert "not those of the loss" in record.notes[0]


def test_the_scale_of_mixed_precision_is_divided_out(tmp_path: Path) -> None:
    class Scaler:
        def is_enabled(self) -> bool:
            return True

        def get_scale(self) -> float:
            return 1024.0

    def pairs_of(scale: float, scaler: Any) -> float:
        seed_all()
        model = Net().eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        inputs, targets = examples()
        path = tmp_path / "m.jsonl"
        monitor = Monitor(model, optimizer, loss_of, 40, path=path, scaler=scaler, on_error="raise")
        for rows in torch.randperm(40 * 16).remainder(len(inputs)).split(16):
            optimizer.zero_grad()
            (scale * loss_of(model, (inputs[rows], targets[rows]))).backward()
            optimizer.step()
            monitor.step((inputs[rows], targets[rows]))
        return monitor.records[-1].trace_noise_of_pairs.value

    assert pairs_of(1024.0, Scaler()) == pytest.approx(pairs_of(1.0, None), rel=1e-4)


def test_a_loop_that_reuses_the_tensors_of_its_batches(tmp_path: Path) -> None:
    """The last batch alone, eight times, would have no noise."""
    model = Net().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    inputs, targets = examples()
    batch = (torch.empty(16, 8), torch.empty(16, dtype=torch.long))
    monitor = Monitor(model, optimizer, loss_of, 16, path=tmp_path / "m.jsonl", on_error="raise")
    for rows in torch.arange(256).split(16):
        batch[0].copy_(inputs[rows])
        batch[1].copy_(targets[rows])
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        monitor.step(batch)
    own = Probe.from_json(read_monitor(tmp_path / "m.jsonl")[-1].probe)
    assert own.trace_noise.value > 1


def test_other_optimizers_are_measured_but_not_forecast(tmp_path: Path) -> None:
    make = partial(torch.optim.AdamW, weight_decay=0.1)
    record = trained(20, monitor_at(tmp_path), make=make, lr=1e-3)[3].records[-1]
    assert record.trace_noise.value > 0
    assert record.sharpness > 0
    assert record.value_of_momentum is None
    assert record.terms is None
    assert not record.valid
    assert record.reason == "the optimizer is AdamW, but forecasts are for torch.optim.SGD"
    assert record.verdict == "not determined"


def test_groups_of_several_rates_and_nesterov_are_not_forecast(tmp_path: Path) -> None:
    def grouped(parameters: Any, **settings: Any) -> torch.optim.Optimizer:
        one, *others = parameters
        return torch.optim.SGD([{"params": [one], "lr": 0.1}, {"params": others}], **settings)

    record = trained(20, monitor_at(tmp_path), make=grouped, lr=0.05)[3].records[-1]
    assert record.reason.startswith("parameter groups have different learning rates")
    record = trained(20, monitor_at(tmp_path), lr=0.05, momentum=0.9, nesterov=True)[3].records[-1]
    assert record.value_of_momentum is None
    assert "Nesterov" in record.reason
    assert record.terms is not None


def test_schedules_are_read_when_a_record_is_made(tmp_path: Path) -> None:
    class Decaying(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:  # type: ignore[override]
            result = super().step(closure)
            self.param_groups[0]["lr"] *= 0.5 ** (1 / 20)
            return result

    records = trained(60, monitor_at(tmp_path), make=Decaying, lr=0.08, momentum=0.5)[3].records
    assert [r.effective_lr for r in records] == pytest.approx([0.08, 0.04, 0.02])
    assert records[-1].flow_time == pytest.approx(0.08 * 20 + 0.04 * 20 + 0.02 * 20)


def test_the_forecast_of_a_calm_stretch_is_valid_and_about_the_live_buffer(tmp_path: Path) -> None:
    """Far from the optimum with large batches: a warm run keeps its momentum's lead, a cold one lags."""
    outlook = Outlook(num_steps=5)
    effort = Effort(microbatches=8, curvature_batches=8)
    settings = {"outlook": outlook, "effort": effort, "mode": "eval", "training_examples": 256, "every": 40}
    model, optimizer, _, monitor = trained(40, monitor_at(tmp_path, **settings), batch_size=128, lr=2e-3, momentum=0.9)
    record = monitor.records[-1]
    assert record.valid, record.reason
    assert record.value_of_momentum is not None
    read = read_monitor(tmp_path / "monitor.jsonl")[-1]
    assert read.probe is not None
    measured = Probe.from_json(read.probe)
    assert measured.buffer is not None
    m = torch.cat([optimizer.state[p]["momentum_buffer"].flatten() for p in model.parameters()]) * 0.1
    assert measured.buffer.own.mass == pytest.approx(float(m @ m), rel=1e-4)


def test_verdicts_by_phase(tmp_path: Path) -> None:
    monitor = trained(90, monitor_at(tmp_path, every=10, training_examples=256))[3]
    summary = monitor.summary()
    assert [p.name for p in summary.phases] == ["early", "middle", "late"]
    assert [(p.first, p.last, p.records) for p in summary.phases] == [(10, 30, 3), (40, 60, 3), (70, 90, 3)]
    late = monitor.records[6:]
    ratio = sum(r.trace_noise.value for r in late) / sum(r.gradient_norm_squared.value for r in late)
    assert summary.phases[2].noise_scale == (pytest.approx(ratio) if ratio > 0 else math.inf)
    assert str(summary).count("\n") == 2
    assert monitor.records[-1].critical_batch_size == pytest.approx(
        late[-1].noise_curvature / late[-1].gradient_curvature if late[-1].gradient_curvature > 0 else math.inf
    )
    phases = phases_of_records(read_monitor(tmp_path / "monitor.jsonl"))
    assert [phase.name for phase in phases.phases] == ["early", "middle", "late"]
    assert [phase.time for phase in phases.phases] == pytest.approx([15.0, 30.0, 45.0])
    assert [point.loss for point in phases.curve] == [record.loss for record in monitor.records]
    with pytest.raises(InputError, match="no record holds a probe"):
        phases_of_records(monitor.records[:0])


def test_records_are_json_and_go_to_loggers(tmp_path: Path) -> None:
    seen: list[tuple[dict[str, float], int]] = []
    settings = {"log": lambda scalars, step: seen.append((scalars, step)), "tensorboard": tmp_path / "events"}
    monitor = trained(40, monitor_at(tmp_path, **settings))[3]
    assert [step for _, step in seen] == [20, 40]
    assert {"loss", "effective_lr", "trace_noise", "sharpness", "terms/noise", "seconds"} <= set(seen[0][0])
    assert all(math.isfinite(value) for value in seen[0][0].values())
    first, *lines = (tmp_path / "monitor.jsonl").read_text().splitlines()
    assert json.loads(first)["start"] == 0
    values = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [v["step"] for v in values] == [20, 40]
    assert values[1]["trace_noise"][0] == monitor.records[1].trace_noise.value
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [e.step for e in events.Scalars("lightball/loss")] == [20, 40]


def test_a_logger_that_fails_does_not_end_a_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def log(scalars: dict[str, float], step: int) -> None:
        raise ConnectionError("no route to the logging host")

    with caplog.at_level(logging.WARNING, "lightball"):
        trained(20, monitor_at(tmp_path, log=log, on_error="record"))
    assert "no route to the logging host" in caplog.text


def test_a_full_disk_does_not_end_a_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The path is a link that points to /dev/full from the first record on."""
    path, real = tmp_path / "monitor.jsonl", tmp_path / "real.jsonl"
    path.symlink_to(real)

    def watched(model: nn.Module, optimizer: torch.optim.Optimizer) -> Monitor:
        monitor = Monitor(model, optimizer, loss_of, 10, path=path)
        path.unlink()
        path.symlink_to("/dev/full")
        return monitor

    with caplog.at_level(logging.WARNING, "lightball"):
        monitor = trained(20, watched)[3]
    assert [r.step for r in monitor.records] == [10, 20]
    assert caplog.text.count("No space left on device") == 2


def test_records_after_a_torn_line_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A limit on the file's size lets the operating system write a part of a record only, as a full disk does."""
    path = tmp_path / "monitor.jsonl"
    journal = Journal(path)
    journal.begin(0, {})
    journal.write(Record(10, loss=1.0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, before[1]))
    try:
        with pytest.raises(InputError, match="File too large"):
            journal.write(Record(20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    torn = path.read_bytes().rpartition(b"\n")[2]
    assert len(torn) == 40
    assert [r.step for r in read_monitor(path)] == [10]
    journal.write(Record(30))
    with caplog.at_level(logging.WARNING, "lightball"):
        assert [r.step for r in read_monitor(path)] == [10, 30]
    assert "skipped 1 damaged line(s)" in caplog.text
    assert [r.step for r in trained(10, monitor_at(tmp_path, every=10, start=30))[3].records] == [10, 30, 40]


def test_a_file_of_other_things_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "monitor.jsonl").write_text("lr: 0.1\nmomentum: 0.9\n")
    with pytest.raises(InputError, match=r"no line of .* is a record of a monitor"):
        trained(1, monitor_at(tmp_path))
    assert (tmp_path / "monitor.jsonl").read_text() == "lr: 0.1\nmomentum: 0.9\n"


def test_flow_time_goes_on_after_a_record_with_an_error(tmp_path: Path) -> None:
    """Also from an older file, whose errors have no flow time."""

    def failing(model: nn.Module, batch: Any) -> torch.Tensor:
        raise RuntimeError("no measurement")

    path = tmp_path / "monitor.jsonl"
    trained(20, monitor_at(tmp_path, every=10))
    trained(10, lambda m, o: Monitor(m, o, failing, 10, path=path, start=20))
    assert trained(1, monitor_at(tmp_path, every=10, start=30))[3].flow_time == pytest.approx(30 * 0.5)
    Journal(path).write(Record(40, error="no measurement"))
    assert trained(1, monitor_at(tmp_path, every=10, start=40))[3].flow_time == pytest.approx(30 * 0.5)


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (0.9e-9, 1.1e-9, None, "no value"),
        (-0.019, 0.019, None, "no value"),
        (-0.03, 0.01, None, "undecided"),
        (0.01, 0.03, None, "undecided"),
        (0.021, 0.03, None, "helps"),
        (-0.03, -0.021, None, "hurts"),
        (-math.inf, math.inf, None, "undecided"),
        (0.9e-9, 1.1e-9, 1e-10, "helps"),
    ],
)
def test_a_verdict_needs_more_than_the_margin(low: float, high: float, margin: float | None, verdict: str) -> None:
    """The loss is 2, so that 0.02 is its 1 %."""
    value = Estimate((low + high) / 2, low, high, 5)
    record = Record(10, loss=2.0, value_of_momentum=value, valid=True, margin=margin)
    assert record.verdict == verdict
    assert Record.from_json(json.loads(json.dumps(record.to_json()))).verdict == verdict


def test_advice_is_refused_where_the_training_set_has_no_known_size(tmp_path: Path) -> None:
    trained(20, monitor_at(tmp_path, outlook=Outlook(margin=0.5)))
    (record,) = read_monitor(tmp_path / "monitor.jsonl")
    assert record.regime != ""
    assert record.margin == 0.5
    with pytest.raises(InputError, match=r"give Monitor\(training_examples=…\)"):
        phases_of_records([record])
    with pytest.raises(InputError, match=r"outlook\.sampling is 'shuffle'"):
        trained(1, monitor_at(tmp_path, outlook=Outlook(sampling="shuffle")))


def test_killed_in_the_middle_of_a_line_and_gone_on(tmp_path: Path) -> None:
    """A process is killed by SIGKILL while it trains; the next one goes on from a checkpoint before the last record."""
    path = tmp_path / "monitor.jsonl"
    script = (
        "import sys, os, signal; sys.path.insert(0, sys.argv[1])\n"
        "from monitored import *; from lightball.forecast.monitor import Monitor\n"
        "def watched(m, o): return Monitor(m, o, loss_of, 10, path=sys.argv[2])\n"
        "trained(30, watched); assert not {'transformers', 'lightning'} & set(sys.modules), 'heavy imports'\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(Path(__file__).parent), str(path)], check=False)
    assert done.returncode == -9
    assert [r.step for r in read_monitor(path)] == [10, 20, 30]
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert [r.step for r in read_monitor(path)] == [10, 20]
    monitor = trained(20, monitor_at(tmp_path, every=10, start=10))[3]
    assert [r.step for r in monitor.records] == [10, 20, 30]
    assert [r.step for r in read_monitor(path)] == [10, 20, 30]
    assert [r.step for r in trained(10, monitor_at(tmp_path, every=10))[3].records] == [10]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every is 0, but must be an integer of at least 1"),
        ({"accumulation": 1.5}, r"accumulation is 1.5, but must be an integer"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"mode": "test"}, "mode is 'test'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
    ],
)
def test_bad_arguments(settings: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        trained(1, monitor_at(tmp_path, **settings))


def test_what_cannot_be_monitored(tmp_path: Path) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match="model is a function"):
        Monitor(loss_of, optimizer, loss_of, path=tmp_path / "m")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="optimizer is a list"):
        Monitor(model, [optimizer], loss_of, path=tmp_path / "m")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="DataParallel"):
        Monitor(nn.DataParallel(model), optimizer, loss_of, path=tmp_path / "m")
    with pytest.raises(InputError, match="cannot write the monitor's records"):
        Monitor(model, optimizer, loss_of, path=tmp_path)
    with pytest.raises(InputError, match="noise_vectors is 1"):
        Effort(noise_vectors=1)
    with pytest.raises(InputError, match="cannot read"):
        read_monitor(tmp_path / "none.jsonl")
