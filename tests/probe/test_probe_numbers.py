"""What a probe says of the digits: the momentum buffer, traces, the bias of few examples, and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import weakref

import numpy as np
import pytest
import torch
from gradient_tables import dense_hessian, small_net, table, train
from torch import nn
from torch.nn.functional import cross_entropy

from lightball.errors import InputError
from lightball.probe import Probe, load_probe, probe, supervised
from lightball.probe.curvature import Curvature
from lightball.probe.estimates import mean_estimate
from lightball.probe.forms import trace_products
from lightball.probe.probe import probe as measured
from lightball.workloads.digits import digits

LOSS = supervised(cross_entropy)
DATA = digits().train


def microbatches(count, examples, seed=0):
    order = torch.randperm(len(DATA.inputs), generator=torch.Generator().manual_seed(seed))[:examples]
    return [(DATA.inputs[part].double(), DATA.targets[part]) for part in order.tensor_split(count)]


@pytest.fixture(scope="module")
def run():
    """A net in training, its optimizer with two groups, and a dense Hessian and gradient over all data."""
    net = small_net(4)
    optimizer = train(net, 60, lr=0.1, momentum=0.9)
    weight, *rest = net.parameters()
    two = torch.optim.SGD(
        [{"params": [weight], "momentum": 0.5, "dampening": 0.25}, {"params": rest}], 0.1, momentum=0.9
    )
    for parameter in (weight, *rest[:-1]):  # the last has no buffer yet
        two.state[parameter]["momentum_buffer"] = optimizer.state[parameter]["momentum_buffer"]
    hessian = dense_hessian(net, DATA.inputs.double(), DATA.targets)
    net.zero_grad()
    cross_entropy(net(DATA.inputs.double()), DATA.targets).backward()
    gradient = torch.cat([p.grad.flatten() for p in net.parameters()])
    net.zero_grad()
    return net, two, hessian, gradient


def canonical(net, optimizer):
    weight, *rest = net.parameters()
    buffers = [optimizer.state[p]["momentum_buffer"].flatten() for p in (weight, *rest[:-1])]
    scaled = [buffers[0] * 0.5 / 0.75, *(0.1 * b for b in buffers[1:]), torch.zeros(rest[-1].numel()).double()]
    return torch.cat(scaled)


def test_momentum_of_a_run_is_one_more_measure(run):
    net, optimizer, hessian, gradient = run
    m = canonical(net, optimizer)
    data = microbatches(8, len(DATA.inputs))
    found = probe(net, LOSS, data, buffer=optimizer, curvature_batches=8, num_steps=12, last_update=0.1 * m)
    own, cross = found.buffer.own, found.buffer.cross
    for power in range(4):
        image = torch.linalg.matrix_power(hessian, power) @ m
        assert own.integral(lambda h, k=power: h**k) == pytest.approx(float(m @ image), rel=1e-9)
        assert cross.integral(lambda h, k=power: h**k) == pytest.approx(float(gradient @ image), rel=1e-8)
    assert found.update_curvature == pytest.approx(float(m @ hessian @ m / (m @ m)), rel=1e-9)
    parts = m.split([p.numel() for p in net.parameters()])
    named = {n: part.view_as(p) for (n, p), part in zip(net.named_parameters(), parts, strict=True)}
    again = probe(net, LOSS, data, buffer=named, curvature_batches=8, num_steps=12)
    for each, other in ((again.buffer.own, own), (again.buffer.cross, cross)):
        assert each.integral(np.square) == pytest.approx(other.integral(np.square), rel=1e-9)
    assert again.update_curvature is None


def test_a_small_buffer_does_not_drown_in_the_gradient(run):
    net, optimizer, hessian, gradient = run
    m = 1e-12 * canonical(net, optimizer)
    data = microbatches(8, len(DATA.inputs))
    cross = probe(net, LOSS, data, buffer=m, curvature_batches=8, num_steps=8).buffer.cross
    assert cross.integral(lambda h: h) == pytest.approx(float(gradient @ hessian @ m), rel=1e-8)


def test_a_cold_optimizer_has_an_empty_buffer(run):
    net = run[0]
    found = probe(net, LOSS, microbatches(4, 64), num_steps=3, buffer=torch.optim.SGD(net.parameters(), 0.1))
    assert found.buffer.own.mass == found.buffer.cross.mass == 0


def test_traces_are_in_their_intervals():
    hessian = table("middle").hessian
    truth, held = float(hessian.trace()), 0
    like = torch.zeros(len(hessian), dtype=torch.float64)
    for seed in range(100):
        found = mean_estimate(trace_products(lambda v: v @ hessian, like, 8, seed))
        held += found.low <= truth <= found.high
    assert held >= 90


def test_scales_are_ratios_of_means(run):
    net = run[0]
    found = probe(net, LOSS, microbatches(32, 512), training_examples=len(DATA.inputs), num_steps=4)
    assert found.noise_scale.value == found.trace_noise.value / found.gradient_norm_squared.value
    assert found.preconditioned_noise_scale.value == found.noise_curvature.value / found.gradient_curvature
    share = (1078 - 512) / (512 * 1077)
    assert found.gradient_noise_share == pytest.approx(share, rel=1e-12)
    raw = found.gradient.mass
    assert found.gradient_norm_squared.value == pytest.approx(raw - share * found.trace_noise.value, rel=1e-12)
    assert found.gradient_integral(np.ones_like) == pytest.approx(found.gradient_norm_squared.value, rel=1e-9)
    assert found.gradient_integral(lambda h: h) == pytest.approx(found.gradient_curvature, rel=1e-9)


def test_at_a_minimum_nothing_confident_is_said_of_noise_scales():
    """Targets at the mean of a linear model's outputs: the gradient of the whole set is exactly 0."""
    net = nn.Linear(3, 1, bias=False).double()
    random = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, dtype=torch.float64, generator=random)
    e = torch.randn(400, 1, dtype=torch.float64, generator=random)
    e -= x @ torch.linalg.lstsq(x, e).solution
    y = net(x).detach() + e
    data = list(zip(x[:200].split(10), y[:200].split(10), strict=True))
    loss = supervised(lambda outputs, targets: (outputs - targets).square() / 2)
    found = probe(net, loss, data, training_examples=400)
    assert not found.noise_scale.determined
    assert found.noise_scale.high == math.inf
    assert str(found.noise_scale).startswith("not determined")
    assert not found.preconditioned_noise_scale.determined
    assert found.gradient.mass / found.trace_noise.value < 2 / 200


