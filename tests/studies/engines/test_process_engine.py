"""The process engine: the same runs as the vectorised one, any model, and workers that die."""

from __future__ import annotations

import math
import os
import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn

from lightball.errors import InputError
from lightball.oracles import MinibatchStream, Sampling
from lightball.studies.engines import process, vectorised
from lightball.studies.engines.vectorised import InProcess, Trainers
from lightball.studies.runs import Chunk, Outcome, Run, seeds
from lightball.studies.settings import Settings
from lightball.workloads import Data, Workload, load
from lightball.workloads.undisturbed import one_thread

PROCESS = Settings(batch_sizes=(64,), epochs=3, compile="off", engine="process")
VECTORISED = replace(PROCESS, engine="vectorised")

DIGITS = load("digits")


def plain(settings: Settings, runs: list[Run]) -> list[Outcome]:
    with one_thread():
        return [process.train_run(DIGITS, settings, run, "cpu") for run in runs]


def batched(settings: Settings, runs: list[Run]) -> list[Outcome]:
    chunk = Chunk(tuple(runs), width=len(runs))
    ((_, outcomes),) = InProcess(Trainers(DIGITS, settings, "cpu")).compute([chunk])
    return outcomes


class TestAgreesWithTheVectorisedEngine:
    @pytest.mark.parametrize("options", [{}, {"weight_decay": 0.01, "schedule": "cosine", "sampling": "iid"}])
    def test_to_rounding_over_50_steps(self, options: dict[str, object]) -> None:
        assert PROCESS.epochs * (1078 // 64) == 48
        runs = [Run(64, lr, seed, m) for lr in (0.1, 0.5) for seed in seeds("tune", 2) for m in (0.0, 0.9)]
        one = plain(replace(PROCESS, **options), runs)  # type: ignore[arg-type]
        many = batched(replace(VECTORISED, **options), runs)  # type: ignore[arg-type]
        for a, b in zip(one, many, strict=True):
            assert a.run == b.run
            assert a.curve == pytest.approx(b.curve, rel=1e-5)
            assert a.untrained == pytest.approx(b.untrained, rel=1e-6)
            assert a.final == pytest.approx(b.final, rel=1e-5, abs=1 / 359 + 1e-9)  # an example at the boundary

    def test_in_distribution_after(self) -> None:
        """Kolmogorov–Smirnov at a false-alarm rate of 0.001, and a rate that is 1.3 times as large must be seen."""
        options = {"epochs": 24, "batch_sizes": (256,)}
        runs = [Run(256, 0.8, seed, 0.9) for seed in seeds("tune", 32)]
        other = [
            replace(run, effective_lr=1.04, seed=seed) for run, seed in zip(runs, seeds("confirm", 32), strict=True)
        ]
        one, many, control = (
            [o.final["train_loss"] for o in outcomes]
            for outcomes in (
                plain(replace(PROCESS, **options), runs),  # type: ignore[arg-type]
                batched(replace(VECTORISED, **options), runs),  # type: ignore[arg-type]
                batched(replace(VECTORISED, **options), other),  # type: ignore[arg-type]
            )
        )
        assert ks_2samp(one, many).pvalue > 0.001
        assert ks_2samp(one, control).pvalue < 0.001

    def test_a_run_that_fails(self) -> None:
        run = Run(64, 1e6, 1, 0.0)
        (one,), (other,) = plain(PROCESS, [run]), batched(VECTORISED, [run])
        for outcome in (one, other):
            assert outcome.failed
            assert outcome.error is None
            assert outcome.score("train_loss") == pytest.approx(one.untrained["train_loss"])
            assert len(outcome.curve) == 4
        assert (one.failed_at is None) == (other.failed_at is None)

    def test_the_same_data_order(self) -> None:
        """Both take their batches from one stream, which knows neither engine nor rule."""
        stream = MinibatchStream(Sampling(1078, 64), [7], torch.device("cpu"))
        assert torch.equal(stream(3)[0], Sampling(1078, 64).epoch(7, 0)[192:256])


def signs() -> Data:
    inputs = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
    return Data(inputs, (inputs.sum(dim=1) > 0).long())


def awkward() -> Workload:
    """Batch statistics, dropout, recurrence and control flow on values: what cannot be vectorised over models."""

    class Awkward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.lstm = nn.LSTM(1, 8, batch_first=True)
            self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(8, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(x)
            if x.sum().item() > 0:
                x = x + 0.0
            return self.head(self.lstm(x[..., None])[0][:, -1])

    return Workload("awkward", Awkward, signs(), signs(), signs())


TINY = Settings(batch_sizes=(16,), epochs=3, engine="process", lr=(0.2,))


def chunks(count: int) -> list[Chunk]:
    return [Chunk((Run(16, 0.2, seed, m),)) for seed in seeds("tune", count) for m in (0.0, 0.9)]


def outcomes_of(workload: Workload, settings: Settings = TINY, count: int = 3) -> dict[Run, Outcome]:
    with closing(process.prepare(workload, settings, "cpu", 2).start(Path())) as engine:
        return {o.run: o for _, outcomes in engine.compute(chunks(count)) for o in outcomes}


def test_models_that_cannot_be_vectorised() -> None:
    outcomes = outcomes_of(awkward())
    assert len(outcomes) == 6
    for outcome in outcomes.values():
        assert outcome.error is None
        assert math.isfinite(outcome.final["train_loss"])
        assert 0 <= outcome.final["test_accuracy"] <= 1
    assert outcomes == outcomes_of(awkward())  # to the bit


def test_the_vectorised_engine_says_where_to_go() -> None:
    with pytest.raises(InputError, match=r"module 'norm' .* or train each model by itself: --engine process"):
        vectorised.prepare(awkward(), replace(TINY, engine="vectorised"), "cpu", 1)


@pytest.mark.parametrize("option", [{"precision": "bfloat16"}, {"accumulate": 2}, {"ell": 2}, {"clip_norm": 0.1}])
def test_settings_of_the_process_engine(option: dict[str, object]) -> None:
    changed = replace(TINY, **option)  # type: ignore[arg-type]
    run = Run(16, 0.2, 1, 0.9)
    assert len({process.train_run(awkward(), s, run, "cpu").final["train_loss"] for s in (TINY, changed)}) == 2
    with pytest.raises(InputError, match=r"but the vectorised engine trains in float32, .*: use --engine process"):
        vectorised.prepare("digits", replace(changed, engine="vectorised"), "cpu", 1)


def deadly(folder: Path, deaths: int) -> Workload:
    """The first ``deaths`` models that are made in a worker kill it."""
    home = os.getpid()

    def model() -> nn.Module:
        made = nn.Linear(4, 2)
        if os.getpid() != home and len(list(folder.iterdir())) < deaths and (folder / "armed").exists():
            (folder / f"death-{len(list(folder.iterdir()))}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    return Workload("deadly", model, signs(), signs(), signs())


class TestDeaths:
    """``reopen`` makes a model in a new worker, so deaths come while it starts as well as while it trains."""

    def test_a_worker_that_dies_is_replaced_and_its_run_tried_again(self, tmp_path: Path) -> None:
        expected = outcomes_of(deadly(tmp_path, 0), count=2)
        (tmp_path / "armed").touch()
        outcomes = outcomes_of(deadly(tmp_path, 3), count=2)  # the mark itself counts: two deaths
        assert len(list(tmp_path.iterdir())) == 3
        assert outcomes == expected

    def test_after_three_deaths_the_run_has_crashed(self, tmp_path: Path) -> None:
        (tmp_path / "armed").touch()
        outcomes = outcomes_of(deadly(tmp_path, 10**6), count=1)
        assert len(outcomes) == 2
        for outcome in outcomes.values():
            assert outcome.error == "the worker process died (SIGKILL(-9)), 3 times"
            assert outcome.failed
            assert math.isnan(outcome.final["train_loss"])

    def test_the_vectorised_engine_stops_with_advice(self, tmp_path: Path) -> None:
        settings = replace(TINY, engine="vectorised", compile="off")
        job = vectorised.prepare(deadly(tmp_path, 10**6), settings, "cpu", 2)
        (tmp_path / "armed").touch()
        with (
            closing(job.start(tmp_path)) as engine,
            pytest.raises(InputError, match=r"2 runs at batch size 16 could not be computed: the worker process died"),
        ):
            list(engine.compute([Chunk(tuple(run for c in chunks(1) for run in c.runs), width=2)]))


def test_an_error_in_the_model_is_a_crash_with_its_message() -> None:
    home = os.getpid()

    class Moody(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if os.getpid() != home and len(x) == 16:
                raise RuntimeError("out of luck")
            return super().forward(x)

    workload = Workload("moody", lambda: Moody(4, 2), signs(), signs(), signs())
    assert {o.error for o in outcomes_of(workload, count=1).values()} == {"RuntimeError: out of luck"}
