"""`lightball reproduce cifar`: real images where there are some, and how commands stop, go on and refuse."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("PIL.Image")
from reproduced_images import write_cifar10

from lightball.cli.main import main
from lightball.errors import InputError
from lightball.reproduce.cifar import PRESETS, CifarResult, CifarSettings, decide, read_cifar, run_cifar
from lightball.reproduce.cifar.fitting import FEWEST_EPOCHS
from lightball.reproduce.cifar.settings import ell_parts, grid_part

with_data = pytest.mark.skipif(
    not os.environ.get("LIGHTBALL_DATA"), reason="needs real images: LIGHTBALL_DATA names no folder"
)
TINY = CifarSettings(
    ells=(1, 2),
    lr=(0.01,),
    epochs=1,
    batch_size=4,
    max_extensions=0,
    depth=8,
    num_train=8,
    num_validation=2,
    num_test=2,
)


def run(data: Path, out: Path, deadline: float | None = None) -> CifarResult:
    return run_cifar(replace(TINY, data=data), out=out, device="cpu", workers=1, deadline=deadline)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar10(tmp_path_factory.mktemp("data"), 10, 2)


@with_data
def test_smoke_on_real_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "cifar", "--scale", "smoke", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("CIFAR-10, ResNet-8 under SVAG, 2 epochs a run: SGD against SGDM\n  part")
    assert "At ℓ = 1 " in said

    result = json.loads((tmp_path / "cifar.json").read_text())
    assert result["finished"]
    assert [(one["ell"], one["pairs"]) for one in result["ells"]] == [(1, 6), (2, 6)]
    assert result["runs"] == (2 + 12) + (1 + 12)
    assert result["effective_lr"] in (0.2, 0.5)
    by_seed = [one["by_seed"]["train_loss"] for one in result["ells"]]
    assert by_seed[0].keys() == by_seed[1].keys()  # all ℓ share their seeds
    curves = {(curve["ell"], curve["rule"]): curve for curve in result["curves"]}
    assert set(curves) == {(ell, rule) for ell in (1, 2) for rule in ("SGD", "SGDM")}
    for curve in curves.values():
        assert curve["steps"] == [0, 4, 8]  # effective ones: at ℓ = 2 a step counts half
        assert curve["train_loss"][0] == pytest.approx(curves[1, "SGD"]["train_loss"][0])  # the same weights
        assert all(accuracy is not None for accuracy in curve["test_accuracy"])
    names = {"gap-accuracy", "gap-loss", *(f"{m}-{ell}" for m in ("accuracy", "loss") for ell in (1, 2))}
    assert {path.stem for path in tmp_path.glob("*.svg")} == {f"cifar-{name}" for name in names}
    assert (tmp_path / "cifar.html").exists()


def test_a_spent_budget_stops_cleanly_and_the_same_call_goes_on(made: Path, tmp_path: Path) -> None:
    stopped = run(made, tmp_path, deadline=0.0)
    assert not stopped.finished
    assert (stopped.choice, stopped.ells) == (None, ())

    finished = run(made, tmp_path)
    assert finished.finished
    assert [one.count for one in finished.ells] == [6, 6]
    chunks = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert len(chunks) == (1 + 12) + (1 + 12)
    again = run(made, tmp_path)
    assert (again.ells, again.curves) == (finished.ells, finished.curves)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == chunks
    assert read_cifar(replace(TINY, data=made), tmp_path).as_json() == again.as_json()


def command(data: Path, out: Path, *more: str) -> list[str]:
    sizes = {"batch-size": 4, "num-train": 8, "num-validation": 2, "num-test": 2}
    options = [word for name, value in sizes.items() for word in (f"--{name}", f"{value}")]
    return ["reproduce", "cifar", "--scale", "smoke", "--data", str(data), "--out", str(out), *options, *more]


def test_the_plan_prices_every_ell_and_writes_nothing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([*command(made, out), "--ells", "1,2,8", "--epochs", "3", "--plan", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)["parts"]
    assert {name: part["runs"][0] for name, part in parts.items()} == {"grid": 14, "ell-2": 13, "ell-8": 13}
    assert [part["batches"][0]["steps_per_run"] for part in parts.values()] == [6, 12, 48]
    assert not out.exists()


def test_what_fits_is_decided_once(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_ = replace(TINY, data=made, ells=None, epochs=None)
    first = decide(open_, out=tmp_path, device="cpu", workers=1)
    assert first.ells in ((1, 2), (1, 2, 4), (1, 2, 4, 8))
    assert first.epochs is not None
    assert first.epochs >= FEWEST_EPOCHS

    monkeypatch.setattr("lightball.reproduce.cifar.running.fit", None)  # nothing is to be measured again
    assert decide(open_, out=tmp_path, device="cpu", workers=1) == first
    assert decide(first, out=tmp_path / "elsewhere", device="cpu") == first
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(TypeError):  # other settings are another decision
        decide(replace(open_, batch_size=2), out=tmp_path, device="cpu", workers=1)

    (tmp_path / "decided.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot read '.*decided.json': .*; take another folder, --out, or remove"):
        decide(open_, out=tmp_path, device="cpu", workers=1)


def test_less_time_has_fewer_epochs(made: Path, tmp_path: Path) -> None:
    little = replace(TINY, data=made, ells=(1, 2), epochs=None, minutes=1e-6)
    assert decide(little, out=tmp_path, device="cpu", workers=1, keep=False).epochs == FEWEST_EPOCHS
    assert not any(tmp_path.iterdir())


def test_a_gpu_computes_in_bfloat16_compiled_and_channels_last() -> None:
    paper = PRESETS["paper"]
    on_gpu, on_cpu = (grid_part(paper, device).settings for device in ("cuda:0", "cpu"))
    assert (on_gpu.precision, on_gpu.compile) == ("bfloat16", "on")
    assert (on_cpu.precision, on_cpu.compile) == ("float32", "off")
    asked = replace(paper, precision="float32", compile=False)
    assert grid_part(asked, "cuda").settings == on_cpu


def test_rates_are_the_sum_forms_or_effective_ones() -> None:
    assert CifarSettings().effective_lr == (0.5, 1.0, 2.0, 4.0, 8.0)
    assert replace(CifarSettings(), rate_convention="effective").effective_lr == (0.05, 0.1, 0.2, 0.4, 0.8)


def test_every_ell_runs_at_the_one_rate() -> None:
    parts = ell_parts(PRESETS["paper"], "cpu", 2.0)
    assert [part.name for part in parts] == ["ell-2", "ell-4", "ell-8"]
    assert [part.settings.ell for part in parts] == [2, 4, 8]
    assert all((part.settings.lr, part.settings.max_extensions) == ((2.0,), 0) for part in parts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ells", "2,4"], "ells is 2,4, but must have 1, SGD itself, and then whole numbers above: try 1,2,4"),
        (["--seeds", "5"], "seeds is 5, but must be at least 6: a verdict needs as many pairs"),
        (["--momentum", "0"], "momentum is 0, but must be above 0 and below 1: SGD always runs beside it"),
        (["--depth", "9"], "depth is 9, but must be 6n + 2"),
        (["--num-train", "9"], "has 10 training images, but 11 are needed"),
    ],
)
def test_refusals_are_one_line(
    made: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(made, tmp_path), *options, "--plan"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("lightball: ")
    assert said.err.count("\n") == 1
    assert message in said.err


def test_without_a_folder_the_flag_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTBALL_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"as data \(--data\)"):
        run_cifar(TINY, out=tmp_path, device="cpu")