def test_few_curvature_examples_make_sharpness_too_large_and_it_says_so():
    net = small_net(4)
    train(net, 300)
    whole = probe(net, LOSS, microbatches(8, 1078), num_steps=2, curvature_batches=8)
    assert whole.sharpness_bias == 0
    assert not any("curvature is that of" in note for note in whole.notes)
    real, told = [], []
    for seed in range(6):
        found = probe(net, LOSS, microbatches(4, 64, seed), num_steps=12, training_examples=1078, noise_vectors=2)
        assert found.curvature_examples == 64
        assert any("curvature is that of 64 of 1,078 examples" in note for note in found.notes)
        assert any("also in the gradient" in note for note in found.notes)
        real.append(found.sharpness.value - whole.sharpness.value)
        told.append(found.sharpness_bias)
    assert np.mean(real) > 0
    assert 0.4 < np.mean(told) / np.mean(real) < 2.5


def test_curvature_batches_of_their_own(run):
    net = run[0]
    own = microbatches(2, 100, seed=9)
    found = probe(net, LOSS, microbatches(4, 64), num_steps=3, curvature_batches=own, training_examples=1078)
    assert (found.curvature_examples, found.gradient_examples) == (100, 64)
    assert not any("also in the gradient" in note for note in found.notes)
    hessian = dense_hessian(net, *(torch.cat(each) for each in zip(*own, strict=True)))
    assert found.sharpness.value == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-6)


def test_default_curvature_batches_make_256_examples_spread_over_the_data(run):
    net = run[0]
    found = probe(net, LOSS, microbatches(20, 640), num_steps=2, training_examples=1078)
    assert found.curvature_examples == 256
    assert probe(net, LOSS, microbatches(4, 80), num_steps=2).curvature_examples == 80


