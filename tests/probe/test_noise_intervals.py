"""Intervals of the noise hold the truth, also where a few examples carry it; nothing is confident without reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gradient_tables import Table, table

from lightball.errors import InputError
from lightball.probe.estimates import Estimate, mean_estimate, ratio_estimate
from lightball.probe.noise import gradient_sample


def products(vectors, images):
    return (vectors * images).sum(dim=1).numpy()


def holds(estimate: Estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


def all_examples(known: Table) -> int:
    return len(known.gradients)


# A quarter of the training set is not enough late in training: the docstring of GradientSample.trace says so.
CASES = [
    ("start", 8, 256),
    ("middle", 32, 256),
    ("late", 8, 1072),
    ("late", 64, 1024),
]


@pytest.mark.parametrize(("phase", "count", "examples"), CASES)
def test_trace_and_noise_curvature_are_in_their_intervals(phase, count, examples):
    known = table(phase)
    traces, curvatures, norms = [], [], []
    for seed in range(100):
        sample = gradient_sample(known, known.batches(count, examples, seed), 8, seed=seed)
        trace = sample.trace(all_examples(known))
        curvature = sample.contracted(trace, products(sample.vectors, sample.vectors @ known.hessian))
        norm = sample.quadratic(sample.gradient, sample.vectors, trace, all_examples(known))
        traces.append(holds(trace, known.covariance_trace))
        curvatures.append(holds(curvature, known.noise_curvature))
        norms.append(holds(norm, float(known.mean @ known.mean)))
    assert sum(traces) >= 90
    assert sum(curvatures) >= 90
    assert sum(norms) >= 88  # from 7 noise vectors; 91 to 95 % over 300 seeds


def test_intervals_are_not_wide_for_nothing():
    known = table("start")
    sample = gradient_sample(known, known.batches(64, 1024, 0), 8)
    trace = sample.trace(all_examples(known))
    assert trace.high / trace.low < 1.4
    curvature = sample.contracted(trace, products(sample.vectors, sample.vectors @ known.hessian))
    assert curvature.high / curvature.low < 3


@pytest.mark.parametrize("sizes", [(16,) * 12, (1, 40, 3, 25, 8, 64, 2, 17)])
def test_contrasts_are_the_sum_of_squares_whatever_the_sizes(sizes):
    known = table("middle")
    batches = list(known.batches(1, sum(sizes), 3)[0].split(list(sizes)))
    sample = gradient_sample(known, batches, 4)
    mean = known.gradients[torch.cat(batches)].mean(dim=0)
    assert torch.allclose(sample.gradient, mean, rtol=1e-12, atol=1e-14)
    deviations = torch.stack([known.gradients[b].mean(dim=0) - mean for b in batches])
    squares = (torch.tensor(sizes) * deviations.square().sum(dim=1)).sum()
    assert sample.contributions.sum() == pytest.approx(float(squares), rel=1e-11)


def test_unequal_batches_leave_no_bias():
    known = table("middle")
    order = [torch.randperm(1078, generator=torch.Generator().manual_seed(s)) for s in range(400)]
    sizes = [2] * 10 + [100]
    found = [gradient_sample(known, list(o[:120].split(sizes)), 4).trace(1078).value for o in order]
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - known.covariance_trace) < 3 * error
    assert error < 0.05 * known.covariance_trace


def test_noise_vectors_have_the_sample_covariance_and_hold_all_batches():
    known = table("start")
    batches = known.batches(12, 240, 0)
    means = torch.stack([known.gradients[b].mean(dim=0) for b in batches])
    covariance = 20 * (means - means.mean(dim=0)).T @ (means - means.mean(dim=0)) / 11
    outer = torch.zeros_like(covariance)
    for seed in range(600):
        sample = gradient_sample(known, batches, 3, seed=seed)
        assert set(sample.groups) == {0, 1, 2}
        outer += sample.vectors.T @ sample.vectors / 3 / 600
    assert (outer - covariance).norm() < 0.1 * covariance.norm()
    assert float(outer.trace()) == pytest.approx(float(covariance.trace()), rel=0.05)
    each = gradient_sample(known, batches, 3)
    dropped = gradient_sample(known, [*batches[:5], batches[5][1:], *batches[6:]], 3)
    assert not torch.allclose(each.vectors.sum(dim=0), dropped.vectors.sum(dim=0))


def test_vectors_do_not_share_their_errors():
    """Combinations of the same batches would: their spread says nothing about sampling."""
    known = table("middle")
    pairs = np.array(
        [
            gradient_sample(known, known.batches(8, 64, seed), 2, seed=seed).vectors.square().sum(dim=1).numpy()
            for seed in range(400)
        ]
    )
    assert abs(np.corrcoef(np.log(pairs.T))[0, 1]) < 0.15


def test_a_zero_gradient_determines_no_noise_scale():
    """The squared norm of a mean gradient is tr Σ/N too large; taking it as it is makes a confident scale of N."""
    known = table("start")
    centred = Table(known.gradients - known.mean, known.hessian)
    norms, naive, determined, held = [], [], 0, 0
    for seed in range(200):
        sample = gradient_sample(centred, centred.batches(16, 256, seed), 8, seed=seed)
        trace = sample.trace(1078)
        norm = sample.quadratic(sample.gradient, sample.vectors, trace, 1078)
        scale = ratio_estimate(trace, norm)
        norms.append(norm.value)
        naive.append(float(sample.gradient @ sample.gradient))
        determined += scale.determined
        held += holds(norm, 0.0)
        assert scale.high == math.inf or scale.low > 0
    assert abs(np.mean(norms)) < 3 * np.std(norms) / math.sqrt(200)
    assert np.mean(naive) > 10 * abs(np.mean(norms))
    assert determined <= 10
    assert held >= 180


def test_gradient_known_exactly_has_no_share_of_noise():
    known = table("start")
    sample = gradient_sample(known, known.batches(11, 1078, 0), 8)
    trace = sample.trace(1078)
    norm = sample.quadratic(sample.gradient, sample.vectors, trace, 1078)
    assert sample.share(1078) == 0
    assert norm.low == norm.value == norm.high == pytest.approx(float(known.mean @ known.mean), rel=1e-12)
    assert norm.n == 0


def test_same_seed_same_vectors_and_the_global_generator_is_left_alone():
    known = table("start")
    batches = known.batches(8, 64, 0)
    before = torch.get_rng_state()
    first, again, other = (gradient_sample(known, batches, 4, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.vectors, again.vectors)
    assert not torch.equal(first.vectors, other.vectors)
    assert first.trace(1078) == other.trace(1078)


def test_too_little_data():
    known = table("start")
    with pytest.raises(InputError, match=r"^the data are one batch of 64 examples, but noise needs at least two: give"):
        gradient_sample(known, known.batches(1, 64, 0), 8)
    with pytest.raises(InputError, match=r"^the data hold one example, but noise needs at least two"):
        gradient_sample(known, known.batches(1, 1, 0), 8)


def test_two_batches_bound_nothing_above():
    known = table("start")
    trace = gradient_sample(known, known.batches(2, 64, 0), 8).trace(1078)
    assert (trace.low, trace.high, trace.n) == (0.0, math.inf, 1)
    assert not trace.determined
    assert str(trace) == "not determined (at least 0)"


@pytest.mark.parametrize(("n", "sigma"), [(8, 1.0), (31, 1.0), (63, 1.3)])
def test_interval_of_a_mean_of_skew_values(n, sigma):
    """Lognormal values, the mean of which Student's interval misses far more often than it says."""
    random = np.random.default_rng(0)
    draws = random.lognormal(0, sigma, (2000, n))
    truth = math.exp(sigma**2 / 2)
    held = np.mean([holds(mean_estimate(values, nonnegative=True), truth) for values in draws])
    student = [abs(v.mean() - truth) <= 2.1 * v.std(ddof=1) / math.sqrt(n) for v in draws]
    assert held >= 0.91
    assert held > np.mean(student) + 0.02


