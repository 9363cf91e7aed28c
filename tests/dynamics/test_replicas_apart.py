"""Replicas share a program and nothing else; the two arms of a pair share weights and draws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightball.dynamics import Ensemble, Stepper
from lightball.errors import InputError
from lightball.oracles import MinibatchOracle, Quadratic, Sampling, Seeded
from lightball.rules import Hyperparameters, canonical

TASKS = ["digits", "digits-conv"]
# Odd sizes, so that matrices of one replica begin anywhere in memory.
SAMPLING = Sampling(101, 7)
REPLICAS = [(1, 0.1, 0.0), (1, 0.1, 0.9), (2, 0.1, 0.9), (1, 0.1, 0.9), (4, 0.2, 0.5)]


def moved(oracle: MinibatchOracle, replicas: list[tuple[int, float, float]], num_steps: int = 20) -> Ensemble:
    seeds, lr, momentum = zip(*replicas, strict=True)
    ensemble = Ensemble(oracle, seeds, canonical(torch.tensor(lr), torch.tensor(momentum)))
    ensemble.advance(num_steps)
    return ensemble


@pytest.mark.parametrize("task", TASKS)
def test_company_does_not_matter(task, make_oracle) -> None:  # type: ignore[no-untyped-def]
    oracle = make_oracle(task, SAMPLING)
    together = moved(oracle, REPLICAS)
    start = oracle.init([seed for seed, *_ in REPLICAS])
    for members in ([2], [4, 1, 2]):
        alone = moved(oracle, [REPLICAS[i] for i in members])
        for name, p in alone.x.items():
            # as in the contract with torch: a share of the displacement
            allowed = 3e-5 * float((p - start[name][members]).abs().max())
            torch.testing.assert_close(p, together.x[name][members], rtol=0, atol=allowed)


@pytest.mark.parametrize("task", TASKS)
def test_equal_replicas_are_bit_equal_and_others_are_not(task, make_oracle) -> None:  # type: ignore[no-untyped-def]
    ensemble = moved(make_oracle(task, SAMPLING), REPLICAS)
    for p in (*ensemble.x.values(), *(s["momentum_buffer"] for s in ensemble.states.values())):
        assert torch.equal(p[1], p[3])
        for other in (0, 2, 4):
            assert not torch.equal(p[1], p[other])


def test_a_pair_starts_alike_and_sees_the_same_data(make_oracle) -> None:  # type: ignore[no-untyped-def]
    oracle = make_oracle("digits", SAMPLING)
    seeds = [1, 1, 2]
    for p in oracle.init(seeds).values():
        assert torch.equal(p[0], p[1])
    assert not torch.equal(oracle.init(seeds)["0.weight"][0], oracle.init(seeds)["0.weight"][2])
    stream = oracle.stream(seeds)
    for step in range(2 * oracle.steps_per_epoch):
        assert torch.equal(stream(step)[0], stream(step)[1])
        assert not torch.equal(stream(step)[0], stream(step)[2])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_pieces_add_up_to_the_whole(pieces: list[int]) -> None:
    oracle = Seeded(Quadratic(torch.tensor([1.0, 2.0]), 0.25, torch.ones(2)), steps_per_epoch=5)
    hyper = canonical(0.1, torch.tensor([0.0, 0.9]))
    stepper = Stepper(oracle)
    whole, parts = (Ensemble(oracle, [3, 3], hyper, stepper=stepper) for _ in range(2))
    whole.advance(sum(pieces))
    for piece in pieces:
        parts.advance(piece)
    assert whole.step == parts.step == sum(pieces)
    assert torch.equal(whole.x["x"], parts.x["x"])


def test_hyperparameters_of_another_length_are_refused() -> None:
    oracle = Seeded(Quadratic(1.0, 0.25, torch.ones(2)))
    with pytest.raises(InputError) as error:
        Ensemble(oracle, [0, 1, 2], canonical(torch.full((2,), 0.1)))
    assert str(error.value) == (
        "lr has shape (2,), but there are 3 replicas: give a number for all of them or a tensor of shape (3,)"
    )
    with pytest.raises(InputError, match=r"^momentum is 1; required is 0 ≤ momentum < 1"):
        Ensemble(oracle, [0], Hyperparameters(0.1, 1.0))
