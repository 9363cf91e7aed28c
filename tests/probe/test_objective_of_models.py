"""Losses, gradients and curvature of all kinds of models, and what is told of input that cannot be used."""

from __future__ import annotations

import dataclasses
import random
from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch
from curved import LOSS, dense_hessian, digit_batches, perceptron
from torch import nn

from lightball.errors import InputError
from lightball.probe.batches import num_examples
from lightball.probe.curvature import Curvature
from lightball.probe.objective import Objective, supervised
from lightball.probe.scope import unchanged

CROSS_ENTROPY = supervised(nn.functional.cross_entropy)


class Attention(nn.Module):
    """One head over the pixels' rows, by torch's scaled_dot_product_attention."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 12), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x.reshape(-1, 1, 8, 8)).chunk(3, dim=-1)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).mean(dim=(1, 2)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(8, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(x.reshape(-1, 8, 8))[0][:, -1])


class Tied(nn.Module):
    """One matrix as first and last layer, reached by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 3, bias=False), nn.Linear(64, 3, bias=False)
        self.outer.weight = self.inner.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.tanh(x @ self.inner.weight.T) @ self.inner.weight)


def normalised(norm: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3, stride=2), norm, nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
    )


MODELS = {
    "GroupNorm": lambda: normalised(nn.GroupNorm(2, 4)),
    "LayerNorm": lambda: normalised(nn.LayerNorm([4, 3, 3])),
    "BatchNorm": lambda: normalised(nn.BatchNorm2d(4)),
    "dropout": lambda: nn.Sequential(nn.Linear(64, 6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 3)),
    "attention": Attention,
    "multi-head attention": lambda: nn.Sequential(
        nn.Unflatten(1, (8, 8)),
        nn.TransformerEncoderLayer(8, 2, 6, batch_first=True, dropout=0.3),
        nn.Flatten(),
        nn.Linear(64, 3),
    ),
    "recurrent": Recurrent,
    "tied": Tied,
    "weight norm": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(64, 4)), nn.Tanh(), nn.Linear(4, 3)
    ),
    "weight norm by a hook": lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(64, 4)), nn.Tanh(), nn.Linear(4, 3)),
}


def batches_of_three() -> list:
    return [(inputs, targets % 3) for inputs, targets in digit_batches(20, 12)]


def made(name: str) -> nn.Module:
    torch.manual_seed(1)
    model = MODELS[name]().double()
    with torch.no_grad():  # so that normalisations have something to do
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
    return model


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_curvature_is_the_derivative_of_the_gradient(name: str, mode: str) -> None:
    model, batches = made(name), batches_of_three()
    objective = Objective(model, CROSS_ENTROPY, mode=mode)
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(2, objective.dim, dtype=torch.float64, generator=generator)
    weights = [20 / 32, 12 / 32]

    def gradient(at: Objective) -> torch.Tensor:
        return sum(w * at.loss_and_gradient(b, i)[1] for i, (w, b) in enumerate(zip(weights, batches, strict=True)))

    with unchanged(model):
        for budget in (2**30, 0):
            found = Curvature(objective, batches, memory_budget=budget)(vectors)
            for vector, image in zip(vectors, found, strict=True):
                step = 1e-5 / vector.norm()
                sides = [gradient(objective.shifted(sign * step * vector)) for sign in (1, -1)]
                expected = (sides[0] - sides[1]) / (2 * step)
                torch.testing.assert_close(image, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
        # Products with the Gauss–Newton matrix are symmetric and positive.
        images = Curvature(objective, batches, "ggn")(vectors)
        gram = images @ vectors.T
        torch.testing.assert_close(gram, gram.T, rtol=1e-9, atol=1e-12)
        assert (gram.diag() > 0).all()


def test_gradient_is_that_of_backward() -> None:
    for name in ("GroupNorm", "LayerNorm", "BatchNorm", "attention", "recurrent", "tied"):
        model, (batch, _) = made(name), batches_of_three()
        value, gradient = Objective(model, CROSS_ENTROPY).loss_and_gradient(batch)
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        assert value == pytest.approx(loss.item(), rel=1e-14)
        expected = torch.cat([p.grad.flatten() for p in model.parameters()])
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)


