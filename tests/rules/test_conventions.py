"""Conversions between conventions, driven through the real optimizers of torch, optax and Keras."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

os.environ["KERAS_BACKEND"] = "torch"

import jax
import keras
import numpy as np
import optax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightball.errors import InputError
from lightball.rules import averaged_schedule
from lightball.rules.caveats import CONVENTIONS, EMA_FORM, SUM_FORM
from lightball.rules.conventions import Setting, convert

Update = Callable[[np.ndarray, np.ndarray], np.ndarray]

NUM_STEPS = 30
CONSTANT = np.ones(NUM_STEPS)
STEPS = np.where(np.arange(NUM_STEPS) < 12, 1.0, 0.25)
HESSIAN = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, 0.3], [0.0, 0.3, 0.5]])
NOISE = np.random.default_rng(0).normal(size=(NUM_STEPS, 3))

# Powers of two, since Keras keeps its learning rate in float32.
LR, MOMENTUM = 2.0**-4, 0.875


def torch_update(setting: Setting, factors: np.ndarray) -> Update:
    parameter = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = torch.optim.SGD(
        [parameter],
        setting.lr,
        setting.momentum,
        setting.dampening,
        setting.weight_decay,
        setting.nesterov,
    )
    lrs = iter(setting.lr * factors)

    def update(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        optimizer.param_groups[0]["lr"] = next(lrs)
        parameter.data.copy_(torch.from_numpy(x))
        parameter.grad = torch.from_numpy(g)
        optimizer.step()
        return parameter.detach().numpy().copy()

    return update


def keras_update(setting: Setting, factors: np.ndarray) -> Update:
    variable = keras.Variable(np.zeros(3), dtype="float64")
    optimizer = keras.optimizers.SGD(setting.lr, setting.momentum, setting.nesterov, weight_decay=setting.weight_decay)
    lrs = iter(setting.lr * factors)

    def update(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        optimizer.learning_rate = next(lrs)
        variable.assign(x)
        optimizer.apply([torch.from_numpy(g)], [variable])
        return variable.value.detach().numpy().copy()

    return update


def optax_update(transform: Callable, setting: Setting, factors: np.ndarray) -> Update:
    """The transform after weight decay, with the schedule as optax takes it; callers enable float64."""
    schedule = setting.lr * jax.numpy.asarray(factors)
    chain = optax.chain(optax.add_decayed_weights(setting.weight_decay), transform(setting, schedule.__getitem__))
    state = chain.init(jax.numpy.zeros(3))

    def update(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        nonlocal state
        updates, state = chain.update(jax.numpy.asarray(g), state, jax.numpy.asarray(x))
        return np.asarray(optax.apply_updates(jax.numpy.asarray(x), updates))

    return update


def optax_sgd(setting: Setting, lr: Callable) -> optax.GradientTransformation:
    return optax.sgd(lr, setting.momentum, setting.nesterov)


def optax_trace(setting: Setting, lr: Callable) -> optax.GradientTransformation:
    return optax.chain(optax.trace(setting.momentum, setting.nesterov), optax.scale_by_learning_rate(lr))


def optax_ema(setting: Setting, lr: Callable) -> optax.GradientTransformation:
    return optax.chain(optax.ema(setting.momentum, debias=setting.debias), optax.scale_by_learning_rate(lr))


def literal_update(setting: Setting, factors: np.ndarray) -> Update:
    """The canonical form as it is written; SGD at momentum 0."""
    m = np.zeros(3)
    lrs = iter(setting.lr * factors)

    def update(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        nonlocal m
        m = setting.momentum * m + (1 - setting.momentum) * (g + setting.weight_decay * x)
        return x - next(lrs) * m

    return update


UPDATES = {
    "torch": torch_update,
    "keras": keras_update,
    "optax-sgd": partial(optax_update, optax_sgd),
    "optax-trace": partial(optax_update, optax_trace),
    "optax-ema": partial(optax_update, optax_ema),
    "ema": literal_update,
    "sgd": literal_update,
}


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def drive(
    setting: Setting, factors: np.ndarray = CONSTANT, noise: np.ndarray = NOISE, clip: float = np.inf
) -> np.ndarray:
    """The trajectory on a noisy quadratic, so that any difference feeds back."""
    update = UPDATES[setting.convention](setting, factors)
    x, trajectory = np.ones(3), []
    for v in noise:
        g = HESSIAN @ x + v
        x = update(x, g * min(1.0, clip / np.linalg.norm(g)))
        trajectory.append(x)
    return np.array(trajectory)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.allclose(a, b, rtol=1e-10, atol=1e-12))


def names(conversion) -> set[str]:
    return {caveat.name for caveat in conversion.caveats}


def test_every_convention_is_driven() -> None:
    assert set(UPDATES) == set(CONVENTIONS)


@pytest.mark.parametrize("to", [c for c in CONVENTIONS if c != "sgd"])
@pytest.mark.parametrize("source", [c for c in CONVENTIONS if c != "sgd"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.25])
def test_exact_conversions_keep_the_trajectory(source: str, to: str, weight_decay: float) -> None:
    setting = Setting(source, LR, MOMENTUM, weight_decay=weight_decay)
    conversion = convert(setting, to)
    keras_alone = (source == "keras") != (to == "keras")
    assert conversion.exact == (not (keras_alone and weight_decay))
    # what is not exact must differ, or the flag is an empty one
    assert same(drive(setting), drive(conversion.setting)) == conversion.exact
    follows_schedule = same(drive(setting, STEPS), drive(conversion.setting, STEPS))
    assert follows_schedule == ("keras-changing-lr" not in names(conversion))


@pytest.mark.parametrize("to", SUM_FORM)
@pytest.mark.parametrize("source", SUM_FORM)
def test_nesterov_is_kept_where_it_exists(source: str, to: str) -> None:
    setting = Setting(source, LR, MOMENTUM, nesterov=True)
    conversion = convert(setting, to)
    assert conversion.exact
    assert conversion.setting.nesterov
    assert same(drive(setting), drive(conversion.setting))
    assert not same(drive(setting), drive(replace(conversion.setting, nesterov=False)))


def test_clipped_gradients_convert_exactly() -> None:
    setting = Setting("torch", LR, MOMENTUM)
    conversion = convert(setting, "ema", clip=1.5)
    assert "clipping" in names(conversion)
    assert same(drive(setting, clip=1.5), drive(conversion.setting, clip=1.5))
    assert not same(drive(setting, clip=1.5), drive(setting))


def test_undampened_first_step_is_all_that_dampening_changes() -> None:
    setting = Setting("torch", LR, MOMENTUM, dampening=0.5)
    conversion = convert(setting, "ema")
    assert not conversion.exact
    assert names(conversion) == {"undampened-first-step", "changing-momentum"}
    assert not same(drive(setting), drive(conversion.setting))
    # after a first gradient of 0 nothing is left of it
    noise = np.vstack([-HESSIAN @ np.ones(3), NOISE])
    factors = np.ones(NUM_STEPS + 1)
    assert same(drive(setting, factors, noise), drive(conversion.setting, factors, noise))


def test_debiasing_is_a_schedule() -> None:
    setting = Setting("optax-ema", LR, MOMENTUM, debias=True)
    conversion = convert(setting, "torch")
    assert not conversion.exact
    assert "ema-debias" in names(conversion)
    assert "1/(1 − momentum^(k+1))" in conversion.schedule_rule
    assert not same(drive(setting), drive(conversion.setting))
    assert same(drive(setting), drive(conversion.setting, 1 / (1 - MOMENTUM ** np.arange(1, NUM_STEPS + 1))))


@pytest.mark.parametrize(
    "setting",
    [
        Setting("torch", LR, MOMENTUM),
        Setting("torch", LR, MOMENTUM, nesterov=True),
        Setting("keras", LR, MOMENTUM),
        Setting("optax-sgd", LR, MOMENTUM),
        Setting("optax-trace", LR, MOMENTUM, nesterov=True),
        Setting("ema", LR, MOMENTUM),
        Setting("optax-ema", LR, MOMENTUM),
    ],
    ids=str,
)
def test_matched_rate_is_the_total_displacement(setting: Setting) -> None:
    update = UPDATES[setting.convention](setting, np.ones(400))
    x = update(np.zeros(3), np.ones(3))
    for _ in range(399):
        x = update(x, np.zeros(3))
    conversion = convert(setting, "sgd")
    assert conversion.setting == Setting("sgd", conversion.effective_lr)
    np.testing.assert_allclose(-x, conversion.effective_lr, rtol=1e-10)


def test_dampened_matched_rate() -> None:
    setting = Setting("torch", LR, MOMENTUM, dampening=0.25)
    update = torch_update(setting, np.ones(400))
    x = update(update(np.zeros(3), np.zeros(3)), np.ones(3))
    for _ in range(398):
        x = update(x, np.zeros(3))
    np.testing.assert_allclose(-x, convert(setting, "sgd").effective_lr, rtol=1e-10)


@pytest.mark.parametrize("to", ["sgd", "keras"])
def test_weight_decay_is_kept_in_steady_state(to: str) -> None:
    """Without gradients the weights shrink by effective_lr · weight_decay a step, up to its square."""
    setting = Setting("torch", LR, MOMENTUM, weight_decay=2.0**-7)
    conversion = convert(setting, to)
    assert any(name.endswith("weight-decay") for name in names(conversion))
    for one in (setting, conversion.setting):
        update = UPDATES[one.convention](one, np.ones(200))
        x = np.ones(3)
        for _ in range(200):
            before, x = x, update(x, np.zeros(3))
        decay = LR / (1 - MOMENTUM) * 2.0**-7
        np.testing.assert_allclose(1 - x / before, decay, rtol=8 * decay)


def test_averaged_schedule_describes_torch_with_a_schedule() -> None:
    """What the rule for sgd says: the averaged schedule is what each gradient moves in torch."""
    setting = Setting("torch", LR, MOMENTUM)
    expected = averaged_schedule(setting.effective_lr * STEPS, MOMENTUM)
    for j in (0, 8, 11, 20):
        update, x = torch_update(setting, STEPS), np.zeros(3)
        for k in range(NUM_STEPS):
            x = update(x, np.full(3, float(k == j)))
        np.testing.assert_allclose(-x, expected[j], rtol=1e-12)


def test_keras_gradients_keep_their_own_rate() -> None:
    """Why its schedule carries over to SGD with the same factors: a velocity holds the rate it began with."""
    setting = Setting("keras", LR, MOMENTUM)
    factors = np.concatenate([STEPS, np.full(300, 0.125)])
    matched = convert(setting, "sgd").effective_lr
    for j in (0, 11, 20):
        update, x = keras_update(setting, factors), np.zeros(3)
        for k in range(len(factors)):
            x = update(x, np.full(3, float(k == j)))
        np.testing.assert_allclose(-x, matched * factors[j], rtol=1e-10)


@settings(deadline=None, derandomize=True)
@given(
    source=st.sampled_from(SUM_FORM + EMA_FORM),
    to=st.sampled_from(SUM_FORM + EMA_FORM),
    lr=st.floats(0.0, 10.0),
    momentum=st.floats(0.0, 0.99),
    weight_decay=st.floats(0.0, 1.0),
)
def test_there_and_back(source: str, to: str, lr: float, momentum: float, weight_decay: float) -> None:
    setting = Setting(source, lr, momentum, weight_decay=weight_decay)
    there = convert(setting, to)
    back = convert(there.setting, source)
    assert back.setting.lr == pytest.approx(lr, rel=1e-12)
    assert back.setting.weight_decay == pytest.approx(weight_decay, rel=1e-12)
    assert replace(back.setting, lr=lr, weight_decay=weight_decay) == setting
    assert there.effective_lr == pytest.approx(there.setting.effective_lr, rel=1e-12)
    assert back.exact == there.exact


@pytest.mark.parametrize("setting", [Setting("torch", 0.1), Setting("keras", 0.1, weight_decay=0.25)])
@pytest.mark.parametrize("to", CONVENTIONS)
def test_without_momentum_everything_is_sgd(setting: Setting, to: str) -> None:
    conversion = convert(setting, to)
    assert conversion.exact
    assert conversion.caveats == ()
    assert conversion.setting == replace(setting, convention=to)
    assert conversion.schedule_rule == "Keep the schedule: the same factors at every step."


def test_to_itself_changes_nothing() -> None:
    setting = Setting("torch", 0.1, 0.9, dampening=0.5, weight_decay=1e-4)
    conversion = convert(setting, "torch")
    assert conversion.setting is setting
    assert conversion.exact
    assert conversion.caveats == ()


def test_the_usual_case() -> None:
    conversion = convert(Setting("torch", 0.1, 0.9, weight_decay=1e-4), "sgd", clip=1.0)
    assert conversion.effective_lr == pytest.approx(1.0)
    assert conversion.setting.weight_decay == 1e-4
    assert not conversion.exact
    assert names(conversion) == {"matched-rate", "changing-momentum", "weight-decay", "clipping"}
    assert "averaged_schedule" in conversion.schedule_rule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Setting("tensorflow", 0.1),
            f"unknown convention 'tensorflow'; valid are {', '.join(CONVENTIONS)}",
        ),
        (
            lambda: convert(Setting("torch", 0.1), "adam"),
            f"unknown convention 'adam'; valid are {', '.join(CONVENTIONS)}",
        ),
        (
            lambda: Setting("torch", 0.1, 1.5),
            "momentum is 1.5; required is 0 ≤ momentum < 1; use 0 for SGD, 0.9 for the usual momentum",
        ),
        (
            lambda: Setting("sgd", 0.1, 0.9),
            "momentum is 0.9 in convention 'sgd', which has none; required is momentum 0.0, or one of torch, "
            "keras, optax-sgd, optax-trace, ema, optax-ema",
        ),
        (
            lambda: Setting("keras", 0.1, 0.9, dampening=0.5),
            "dampening is 0.5 in convention 'keras', which has none; required is dampening 0.0, or one of torch",
        ),
        (
            lambda: Setting("ema", 0.1, 0.9, nesterov=True),
            "nesterov is True in convention 'ema', which has none; required is nesterov False, or one of "
            "torch, keras, optax-sgd, optax-trace",
        ),
        (
            lambda: Setting("torch", 0.1, 0.9, debias=True),
            "debias is True in convention 'torch', which has none; required is debias False, or one of optax-ema",
        ),
        (
            lambda: convert(Setting("torch", 0.1, 0.9, nesterov=True), "ema"),
            "nesterov cannot be written in convention 'ema'; required is nesterov=False or a target with "
            "Nesterov momentum: torch, keras, optax-sgd, optax-trace, or sgd for the momentum-free match",
        ),
        (
            lambda: convert(Setting("torch", 0.1, 0.9), "sgd", clip=0.0),
            "clip is 0; required is a finite norm > 0, or none if the run does not clip",
        ),
    ],
)
def test_refusals(make: Callable, message: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == message
