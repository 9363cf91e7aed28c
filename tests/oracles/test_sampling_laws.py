"""Which examples are seen: laws of the two kinds of sampling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightball.errors import InputError
from lightball.oracles import MinibatchStream, Quadratic, Sampling, Seeded

CPU = torch.device("cpu")


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    num_examples = draw(st.integers(1, 40))
    return Sampling(
        num_examples,
        draw(st.integers(1, num_examples)),
        draw(st.sampled_from(["shuffle", "iid"])),
        draw(st.booleans()),
    )


def epoch_of(sampling: Sampling, seed: int, epoch: int) -> list[torch.Tensor]:
    stream, first = MinibatchStream(sampling, [seed], CPU), epoch * sampling.steps_per_epoch
    return [stream(first + i)[0] for i in range(sampling.steps_per_epoch)]


@settings(deadline=None)
@given(samplings(), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch(sampling: Sampling, seed: int, epoch: int) -> None:
    batches = epoch_of(sampling, seed, epoch)
    n, b = sampling.num_examples, sampling.batch_size
    seen = torch.cat(batches)
    assert int(seen.min()) >= 0
    assert int(seen.max()) < n
    assert len(seen) == (n - n % b if sampling.drop_last else n)
    assert all(len(batch) == b for batch in batches[:-1])
    assert len(batches[-1]) == (b if sampling.drop_last or n % b == 0 else n % b)
    if sampling.kind == "shuffle":
        assert len(seen.unique()) == len(seen)


@settings(deadline=None)
@given(samplings(), st.lists(st.integers(0, 4), min_size=1, max_size=5), st.lists(st.integers(0, 200), max_size=6))
def test_jumping_is_walking(sampling: Sampling, seeds: list[int], steps: list[int]) -> None:
    jumping, walking = (MinibatchStream(sampling, seeds, CPU) for _ in range(2))
    walked = [walking(k) for k in range(max(steps, default=0) + 1)]
    for step in steps:
        assert torch.equal(jumping(step), walked[step])
    for i, seed in enumerate(seeds):
        assert torch.equal(MinibatchStream(sampling, [seed], CPU)(0)[0], walked[0][i])


@pytest.mark.parametrize("kind", ["shuffle", "iid"])
def test_order_depends_on_seed_epoch_and_batch_size(kind: str) -> None:
    def order(seed: int, epoch: int, batch_size: int) -> torch.Tensor:
        return Sampling(100, batch_size, kind).epoch(seed, epoch)  # type: ignore[arg-type]

    base = order(0, 0, 10)
    assert torch.equal(base, order(0, 0, 10))
    for other in (order(1, 0, 10), order(0, 1, 10), order(0, 0, 20)):
        assert not torch.equal(base, other)


def two_sided_p(sampling: Sampling) -> float:
    """χ² of how often each example is drawn in 200 epochs, from both sides: too uneven and too even."""
    drawn = torch.cat([sampling.epoch(seed=0, epoch=e) for e in range(200)])
    law = stats.chi2(sampling.num_examples - 1)
    counts = drawn.bincount(minlength=sampling.num_examples).double()
    statistic = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
    return float(2 * min(law.cdf(statistic), law.sf(statistic)))


def test_iid_draws_with_replacement_uniformly() -> None:
    # A right sampler fails at a fresh seed with probability 1e-4.
    assert two_sided_p(Sampling(50, 5, "iid")) > 1e-4
    # Control: drawing without replacement is too even.
    assert two_sided_p(Sampling(50, 5, "shuffle")) < 1e-4


def test_a_shuffle_is_uniform() -> None:
    # Where example 0 comes: a right sampler fails at a fresh seed with probability 1e-4.
    places = [int((Sampling(20, 5).epoch(seed, 0) == 0).nonzero()) for seed in range(2_000)]
    assert stats.chisquare(torch.tensor(places).bincount(minlength=20)).pvalue > 1e-4


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_a_batch_that_does_not_fit_is_refused(batch_size: int) -> None:
    with pytest.raises(InputError) as error:
        Sampling(10, batch_size)
    assert str(error.value) == (
        f"batch size {batch_size} does not fit the 10 training examples: choose one between 1 and 10"
    )


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError) as error:
        Sampling(10, 5, "sorted")  # type: ignore[arg-type]
    assert str(error.value) == (
        "sampling is 'sorted', but must be 'shuffle' (without replacement) or 'iid' (with replacement)"
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_gaussian_draws_jump_too(steps: list[int]) -> None:
    oracle = Seeded(Quadratic(1.0, 1.0, torch.ones(2)), steps_per_epoch=7)
    jumping, walking = oracle.stream([4, 4, 5]), oracle.stream([4, 4, 5])
    walked = [walking(k) for k in range(max(steps) + 1)]
    for step in steps:
        assert torch.equal(jumping(step), walked[step])
        assert torch.equal(walked[step][0], walked[step][1])
        assert not torch.equal(walked[step][0], walked[step][2])


def test_gaussian_noise_is_standard_normal() -> None:
    oracle = Seeded(Quadratic(1.0, 1.0, torch.ones(3)), steps_per_epoch=10)
    stream = oracle.stream(range(500))
    draws = torch.stack([stream(k) for k in range(20)]).flatten().numpy()
    # A right stream fails at a fresh seed with probability 1e-4.
    assert stats.kstest(draws, stats.norm.cdf).pvalue > 1e-4


def test_the_quadratic_and_its_gradient() -> None:
    oracle = Seeded(Quadratic(torch.tensor([1.0, 4.0]), 0.25, torch.tensor([2.0, -1.0])))
    x = {"x": oracle.init([0, 1])["x"].requires_grad_()}
    sample = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    losses, gradients = oracle.noisy_gradient(x, sample)
    assert losses.tolist() == oracle.loss(x).tolist() == [4.0, 4.0]
    (exact,) = torch.autograd.grad(losses.sum(), [x["x"]])
    torch.testing.assert_close(gradients["x"].detach(), exact + 0.5 * sample)