def test_batch_statistics_in_training_and_frozen_ones_in_evaluation() -> None:
    model, (batch, _) = made("BatchNorm"), batches_of_three()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = {
        mode: Objective(model, CROSS_ENTROPY, mode=mode).loss_and_gradient(batch)[0] for mode in ("train", "eval")
    }
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        assert losses["eval"] == pytest.approx(float(CROSS_ENTROPY(model.eval(), batch)), rel=1e-14)
        assert losses["train"] == pytest.approx(float(CROSS_ENTROPY(made("BatchNorm"), batch)), rel=1e-14)
    assert losses["train"] != pytest.approx(losses["eval"], rel=1e-3)
    frozen = nn.Sequential(model.eval(), nn.Dropout(0.0)).train()
    model.eval()
    as_is = Objective(frozen, CROSS_ENTROPY).loss_and_gradient(batch)[0]
    assert as_is == losses["eval"], "modules stay in modes of their own"
    assert frozen.training
    assert not model.training


def test_dropout_masks_are_fixed_by_seed_and_number() -> None:
    model, (batch, _) = made("dropout"), batches_of_three()

    def loss(seed: int, number: int) -> float:
        return Objective(model, CROSS_ENTROPY, seed=seed).loss_and_gradient(batch, number)[0]

    assert loss(0, 0) == loss(0, 0)
    assert len({loss(0, 0), loss(1, 0), loss(0, 1)}) == 3


def test_both_curvatures_and_the_gradient_see_the_same_masks() -> None:
    # With these outputs the loss is exactly quadratic in them, and they are linear in the weights: GGN is the Hessian.
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 1)).double()
    inputs, targets = digit_batches(30)[0]
    objective = Objective(model, supervised(nn.functional.mse_loss))
    batch = (inputs, targets.double()[:, None])
    basis = torch.eye(objective.dim, dtype=torch.float64)
    matrices = [Curvature(objective, [batch, batch], kind)(basis) for kind in ("hessian", "ggn")]
    torch.testing.assert_close(*matrices, rtol=1e-12, atol=1e-14)
    step = torch.ones(objective.dim, dtype=torch.float64)
    sides = [objective.shifted(sign * step) for sign in (1, -1)]
    change = sum(
        (sides[0].loss_and_gradient(batch, n)[1] - sides[1].loss_and_gradient(batch, n)[1]) / 4 for n in (0, 1)
    )
    torch.testing.assert_close(matrices[0] @ step, change, rtol=1e-10, atol=1e-12)


def test_half_precision_weights_are_computed_in_single() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        model = made("BatchNorm").to(dtype)
        exact = made("BatchNorm").to(dtype).float()
        (inputs, targets), _ = batches_of_three()
        objective = Objective(model, CROSS_ENTROPY)
        assert objective.dtype == torch.float32
        value, gradient = objective.loss_and_gradient((inputs.to(dtype), targets))
        expected = Objective(exact, CROSS_ENTROPY).loss_and_gradient((inputs.to(dtype).float(), targets))
        assert value == expected[0]
        assert torch.equal(gradient, expected[1])
        product = Curvature(objective, [(inputs, targets)])(gradient[None])
        assert product.dtype == torch.float32
        assert product.isfinite().all()
        assert {p.dtype for p in model.parameters()} == {dtype}
    double = Objective(perceptron(4).float(), LOSS, dtype=torch.float64)
    value, _ = double.loss_and_gradient(digit_batches(9)[0])
    assert value == pytest.approx(Objective(perceptron(4), LOSS).loss_and_gradient(digit_batches(9)[0])[0], rel=1e-6)


