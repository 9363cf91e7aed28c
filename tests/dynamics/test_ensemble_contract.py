"""Contract: a replica moves as a model of its own under `torch.optim.SGD` does.

Tolerances are shares of the distance that the replica has moved. In float32 each step adds errors of about 1e-7
of a gradient, which the loss surface may amplify: over these 50 steps at most 4e-6 was seen, and 3e-5 is allowed
(with smooth activations, see `make_oracle`). In float64 at most 3e-15 was seen, and 1e-12 is allowed. The negative
controls, β off by 0.01 and one example out of 1,000 or more swapped, must exceed the float32 tolerance five times.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightball.dynamics import Ensemble, Stepper, compiler_available
from lightball.oracles import MinibatchOracle, Sampling
from lightball.rules import Hyperparameters, canonical, schedules

FLOAT32, FLOAT64 = 3e-5, 1e-12
NUM_STEPS = 50
DECAY, COSINE = 0.01, 60
# (seed, effective lr, momentum): two pairs and a single one
REPLICAS = [(3, 0.1, 0.0), (3, 0.1, 0.9), (5, 0.05, 0.9), (5, 0.2, 0.0), (7, 0.1, 0.5)]
# 4 batches of 60 and one of 10
INCOMPLETE = Sampling(250, 60, drop_last=False)

CASES = [
    pytest.param("digits", Sampling(250, 8), id="digits, batch 8"),
    pytest.param("digits", INCOMPLETE, id="digits, incomplete last batch"),
    pytest.param("digits", Sampling(250, 60, "iid", drop_last=False), id="digits, iid, incomplete last batch"),
    pytest.param("digits-conv", Sampling(100, 24, drop_last=False), id="conv, incomplete last batch"),
    pytest.param("digits-conv", Sampling(250, 8, "iid"), id="conv, iid, batch 8"),
]
needs_compiler = pytest.mark.skipif(not compiler_available(), reason="torch.compile needs a C++ compiler")


def ensemble_of(oracle: MinibatchOracle, replicas: list[tuple[int, float, float]], **options: Any) -> Ensemble:
    seeds, lr, momentum = zip(*replicas, strict=True)
    hyper = canonical(*(torch.tensor(v, dtype=torch.float64) for v in (lr, momentum)), DECAY)
    ensemble = Ensemble(oracle, seeds, hyper, schedules.cosine(COSINE), **options)
    ensemble.advance(NUM_STEPS)
    return ensemble


def distance(oracle: MinibatchOracle, ensemble: Ensemble, index: int, seed: int, plain: dict[str, Tensor]) -> float:
    """Largest difference of a coordinate, as a share of the largest displacement of one."""
    start = oracle.init([seed])
    difference = max(float((ensemble.x[n][index] - p).abs().max()) for n, p in plain.items())
    return difference / max(float((p - start[n][0]).abs().max()) for n, p in plain.items())


def worst(oracle, ensemble, replicas, plain_loop, **options) -> float:  # type: ignore[no-untyped-def]
    def plain(seed: int, lr: float, momentum: float) -> dict[str, Tensor]:
        settings = {"weight_decay": DECAY, "cosine": COSINE} | options
        return plain_loop(oracle, seed, lr, momentum, NUM_STEPS, **settings)[0]

    return max(distance(oracle, ensemble, i, replica[0], plain(*replica)) for i, replica in enumerate(replicas))


@pytest.mark.parametrize(("task", "sampling"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.float64, FLOAT64)])
def test_is_torch_sgd(task, sampling, dtype, tolerance, make_oracle, plain_loop) -> None:  # type: ignore[no-untyped-def]
    oracle = make_oracle(task, sampling, dtype)
    assert worst(oracle, ensemble_of(oracle, REPLICAS), REPLICAS, plain_loop) < tolerance


@pytest.mark.parametrize("task", ["digits", "digits-conv"])
@pytest.mark.parametrize("replica", [REPLICAS[0], REPLICAS[2]])
def test_one_replica_is_torch_sgd(task, replica, make_oracle, plain_loop) -> None:  # type: ignore[no-untyped-def]
    oracle = make_oracle(task, Sampling(100, 24, drop_last=False))
    assert worst(oracle, ensemble_of(oracle, [replica]), [replica], plain_loop) < FLOAT32


@needs_compiler
@pytest.mark.parametrize(
    ("task", "sampling"),
    [pytest.param("digits", INCOMPLETE, id="digits"), pytest.param("digits-conv", Sampling(250, 8, "iid"), id="conv")],
)
def test_compiled_is_torch_sgd(task, sampling, make_oracle, plain_loop) -> None:  # type: ignore[no-untyped-def]
    oracle = make_oracle(task, sampling)
    stepper = Stepper(oracle, compile_width=len(REPLICAS))
    assert worst(oracle, ensemble_of(oracle, REPLICAS, stepper=stepper), REPLICAS, plain_loop) < FLOAT32


@needs_compiler
def test_one_compiled_stepper_takes_rates_of_both_dtypes() -> None:
    from lightball.oracles import Quadratic, Seeded

    oracle = Seeded(Quadratic(1.0, 0.01, torch.ones(2)))
    stepper = Stepper(oracle, compile_width=2)
    ends = []
    for dtype in (torch.float32, torch.float64):
        hyper = canonical(torch.tensor([0.1, 0.2], dtype=dtype), torch.tensor([0.0, 0.5], dtype=dtype))
        ensemble = Ensemble(oracle, [0, 1], hyper, stepper=stepper)
        ensemble.advance(10)
        ends.append(ensemble.x["x"])
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("task", ["digits", "digits-conv"])
def test_controls_exceed_the_tolerance(task, make_oracle, plain_loop) -> None:  # type: ignore[no-untyped-def]
    oracle = make_oracle(task, Sampling(100, 24, drop_last=False))
    ensemble = ensemble_of(oracle, REPLICAS)
    for index, (seed, lr, momentum) in enumerate(REPLICAS):
        for beta, swap in ((momentum + 0.01, False), (momentum, True)):
            settings = {"weight_decay": DECAY, "cosine": COSINE, "swap": swap}
            wrong, _ = plain_loop(oracle, seed, lr, beta, NUM_STEPS, **settings)
            assert distance(oracle, ensemble, index, seed, wrong) > 5 * FLOAT32, (index, beta, swap)


def test_numbers_apply_to_all_and_are_not_rounded_to_float32(make_oracle, plain_loop) -> None:  # type: ignore[no-untyped-def]
    oracle = make_oracle("digits", INCOMPLETE, torch.float64)
    ensemble = Ensemble(oracle, [3, 5], Hyperparameters(lr=0.013, momentum=0.9, weight_decay=DECAY))
    ensemble.advance(NUM_STEPS)
    replicas = [(3, 0.13, 0.9), (5, 0.13, 0.9)]
    assert worst(oracle, ensemble, replicas, plain_loop, cosine=None) < FLOAT64


def test_a_parameter_that_nothing_uses_stays() -> None:
    def factory() -> torch.nn.Module:
        model = torch.nn.Linear(3, 2)
        model.register_parameter("spare", torch.nn.Parameter(torch.ones(4)))
        return model

    inputs = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    oracle = MinibatchOracle(
        factory, lambda outputs, targets: (outputs - targets).square().sum(-1), inputs, inputs[:, :2], Sampling(10, 5)
    )
    ensemble = Ensemble(oracle, [0, 1], canonical(0.1, 0.9))
    ensemble.advance(4)
    assert torch.equal(ensemble.x["spare"], torch.ones(2, 4))
    assert (ensemble.x["weight"] != oracle.init([0, 1])["weight"]).all()
