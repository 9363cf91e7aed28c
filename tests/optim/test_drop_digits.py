"""Momentum dropped in the middle of training digits under a cosine schedule, paired over 16 seeds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

FILE = Path(__file__).parents[2] / "benchmarks" / "drop_momentum.py"


def test_the_rest_of_the_run_is_as_with_momentum_but_not_after_the_naive_switch() -> None:
    """Mean ± 3 standard errors of the relative difference: inside 1 % and outside of it (for 16 seeds, 1 in 100)."""
    specification = importlib.util.spec_from_file_location("benchmark_drop_momentum", FILE)
    assert specification is not None
    assert specification.loader is not None
    benchmark = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = benchmark  # dataclasses look their module up
    specification.loader.exec_module(benchmark)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        row = benchmark.measured(0.01, 100, 16, ("kept", "dropped", "naive"))
    finally:
        torch.set_num_threads(threads)
    assert row.within("dropped"), row
    assert row.outside("naive"), row
    assert row.difference["naive"] > 0.03
