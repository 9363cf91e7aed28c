"""What fits the time, from speeds that are made up."""

from __future__ import annotations

import pytest

from lightball.errors import InputError
from lightball.reproduce.cifar.fitting import FEWEST_EPOCHS, MOST_EPOCHS, WANTED_EPOCHS, Cost, fit

WAYS = ((1, 2, 4, 8), (1, 2, 4), (1, 2))


def costs(images_per_second: float, num_train: int = 45_000, runs: int = 13) -> dict[int, Cost]:
    """SVAG(ℓ) reads the data 2ℓ times in an epoch, SGD once."""
    reads = {1: 1, **{ell: 2 * ell for ell in (2, 4, 8)}}
    return {ell: Cost(runs, num_train * times / images_per_second) for ell, times in reads.items()}


@pytest.mark.parametrize("images_per_second", [2_000, 10_000, 30_000, 50_000, 100_000, 300_000, 3_000_000])
def test_what_is_chosen_fits_and_one_more_epoch_would_not(images_per_second: float) -> None:
    of = costs(images_per_second)
    found = fit(of, 1260, WAYS)
    of_epoch = sum(of[ell].runs * of[ell].seconds_per_epoch for ell in found.ells)

    assert found.seconds == pytest.approx(found.epochs * of_epoch)
    if found.epochs > FEWEST_EPOCHS:
        assert found.seconds <= 1260
    if found.epochs < MOST_EPOCHS:
        assert found.seconds + of_epoch > 1260


def test_a_faster_machine_runs_more_ells_and_then_more_epochs() -> None:
    chosen = [fit(costs(speed), 1260, WAYS) for speed in (20_000, 100_000, 300_000, 1_000_000, 1e9)]

    assert [len(one.ells) for one in chosen] == [2, 3, 4, 4, 4]
    assert chosen[2].epochs < chosen[3].epochs < chosen[4].epochs == MOST_EPOCHS
    assert all(one.epochs >= WANTED_EPOCHS for one in chosen[1:])


def test_a_slow_machine_gets_the_fewest_epochs_and_is_told_the_time() -> None:
    found = fit(costs(160), 1260, WAYS)

    assert (found.ells, found.epochs) == ((1, 2), FEWEST_EPOCHS)
    assert found.seconds == pytest.approx(FEWEST_EPOCHS * 13 * 5 * 45_000 / 160)


def test_what_was_asked_for_is_kept() -> None:
    assert fit(costs(100_000), 1260, [(1, 8)]).ells == (1, 8)
    found = fit(costs(100_000), 1260, WAYS, epochs=30)
    assert (found.ells, found.epochs) == ((1, 2), 30)
    assert fit(costs(1), 1260, [(1, 8)], epochs=30).epochs == 30


def test_no_time_is_refused() -> None:
    with pytest.raises(InputError, match="3 ways to spend 0 s; at least one and more than 0 s"):
        fit(costs(1), 0, WAYS)