def test_batches_of_unequal_size_count_by_their_examples(run):
    net = run[0]
    x, y = DATA.inputs[:90].double(), DATA.targets[:90]
    data = list(zip(x.split([1, 9, 30, 50]), y.split([1, 9, 30, 50]), strict=True))
    found = probe(net, LOSS, data, num_steps=3)
    outputs = cross_entropy(net(x), y)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(outputs, list(net.parameters()))])
    assert found.loss == pytest.approx(outputs.item(), rel=1e-12)
    assert found.gradient.mass == pytest.approx(float(gradient @ gradient), rel=1e-10)
    assert found.sharpness.value == pytest.approx(float(torch.linalg.eigvalsh(dense_hessian(net, x, y))[-1]), rel=1e-6)


def test_a_heavy_tail_is_noted():
    net = small_net(8)
    train(net, 3000)
    data = microbatches(64, 256)
    data[17] = (data[17][0], (data[17][1] + 1) % 10)  # wrong labels
    found = probe(net, LOSS, data, num_steps=2, training_examples=1078, curvature_batches=4)
    assert any("one of 64 batches carries" in note and "give more batches" in note for note in found.notes)
    early = probe(small_net(8), LOSS, data, num_steps=2, training_examples=1078, curvature_batches=4)
    assert not any("carries" in note for note in early.notes)


def test_progress_is_told(run):
    told = []
    probe(run[0], LOSS, microbatches(4, 64), num_steps=3, progress=lambda *each: told.append(each))
    assert [each for each in told if each[0] == "gradients"][-1] == ("gradients", 64, 64)
    done = [count for what, count, _ in told if what == "curvature"]
    assert done == sorted(done)
    assert done[-1] > 20


@pytest.fixture(scope="module")
def found(run):
    return probe(run[0], LOSS, microbatches(8, 64), training_examples=1078, num_steps=3, buffer=run[1])


def same(a: Probe, b: Probe) -> bool:
    return json.dumps(a.to_json()) == json.dumps(b.to_json())


def test_json_comes_back_exactly(found, tmp_path):
    odd = dataclasses.replace(
        found,
        loss=0.1 + 0.2,
        noise_scale=dataclasses.replace(found.noise_scale, value=math.inf, low=-math.inf, high=math.inf),
        update_curvature=math.nan,
        sharpness_bias=None,
    )
    for each in (found, odd, dataclasses.replace(found, buffer=None, notes=("ein Satz — mit “Zeichen”",))):
        each.save(tmp_path / "probe.json")
        again = load_probe(tmp_path / "probe.json")
        assert same(again, each)
        assert isinstance(again, Probe)
        assert np.array_equal(again.noise.nodes, each.noise.nodes)
        assert np.array_equal(again.noise.weights, each.noise.weights)
        assert again.trace_noise == each.trace_noise
        assert again.notes == each.notes
    assert [path.name for path in tmp_path.iterdir()] == ["probe.json"]
    assert same(Probe.from_json(json.loads(json.dumps(found.to_json()))), found)


def altered(found, change):
    value = json.loads(json.dumps(found.to_json()))
    change(value)
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(version=2), r"by a newer lightball \(version 2, this one reads 1\): update lightball$"),
        (lambda v: v.update(version="x"), "is damaged: version is 'x'"),
        (lambda v: v.update(format="else"), "is no probe: it must be an object with format 'lightball probe'"),
        (lambda v: v.update(probe=[]), r"is damaged: probe is not an object \(probe again\)$"),
        (lambda v: v["probe"].pop("trace"), "is damaged: probe has no 'trace'"),
        (lambda v: v["probe"].update(more=1), "is damaged: probe has an unknown 'more'"),
        (lambda v: v["probe"].update(loss="high"), "is damaged: probe.loss is 'high'"),
        (lambda v: v["probe"].update(loss=True), "is damaged: probe.loss is True"),
        (lambda v: v["probe"].update(num_parameters=1.5), "is damaged: probe.num_parameters is 1.5"),
        (lambda v: v["probe"].update(curvature="fisher"), "is damaged: probe.curvature is 'fisher'"),
        (lambda v: v["probe"].update(notes=[1]), r"is damaged: probe.notes\[0\] is 1"),
        (
            lambda v: v["probe"]["noise"]["nodes"][0].pop(),
            "probe.noise.nodes has rows of different lengths",
        ),
        (lambda v: v["probe"]["noise"].update(nodes=[]), "is damaged: probe.noise.nodes is not a table of numbers"),
        (lambda v: v["probe"]["trace"].update(low=None), "is damaged: probe.trace.low is None"),
        (lambda v: v["probe"]["buffer"].pop("own"), "is damaged: probe.buffer has no 'own'"),
    ],
)
def test_damaged_json_is_refused_in_one_line(found, change, message):
    with pytest.raises(InputError, match=message) as refusal:
        Probe.from_json(altered(found, change))
    assert "\n" not in str(refusal.value)


