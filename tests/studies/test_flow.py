"""`lightball.compare` from the call to the files, with real training of a tiny study."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import lightball
from lightball.errors import InputError
from lightball.studies import Plan, Result, Settings, as_json
from lightball.studies.api import Silent
from lightball.studies.runs import seeds
from lightball.workloads import load

TINY = {
    "batch_sizes": (64,),
    "epochs": 2,
    "stages": (6,),
    "tuning_seeds": 2,
    "lr": (0.2, 0.4),
    "max_extensions": 1,
    "compile": "off",
}
TUNE, CONFIRM = set(seeds("tune", 100)), set(seeds("confirm", 100))


def compare(folder: Path, workers: int = 1, **options: Any) -> Result:
    return lightball.compare("digits", out=folder, workers=workers, **{**TINY, **options})


def tables(folder: Path) -> dict[str, Any]:
    return {path.name: pq.read_table(path) for path in sorted(folder.glob("chunks/*.parquet"))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    found = compare(folder)
    assert torch.equal(torch.get_rng_state(), state), "the study drew from the global generator"
    assert torch.get_num_threads() == threads
    return found


class TestResult:
    def test_what_it_says_of_itself(self, result: Result, folder: Path) -> None:
        assert (result.task, result.folder, result.settings) == ("digits", str(folder), Settings(**TINY))  # type: ignore[arg-type]
        assert result.computed_runs > 0
        assert result.reused_runs == 0
        assert 0 < result.seconds < 100

    def test_both_rules_learned(self, result: Result) -> None:
        (batch,) = result.batches
        for arm in (batch.sgd, batch.pairings[0].arm):
            assert arm.runs == 6
            assert arm.failed == 0
            assert arm.train_loss is not None
            assert arm.train_loss < 1 < arm.curve[0]
            assert arm.curve[-1] == pytest.approx(arm.train_loss)
            assert len(arm.curve) == 3
            assert arm.test_accuracy is not None
            assert 0.5 < arm.test_accuracy <= 1

    def test_the_decision_is_that_of_the_stored_pairs(self, result: Result, folder: Path) -> None:
        """Recomputed from the Parquet files alone."""
        (batch,) = result.batches
        rows = {
            (r["effective_lr"], r["momentum"], r["seed"]): r for t in tables(folder).values() for r in t.to_pylist()
        }
        arm = batch.pairings[0].arm
        pairs = [(rows[batch.sgd.effective_lr, 0.0, s], rows[arm.effective_lr, 0.9, s]) for s in seeds("confirm", 6)]
        for measure, sign in (("train_loss", -1), ("test_accuracy", 1)):
            mean = sum(sign * (b[f"final_{measure}"] - a[f"final_{measure}"]) for a, b in pairs) / 6
            assert batch.pairings[0].decisions[measure].interval.mean == pytest.approx(mean, rel=1e-9)  # type: ignore[index]

    def test_arms_of_a_pair_start_alike(self, folder: Path) -> None:
        starts: dict[int, set[float]] = {}
        for table in tables(folder).values():
            for row in table.to_pylist():
                starts.setdefault(row["seed"], set()).add(round(row["untrained_train_loss"], 5))
        assert all(len(values) == 1 for values in starts.values())
        assert len({min(values) for values in starts.values()}) == len(starts)


@pytest.fixture(scope="module")
def value(result: Result) -> dict[str, Any]:
    return json.loads(json.dumps(as_json(result), allow_nan=False))  # type: ignore[no-any-return]


class TestJson:
    """The schema of ``--json``: every key and type."""

    def test_top(self, value: dict[str, Any]) -> None:
        assert value["task"] == "digits"
        assert set(value) >= {"task", "batch_sizes", "summary"}
        assert set(value["summary"]) == {"train_loss", "test_accuracy"}
        for span in value["summary"].values():
            assert set(span) == {"no_value_up_to", "helps_from"}
            assert all(v is None or type(v) is int for v in span.values())

    def test_batch_sizes(self, value: dict[str, Any]) -> None:
        (batch,) = value["batch_sizes"]
        assert type(batch["batch_size"]) is int
        for arm in (batch["sgd"], *batch["sgdm"]):
            assert [type(arm[k]) for k in ("effective_lr", "train_loss", "test_accuracy", "failed")] == [
                float,
                float,
                float,
                int,
            ]
        assert [arm["momentum"] for arm in batch["sgdm"]] == [0.9]

    def test_differences(self, value: dict[str, Any]) -> None:
        difference = value["batch_sizes"][0]["sgdm"][0]["difference"]
        assert set(difference) == {"train_loss", "test_accuracy"}
        for d in difference.values():
            assert set(d) >= {"mean", "interval", "confidence", "margin", "stage", "n_pairs", "verdict"}
            low, high = d["interval"]
            assert low <= d["mean"] <= high
            assert d["confidence"] == pytest.approx(1 - 0.05 / 2)
            assert (d["stage"], d["n_pairs"]) == (1, 6)
            assert [type(d[k]) for k in ("mean", "margin", "stage", "n_pairs")] == [float, float, int, int]
            assert d["verdict"] in {"no value", "helps", "hurts", "undecided"}

    def test_is_stored_beside_the_chunks(self, value: dict[str, Any], folder: Path) -> None:
        stored = json.loads((folder / "result.json").read_text(), parse_constant=pytest.fail)
        assert stored["batch_sizes"] == value["batch_sizes"]

    def test_numbers_that_are_not_finite_become_null(self, result: Result) -> None:
        pairing = result.batches[0].pairings[0]
        odd = replace(result.batches[0], pairings=(replace(pairing, loss_ratio=math.inf),))
        value = as_json(replace(result, batches=(odd,), seconds=math.nan))
        assert value["seconds"] is None
        assert value["batch_sizes"][0]["sgdm"][0]["loss_ratio"] is None


class TestFiles:
    def test_one_parquet_file_for_each_chunk_and_nothing_temporary(self, result: Result, folder: Path) -> None:
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        chunks = {f for f in files if f.startswith("chunks/")}
        plans = {f for f in files if f.startswith("plan/")}
        assert files - chunks - plans == {
            "comparison.json",
            "study.json",
            "study.copy.json",
            "margins.json",
            "result.json",
            "time.json",
        }
        assert all(f.endswith(".json") for f in plans)
        assert all(f.endswith(".parquet") for f in chunks)
        assert sum(t.num_rows for t in tables(folder).values()) == result.computed_runs

    def test_metadata(self, result: Result, folder: Path) -> None:
        for table in tables(folder).values():
            about = json.loads(table.schema.metadata[b"lightball"])["about"]
            assert about["basis"]["task"] == "digits"
            assert about["basis"]["device"] == "cpu"
            assert about["basis"]["torch"] == torch.__version__
            assert about["basis"]["settings"]["epochs"] == 2
            assert "lr" not in about["basis"]["settings"]  # which each row has
            assert about["versions"]["lightball"] == lightball.__version__
            assert {"python", "numpy"} < set(about["versions"])
            assert about["hardware"]
            assert isinstance(about["command"], list)

    def test_tuning_and_confirmation_have_chunks_and_seeds_of_their_own(self, result: Result, folder: Path) -> None:
        phases = [set(table["seed"].to_pylist()) for table in tables(folder).values()]
        assert all(s <= TUNE or s <= CONFIRM for s in phases)
        assert {s <= TUNE for s in phases} == {True, False}

    def test_margins_are_a_share_of_the_decrease_while_tuning(self, result: Result, folder: Path) -> None:
        rows = [r for t in tables(folder).values() for r in t.to_pylist() if r["seed"] in TUNE]
        cells: dict[tuple[float, float], list[float]] = {}
        for row in rows:
            cells.setdefault((row["effective_lr"], row["momentum"]), []).append(row["final_train_loss"])
        best = min(sum(losses) / len(losses) for losses in cells.values())
        untrained = sum(row["untrained_train_loss"] for row in rows) / len(rows)
        stored = json.loads((folder / "margins.json").read_text())["64"]
        assert stored["train_loss"] == pytest.approx(0.01 * (untrained - best))
        assert stored["test_accuracy"] == 0.005
        assert stored == result.batches[0].margins

    def test_the_plan_is_told_before_and_stored(self, result: Result, folder: Path) -> None:
        told: list[tuple[str, Plan, bool]] = []

        def on_plan(task: str, plan: Plan, where: Path) -> None:
            told.append((task, plan, where == folder))

        lightball.compare("digits", out=folder, workers=1, on_plan=on_plan, **TINY)  # type: ignore[arg-type]
        ((task, plan, same_folder),) = told
        assert task == "digits"
        assert same_folder
        assert plan.runs == (8 + 24, 8 + 24)
        assert plan.steps == 32 * 2 * (1078 // 64)
        assert plan.seconds is not None
        assert plan.seconds[0] > 0
        stored = json.loads((folder / "study.json").read_text())
        assert stored["compositions"] == {"64": plan.batches[0].composition}
        planned = {key for path in folder.glob("plan/*.json") for key in json.loads(path.read_text())["chunks"]}
        assert planned == {name.split(".")[0] for name in tables(folder)}


class TestAgain:
    def test_the_same_command_computes_nothing(self, result: Result, folder: Path) -> None:
        again = compare(folder)
        assert (again.computed_runs, again.reused_runs) == (0, result.computed_runs)
        assert again.batches == result.batches

    def test_margins_can_change_without_computing(self, result: Result, folder: Path) -> None:
        again = compare(folder, margin_accuracy=0.3)
        assert (again.computed_runs, again.reused_runs) == (0, result.computed_runs)
        assert again.batches[0].pairings[0].verdict("test_accuracy") == "no value"

    def test_other_margins_than_the_first_are_told(self, result: Result, folder: Path) -> None:
        assert not result.batches[0].margins_changed
        assert compare(folder, margin_accuracy=0.3).batches[0].margins_changed
        assert not compare(folder).batches[0].margins_changed  # the first ones stay

    def test_another_weight_decay_is_another_study(self, result: Result, folder: Path) -> None:
        before = set(tables(folder))
        with pytest.raises(InputError, match=r"holds another study \(weight_decay is 0.0 there, 0.01 here\): choose"):
            compare(folder, weight_decay=1e-2)
        assert before == set(tables(folder))
        assert compare(folder).reused_runs == result.computed_runs

    def test_another_folder_gives_the_same_bits_in_the_same_chunks(
        self, result: Result, folder: Path, tmp_path: Path
    ) -> None:
        again = compare(tmp_path)
        assert again.batches == result.batches
        there, here = (
            {name.split(".")[0]: table.replace_schema_metadata(None) for name, table in tables(f).items()}
            for f in (folder, tmp_path)
        )
        assert here == there

    def test_a_damaged_chunk_is_named_and_computed_again(self, result: Result, tmp_path: Path, folder: Path) -> None:
        shutil.copytree(folder, tmp_path / "copy")
        first, second, *_ = sorted((tmp_path / "copy" / "chunks").iterdir())
        first.write_bytes(first.read_bytes()[:-20])
        flipped = bytearray(second.read_bytes())
        flipped[100] ^= 1
        second.write_bytes(flipped)
        said: list[str] = []
        observer = Silent()
        observer.say = said.append  # type: ignore[method-assign]
        again = compare(tmp_path / "copy", observer=observer)
        assert again.batches == result.batches
        assert 0 < again.computed_runs < result.computed_runs
        assert len(said) == 2
        assert all("is damaged (its bytes do not match the digest in its name): set aside in" in line for line in said)
        assert {p.name for p in (tmp_path / "copy" / "damaged").iterdir()} == {first.name, second.name}
        assert compare(tmp_path / "copy").computed_runs == 0


class TestArguments:
    def test_options_win_over_settings(self, folder: Path, result: Result) -> None:
        settings = Settings(**{**TINY, "epochs": 7})  # type: ignore[arg-type]
        again = lightball.compare("digits", out=folder, workers=1, settings=settings, epochs=2)
        assert again.computed_runs == 0
        assert asdict(again.settings) == asdict(result.settings)

    @pytest.mark.parametrize(
        ("task", "options", "message"),
        [
            ("digits", {"batch_size": 8}, "unknown setting 'batch_size'"),
            ("digits", {"batch_sizes": (1079,)}, "batch size 1079 does not fit the 1078 training examples"),
            ("digits", {"workers": 0}, "workers is 0, but must be a whole number from 1 up"),
            ("digits", {"device": "tpu9"}, "device is 'tpu9', but must be "),
            (3, {}, "the task is a int, but must be a lightball.Workload"),
            (lambda: None, {}, "the task is a function, but must be a lightball.Workload"),
        ],
    )
    def test_refused(self, tmp_path: Path, task: Any, options: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError) as caught:
            lightball.compare(task, **{"out": tmp_path, "workers": 1, **options})
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match=r"cannot write to the folder '.*file/here': Not a directory; choose"):
            lightball.compare("digits", out=tmp_path / "file" / "here", workers=1)

    def test_loss_that_is_not_finite_on_a_later_example(self, tmp_path: Path) -> None:
        """Not only in the two examples that are tried."""
        digits = load("digits")
        inputs = digits.train.inputs.clone()
        inputs[-1] = math.nan
        workload = replace(digits, train=lightball.Data(inputs, digits.train.targets))
        with pytest.raises(
            InputError, match=r"train.inputs has values that are not finite \(nan or inf\), first in example 1077"
        ):
            lightball.compare(workload, out=tmp_path, workers=1, **TINY)  # type: ignore[arg-type]