def test_autocast_around_does_not_reach_in() -> None:
    model, (batch, _) = perceptron(4).float(), digit_batches(9, 1)
    expected = Objective(model, LOSS).loss_and_gradient(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        found = Objective(model, LOSS).loss_and_gradient(batch)
    with torch.inference_mode():
        inferred = Objective(model, LOSS).loss_and_gradient(batch)[0]
    assert found[0] == expected[0] == inferred
    assert torch.equal(found[1], expected[1])


def test_frozen_and_tied_parameters_count_once_or_not_at_all() -> None:
    tied = Objective(made("tied"), CROSS_ENTROPY)
    assert tied.names == ("inner.weight",)
    assert tied.dim == 192
    model, batches = perceptron(5), digit_batches(30)
    model[0].weight.requires_grad_(False)
    objective = Objective(model, LOSS)
    assert objective.names == ("0.bias", "2.weight", "2.bias")
    found = Curvature(objective, batches)(torch.eye(objective.dim, dtype=torch.float64))
    torch.testing.assert_close(found, dense_hessian(model, batches), rtol=0, atol=1e-7)
    assert not model[0].weight.requires_grad
    model.requires_grad_(False)
    with pytest.raises(InputError, match=r"no parameter with requires_grad=True.*unfreeze"):
        Objective(model, LOSS)


def test_activation_checkpointing_repeats_passes_with_the_same_weights_and_masks() -> None:
    class Checkpointed(nn.Module):
        def __init__(self, inner: nn.Module, on: bool) -> None:
            super().__init__()
            self.inner, self.on = inner, on

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=False) if self.on else self.inner(x)

    batches = batches_of_three()
    products = []
    for on in (True, False):
        objective = Objective(Checkpointed(made("dropout"), on), CROSS_ENTROPY).shifted(
            torch.full((411,), 0.01).double()
        )
        vectors = torch.ones(2, objective.dim, dtype=torch.float64)
        vectors[1, ::2] = -1
        product = Curvature(objective, batches)
        products.append(product(vectors))
        torch.testing.assert_close(product(vectors), products[-1])
    torch.testing.assert_close(*products, rtol=1e-12, atol=1e-14)


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_wrappers_for_parallel_training_are_looked_through(process_group, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = made("BatchNorm"), batches_of_three()
    expected = Objective(made("BatchNorm"), CROSS_ENTROPY).loss_and_gradient(batches[0])
    wrapped = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9)

    def train() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(wrapped(batches[0][0]), batches[0][1]).backward()
        optimizer.step()

    def communicate(*_: object) -> None:
        raise AssertionError("its forward pass waits for the other processes, which do not probe")

    with unchanged(wrapped, optimizer), monkeypatch.context() as patch:
        patch.setattr(nn.parallel.DistributedDataParallel, "forward", communicate)
        objective = Objective(wrapped, CROSS_ENTROPY)
        found = objective.loss_and_gradient(batches[0])
        Curvature(objective, batches)(found[1][None])
    assert found[0] == expected[0]
    assert torch.equal(found[1], expected[1])
    for _ in range(2):
        train()  # its hooks would complain of a backward pass that did not reach them
    buffers = {name: optimizer.state[p]["momentum_buffer"] for name, p in wrapped.named_parameters()}
    names = dict(model.named_parameters())
    assert torch.equal(objective.flat(buffers), torch.cat([buffers[f"module.{n}"].flatten() for n in names]))


def test_compiled_models_run_uncompiled() -> None:
    model, (batch, _) = made("GroupNorm"), batches_of_three()
    expected = Objective(model, CROSS_ENTROPY).loss_and_gradient(batch)[1]
    compiled = torch.compile(model, backend="eager")
    objective = Objective(compiled, CROSS_ENTROPY)
    assert objective.names == Objective(model, CROSS_ENTROPY).names
    assert torch.equal(objective.loss_and_gradient(batch)[1], expected)


Pair = namedtuple("Pair", ["inputs", "targets"])


@dataclasses.dataclass
class Record:
    inputs: torch.Tensor
    targets: torch.Tensor


class Encoding(UserDict):
    """Items as attributes, like the batches of Hugging Face tokenizers."""

    def __getattr__(self, name: str) -> torch.Tensor:
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


def test_batches_of_any_nesting() -> None:
    model, (inputs, targets) = perceptron(4), digit_batches(7)[0]

    def loss_of(read):
        return lambda model, batch: nn.functional.cross_entropy(model(read(batch)[0]), read(batch)[1])

    single = inputs.float()
    named = {"inputs": single, "targets": targets, "note": "kept"}
    forms = [
        ((single, targets), lambda b: b),
        ([single, targets], lambda b: b),
        (named, lambda b: (b["inputs"], b["targets"])),
        (Encoding(named), lambda b: (b.inputs, b.targets)),
        (Pair(single, targets), lambda b: (b.inputs, b.targets)),
        (Record(single, targets), lambda b: (b.inputs, b.targets)),
        (("some text", {"deep": [single, (targets,)]}), lambda b: (b[1]["deep"][0], b[1]["deep"][1][0])),
    ]
    expected = Objective(model, LOSS).loss_and_gradient((single.double(), targets))[1]
    for batch, read in forms:
        assert num_examples(batch) == 7
        assert torch.equal(Objective(model, loss_of(read)).loss_and_gradient(batch)[1], expected)
    assert named["inputs"] is single
    assert single.dtype == torch.float32