def test_files_that_are_no_probe(found, tmp_path):
    path = tmp_path / "probe.json"
    for content, message in (
        (b"", "is damaged or no probe"),
        (json.dumps(found.to_json()).encode()[:-20], "is damaged or no probe"),
        (b"\xff\xfe\x00", "is damaged or no probe"),
        (b"[" * 100_000, "is damaged or no probe"),
        (b"[1, 2]", "is no probe"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_probe(path)
    with pytest.raises(InputError, match=r"cannot read the file '.*none.json': No such file or directory"):
        load_probe(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"cannot write the probe '.*none/x.json': No such file or directory"):
        found.save(tmp_path / "none" / "x.json")
    assert measured is probe


class Scaled(nn.Module):
    """A linear layer whose outputs have a trainable scale without an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.tensor(1.5)), nn.Linear(64, 10)

    def forward(self, x):
        return self.scale * self.inner(x)


@pytest.mark.parametrize("per_example", [False, True])
def test_a_parameter_without_an_axis(per_example):
    """A scalar counts as one parameter: the probe equals that of the same scale as a vector of length 1."""
    torch.manual_seed(0)
    net = Scaled().double()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    batches = microbatches(4, 32)
    LOSS(net, batches[0]).backward()
    optimizer.step()
    found = probe(net, LOSS, batches, num_steps=5, per_example=per_example, buffer=optimizer, horizon=0.1)
    net.scale = nn.Parameter(net.scale.detach().reshape(1))
    same = probe(net, LOSS, batches, num_steps=5, per_example=per_example)
    assert found.num_parameters == 651
    assert found.trace_noise.value == pytest.approx(same.trace_noise.value)
    assert found.sharpness.value == pytest.approx(same.sharpness.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_that_cancel_have_no_noise_scale(dtype):
    """All examples are given, and their gradients are 0 in the mean but for rounding."""
    targets = torch.randn(64, 300, generator=torch.Generator().manual_seed(0)).to(dtype)
    targets -= targets.mean(dim=0)

    class Point(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.zeros(300, dtype=dtype))

    def loss(model, batch):
        return 0.5 * (model.x - batch).square().sum(dim=1).mean()

    found = probe(Point(), loss, list(targets.split(8)), num_steps=2)
    assert not found.noise_scale.determined
    assert found.noise_scale.value == math.inf
    assert found.gradient_norm_squared.low < 0 < found.gradient_norm_squared.high
    moved = Point()
    nn.init.constant_(moved.x, 1e-3)
    assert probe(moved, loss, list(targets.split(8)), num_steps=2).noise_scale.determined


def test_one_curvature_at_a_time_takes_the_memory_budget(monkeypatch):
    """The graphs of the halves come after those of all are gone, and have the caller's budget."""
    alive, budgets = weakref.WeakSet(), []

    class Watched(Curvature):
        def __init__(self, *args, **kwargs):
            assert not alive
            super().__init__(*args, **kwargs)
            alive.add(self)
            budgets.append(self.memory_budget)

    monkeypatch.setattr(sys.modules["lightball.probe.probe"], "Curvature", Watched)
    probe(small_net(4), LOSS, microbatches(4, 64), num_steps=3, training_examples=500, memory_budget=10**6)
    assert budgets == [10**6] * 3
