"""A probe leaves no trace, also when it raises or is interrupted, and refuses bad input in one line."""

from __future__ import annotations

import random
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lightball.errors import InputError
from lightball.probe import probe, supervised

LOSS = supervised(cross_entropy)


def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
    net[1].eval()
    net[4].bias.requires_grad_(False)
    return net


def batches(count=6, size=8):
    source = torch.Generator().manual_seed(3)
    x = torch.randn(count, size, 6, generator=source)
    return list(zip(x, torch.randint(0, 3, (count, size), generator=source), strict=True))


def warm(net):
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    for batch in batches(2):
        optimizer.zero_grad()
        LOSS(net, batch).backward()
        optimizer.step()
    return optimizer


def everything(net, optimizer):
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    return {
        "tensors": {k: v.clone() for k, v in net.state_dict(keep_vars=False).items()},
        "objects": [id(p) for p in net.parameters()] + [id(p.grad) for p in net.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "requires_grad": [p.requires_grad for p in net.parameters()],
        "modes": [module.training for module in net.modules()],
        "optimizer": deepcopy(optimizer.state_dict()),
        "torch": torch.get_rng_state(),
        "python": python,
        "numpy": numpy,
        "flags": (torch.is_grad_enabled(), torch.backends.cuda.flash_sdp_enabled(), torch.is_autocast_enabled("cpu")),
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()],
    }


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


class Breaks:
    """A loss that draws numbers, and raises at its n-th call."""

    def __init__(self, at=None, error=None):
        self.at, self.error, self.calls = at, error, 0

    def __call__(self, net, batch):
        self.calls += 1
        random.random()
        np.random.rand()  # noqa: NPY002
        if self.calls == self.at:
            net.eval()
            raise self.error
        return LOSS(net, batch)


@pytest.mark.parametrize("mode", ["as is", "train", "eval"])
def test_everything_is_as_before(mode):
    net = model()
    optimizer = warm(net)
    before = everything(net, optimizer)
    found = probe(net, Breaks(), batches(), num_steps=3, buffer=optimizer, mode=mode)
    assert equal(everything(net, optimizer), before)
    assert found.mode == {"as is": "mixed"}.get(mode, mode)


@pytest.mark.parametrize("at", [1, 4, 7, 9])
@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=["raises", "interrupted"])
def test_also_where_the_loss_breaks_off(at, error):
    net = model()
    optimizer = warm(net)
    before = everything(net, optimizer)
    with pytest.raises(type(error)):
        probe(net, Breaks(at, error), batches(), num_steps=3, buffer=optimizer, memory_budget=0)
    assert equal(everything(net, optimizer), before)


def test_a_loader_draws_no_number_from_the_global_generator():
    net, data = model(), batches(1, 48)[0]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=8)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    found = probe(net, LOSS, loader, num_steps=2, mode="eval")
    assert torch.equal(torch.get_rng_state(), before)
    assert found.noise_batches == 6
    assert torch.get_rng_state().equal(before)


def test_numbers_do_not_depend_on_global_generators():
    net = model()
    torch.manual_seed(1)
    first = probe(net, LOSS, batches(), num_steps=3)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert probe(net, LOSS, batches(), num_steps=3).to_json() == first.to_json()
    assert probe(net, LOSS, batches(), num_steps=3, seed=1).to_json() != first.to_json()


def test_inside_no_grad_and_inference_mode():
    net, data = model(), batches()
    plain = probe(net, LOSS, data, num_steps=3)
    with torch.no_grad():
        assert probe(net, LOSS, data, num_steps=3).to_json() == plain.to_json()
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert probe(net, LOSS, data, num_steps=3).to_json() == plain.to_json()
        assert torch.is_inference_mode_enabled()


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (1 - x.tanh() ** 2)


def frozen():
    return model().requires_grad_(False)


def nan_gradient(net, batch):
    return LOSS(net, batch) + (net[0].weight.flatten()[0] * 0).sqrt()


def nan_batch():
    data = batches()
    data[2][0][1] = torch.nan
    return data


