"""torch's number of threads is given back to everyone, also where simulations of several threads overlap."""

from __future__ import annotations

import threading

import torch

from lightball.dynamics.threads import one_torch_thread

OUTSIDE = 3


def test_threads_that_overlap_get_back_what_they_had() -> None:
    """A second thread enters while the first is inside, begins to compute there, and leaves last."""
    torch.set_num_threads(OUTSIDE)
    entered, leave = threading.Event(), threading.Event()
    found: list[int] = []

    def second() -> None:
        with one_torch_thread() as before:
            found.extend((before, torch.get_num_threads()))
            entered.set()
            leave.wait(10)
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=second)
    with one_torch_thread() as before:
        assert (before, torch.get_num_threads()) == (OUTSIDE, 1)
        thread.start()
        entered.wait(10)
    assert torch.get_num_threads() == OUTSIDE
    leave.set()
    thread.join()
    assert found == [OUTSIDE, 1, OUTSIDE]
    # A thread that begins to compute afterwards takes over the number of the process.
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found[-1] == OUTSIDE


def test_the_number_is_given_back_after_an_error() -> None:
    torch.set_num_threads(OUTSIDE)
    try:
        with one_torch_thread(), one_torch_thread():
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.get_num_threads() == OUTSIDE


def test_within_itself_nothing_changes() -> None:
    torch.set_num_threads(OUTSIDE)
    with one_torch_thread():
        with one_torch_thread() as before:
            assert before == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == OUTSIDE