def test_shifted_leaves_the_model_and_adds_up() -> None:
    model, (batch, _) = perceptron(4), digit_batches(9, 1)
    objective = Objective(model, LOSS)
    before = [p.clone() for p in model.parameters()]
    step = torch.full((objective.dim,), 0.01, dtype=torch.float64)
    twice = objective.shifted(step).shifted(step).loss_and_gradient(batch)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.02
    expected = Objective(model, LOSS).loss_and_gradient(batch)
    assert twice[0] == pytest.approx(expected[0], rel=1e-12)
    torch.testing.assert_close(twice[1], expected[1], rtol=1e-10, atol=1e-14)


def test_flat_and_parts_are_inverse_and_names_must_fit() -> None:
    objective = Objective(perceptron(4), LOSS)
    vectors = torch.randn(2, 3, objective.dim, dtype=torch.float64)
    parts = objective.parts(vectors)
    assert [part.shape[2:] for part in parts] == [p.shape for p in objective.parameters]
    assert torch.equal(torch.cat([part.flatten(2) for part in parts], dim=2), vectors)
    named = dict(zip(objective.names, objective.parts(vectors[0, 0]), strict=True))
    assert torch.equal(objective.flat(named), vectors[0, 0])
    assert torch.equal(objective.flat({f"module.{name}": value for name, value in named.items()}), vectors[0, 0])
    assert not objective.flat([None] * 4).any()
    with pytest.raises(InputError, match=r"no tensor for 2\.bias"):
        objective.flat({name: value for name, value in named.items() if name != "2.bias"})
    with pytest.raises(InputError, match="has not, head"):
        objective.flat({**named, "head": vectors})
    with pytest.raises(InputError, match=r"'0\.weight' has shape \(4,\), .* \(4, 64\)"):
        objective.flat({**named, "0.weight": torch.ones(4)})
    with pytest.raises(InputError, match="1 tensors are given for 4"):
        objective.flat([None])


def test_losses_that_cannot_be_used_are_told_in_one_line() -> None:
    model, (batch, _) = perceptron(4), digit_batches(9, 1)

    def told(loss, batch=batch) -> str:
        with pytest.raises(InputError) as caught:
            Objective(model, loss).loss_and_gradient(batch)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    each = nn.functional.cross_entropy
    assert "shape (9,), but must return a scalar" in told(lambda m, b: each(m(b[0]), b[1], reduction="none"))
    assert "returns a NoneType" in told(lambda m, b: None)
    assert "returns a float" in told(lambda m, b: LOSS(m, b).item())
    assert "no gradient" in told(lambda m, b: LOSS(m, b).detach())
    assert "no gradient" in told(lambda m, b: b[0].mean())
    assert "the loss is nan on a batch of 9 examples" in told(LOSS, (batch[0] * float("nan"), batch[1]))
    assert "the loss is inf" in told(lambda m, b: LOSS(m, b) / 0)
    root = told(lambda m, b: LOSS(m, b) + (m[0].bias * 0).abs().sum().sqrt())
    assert "the gradient of parameter '0.bias' is not finite" in root
    assert "no examples" in told(LOSS, (batch[0][:0], batch[1][:0]))
    assert "without tensors" in told(LOSS, ("a", "b"))
    assert "without axes" in told(LOSS, (torch.tensor(1.0), batch[1]))
    assert "needs (inputs, targets)" in told(LOSS, {"inputs": batch[0]})
    with pytest.raises(InputError, match="mode is 'test'"):
        Objective(model, LOSS, mode="test")
    with pytest.raises(InputError, match="run the model on a batch first"):
        Objective(nn.LazyLinear(3), LOSS)


def test_a_module_called_module_keeps_its_names() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 1)

    objective = Objective(Outer(), LOSS)
    named = {"module.weight": torch.ones(1, 2), "module.bias": torch.zeros(1)}
    assert objective.flat(named).tolist() == [1, 1, 0]


def test_global_generators_are_not_drawn_from_and_are_fixed_inside() -> None:
    drawn = []

    def loss(model: nn.Module, batch: tuple) -> torch.Tensor:
        drawn.append((random.random(), np.random.rand(), float(torch.rand(()))))  # noqa: NPY002
        return LOSS(model, batch)

    objective, batches = Objective(perceptron(4), loss), digit_batches(9, 3)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    expected = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
    for _ in range(2):
        objective.loss_and_gradient(batches[0])
        Curvature(objective, batches, memory_budget=0)(torch.ones(1, objective.dim))
    assert drawn[0] == drawn[1] == drawn[3] == drawn[4] != drawn[2]
    assert random.getstate() == expected[0]
    assert np.random.get_state()[1].tolist() == expected[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), expected[2])