BAD = [
    ({"loss": lambda net, batch: net(batch[0])}, r"returns a tensor of shape \(8, 3\), but must return a scalar"),
    ({"loss": lambda net, batch: 1.0}, "returns a float, but must return a scalar"),
    ({"loss": lambda net, batch: LOSS(net, batch).detach()}, "the loss has no gradient"),
    ({"loss": lambda net, batch: Once.apply(net(batch[0])).square().mean()}, "cannot be differentiated twice: Once"),
    ({"loss": nan_gradient}, r"the gradient of parameter '0.weight' is not finite on a batch of 8 examples"),
    ({"data": nan_batch()}, r"the loss is nan on a batch of 8 examples, but must be finite"),
    ({"model": frozen()}, "no parameter with requires_grad=True"),
    ({"model": torch.sin}, "^model is a builtin_function_or_method, but must be a torch.nn.Module$"),
    ({"data": []}, "^data holds no batches, but must hold at least one$"),
    ({"data": batches()[0][0]}, r"^data is a Tensor, but must be a list of batches \(or a data loader\): cut"),
    ({"data": {"x": 1}}, "^data is a dict, but must be a list of batches"),
    ({"data": 7}, "^data is a int, but must be a list of batches"),
    ({"data": ["text", "more"]}, "a batch is a str without tensors"),
    ({"data": [(torch.zeros(0, 6), torch.zeros(0))] * 2}, "a batch has no examples"),
    ({"data": batches(1)}, "^the data are one batch of 8 examples, but noise needs at least two: give smaller"),
    ({"data": batches(1, 1)}, "^the data hold one example, but noise needs at least two"),
    ({"training_examples": 40}, "^training_examples is 40, but the data hold 48 examples: it must be the size"),
    ({"training_examples": 0}, "^training_examples is 0, but must be an integer of at least 1$"),
    ({"training_examples": 99.0}, "^training_examples is 99.0, but must be an integer"),
    ({"curvature_batches": 7}, "^curvature_batches is 7, but must be from 1 to the number of batches in data, 6: give"),
    ({"curvature_batches": 0}, "^curvature_batches is 0, but must be from 1"),
    ({"curvature_batches": []}, "^curvature_batches holds no batches"),
    ({"num_steps": 0}, "^num_steps is 0, but must be an integer of at least 1$"),
    ({"num_steps": -3}, "^num_steps is -3, but must be an integer of at least 1$"),
    ({"noise_vectors": 1}, "^noise_vectors is 1, but must be an integer of at least 2, since an interval needs two$"),
    ({"trace_vectors": True}, "^trace_vectors is True, but must be an integer of at least 2"),
    ({"curvature": "fisher"}, "curvature is 'fisher', but must be 'hessian' or 'ggn'"),
    ({"mode": "test"}, "mode is 'test', but must be"),
    ({"buffer": torch.zeros(3)}, r"^the momentum buffer is a tensor of shape \(3,\), but as one vector it must have"),
    ({"buffer": torch.full((96,), torch.inf)}, "^the momentum buffer is not finite, but must be"),
    ({"buffer": {"0.weight": torch.zeros(8, 6)}}, "the mapping has no tensor for 0.bias"),
    (
        {"buffer": torch.optim.Adam(model().parameters())},
        "^buffer is an optimizer of type Adam, but momentum",
    ),
    ({"buffer": torch.optim.SGD(model().parameters(), 0.1, maximize=True)}, "^the optimizer has maximize=True"),
    (
        {"buffer": torch.optim.SGD(model().parameters(), 0.1, momentum=0.9, dampening=1)},
        "^the optimizer has dampening 1",
    ),
    ({"last_update": torch.zeros(2, 3)}, r"^the last update is a tensor of shape \(2, 3\)"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[f"{next(iter(c))}-{i}" for i, (c, _) in enumerate(BAD)])
def test_bad_input_is_refused_in_one_line(change, message):
    arguments = {"model": model(), "loss": LOSS, "data": batches(), "num_steps": 2, "mode": "eval", **change}
    with pytest.raises(InputError, match=message) as refusal:
        probe(**arguments)
    assert "\n" not in str(refusal.value)