def test_interval_of_a_mean_of_normal_values_and_its_mirror_image():
    draws = np.random.default_rng(1).normal(3, 1, (2000, 10))
    held = np.mean([holds(mean_estimate(values), 3.0) for values in draws])
    assert 0.94 <= held <= 0.98
    found, mirrored = mean_estimate(draws[0] ** 3), mean_estimate(-(draws[0] ** 3))
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    whole = mean_estimate(draws[0], sampled=1.0)
    assert whole.low == whole.high == whole.value


def test_ratio_is_a_ratio_of_means():
    top, bottom = Estimate(6.0, 5.0, 8.0, 10), Estimate(2.0, 1.0, 3.0, 8)
    found = ratio_estimate(top, bottom)
    assert found.value == 3.0
    assert found.low == pytest.approx(3 / math.exp(math.hypot(math.log(6 / 5), math.log(3 / 2))))
    assert found.high == pytest.approx(3 * math.exp(math.hypot(math.log(8 / 6), math.log(2))))
    exact = ratio_estimate(top, Estimate(2.0, 2.0, 2.0, 0))
    assert (exact.value, exact.low, exact.high) == pytest.approx((3.0, 2.5, 4.0))


@pytest.mark.parametrize(
    ("top", "bottom", "expected"),
    [
        ((6.0, 5.0, 8.0), (0.5, -1.0, 2.0), (12.0, 2.5, math.inf)),
        ((6.0, 5.0, 8.0), (-0.5, -2.0, 1.0), (math.inf, 5.0, math.inf)),
        ((6.0, 5.0, 8.0), (-2.0, -3.0, -1.0), (math.inf, -math.inf, math.inf)),
        ((1.0, -1.0, 3.0), (2.0, 1.0, 4.0), (0.5, -1.0, 3.0)),
        ((-2.0, -3.0, -1.0), (2.0, 1.0, 4.0), (-1.0, -3.0, -0.25)),
        ((1.0, -1.0, 3.0), (0.5, -1.0, 2.0), (2.0, -math.inf, math.inf)),
    ],
)
def test_ratios_that_are_not_bounded(top, bottom, expected):
    found = ratio_estimate(Estimate(*top, 5), Estimate(*bottom, 5))
    assert (found.value, found.low, found.high) == expected
