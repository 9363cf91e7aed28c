"""Saved optimizer states: rebuilt where they are SGD's, read where not, and never executed."""

from __future__ import annotations

import argparse
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightball.errors import InputError
from lightball.optim.auditing import audit_checkpoint, audit_text
from lightball.optim.sgd import SGD


def trained(make: Any) -> torch.optim.Optimizer:
    model = nn.Linear(5, 3)
    optimizer: torch.optim.Optimizer = make(model.parameters())
    model(torch.ones(2, 5)).sum().backward()
    optimizer.step()
    return optimizer


def saved(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    return path


def test_the_state_of_sgd_deep_in_a_checkpoint(tmp_path: Path) -> None:
    optimizer = trained(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, dampening=0.5, weight_decay=1e-3))
    path = saved(tmp_path, {"epoch": 3, "optimizer_states": [optimizer.state_dict()], "model": {"w": torch.ones(2)}})
    (found,) = audit_checkpoint(path)
    assert (found.optimizer, found.family, found.momentum_active) == ("torch.optim.SGD", "sgdm", True)
    assert (found.effective_lr, found.momentum, found.dampening) == pytest.approx((0.5, 0.9, 0.5))
    assert (found.weight_decay, found.state_bytes_per_parameter) == pytest.approx((1e-3, 4))
    assert found.notes[0].startswith("a state holds no step: these are the values of torch.optim.SGD")


def test_buffers_that_were_zero_when_saved(tmp_path: Path) -> None:
    state = trained(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)).state_dict()
    for values in state["state"].values():
        values["momentum_buffer"].zero_()
    (found,) = audit_checkpoint(saved(tmp_path, state))
    assert found.momentum_active is False


def test_our_own_state_keeps_its_convention(tmp_path: Path) -> None:
    state = trained(lambda p: SGD(p, 0.1, 0.9, convention="canonical")).state_dict()
    (found,) = audit_checkpoint(saved(tmp_path, state))
    assert (found.effective_lr, found.dampening) == pytest.approx((0.1, 0.9))
    assert "these are the values of lightball.optim.SGD" in found.notes[0]


def test_adam_is_read_only(tmp_path: Path) -> None:
    state = trained(lambda p: torch.optim.AdamW(p, 0.01)).state_dict()
    (found,) = audit_checkpoint(saved(tmp_path, state))
    assert (found.family, found.nonlinearity, found.effective_lr, found.lr) == ("not linear", "adaptive", None, 0.01)
    assert found.state_bytes_per_parameter == pytest.approx(8, abs=1)
    assert found.notes[0].startswith("a state holds no step, and this one is not SGD's")


def test_what_schedulers_write_is_sgd_all_the_same(tmp_path: Path) -> None:
    for make in (torch.optim.SGD, SGD):
        model = nn.Linear(5, 3)
        optimizer: Any = make([{"params": model.parameters(), "name": "all"}], lr=0.1, momentum=0.9)
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=10, base_momentum=0.9)
        torch.optim.swa_utils.SWALR(optimizer, 0.1)
        (found,) = audit_checkpoint(saved(tmp_path, optimizer.state_dict()))
        assert (found.family, found.momentum) == ("sgdm", pytest.approx(optimizer.param_groups[0]["momentum"]))


def test_our_own_state_with_what_clipping_keeps(tmp_path: Path) -> None:
    state = trained(lambda p: SGD(p, 0.1, in_backward=True, max_norm=1.0, clipping="previous")).state_dict()
    assert audit_checkpoint(saved(tmp_path, state))[0].family == "sgd"


def test_a_state_with_more_than_sgd_has_is_not_called_sgd(tmp_path: Path) -> None:
    state = trained(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)).state_dict()
    state["param_groups"][0]["trust_coefficient"] = 1e-3
    (found,) = audit_checkpoint(saved(tmp_path, state))
    assert (found.family, found.effective_lr, found.momentum_active) == ("unknown", None, None)
    assert (found.lr, found.momentum) == (0.1, 0.9)
    assert found.notes[0].startswith("a state holds no step, and this one is not SGD's, which has no 'trust_coeff")


def test_two_optimizers_in_one_file(tmp_path: Path) -> None:
    states = [trained(lambda p, lr=lr: torch.optim.SGD(p, lr)).state_dict() for lr in (0.1, 0.2)]
    found = audit_checkpoint(saved(tmp_path, {"generator": states[0], "discriminator": states[1]}))
    assert [(one.optimizer, one.effective_lr) for one in found] == [
        ("torch.optim.SGD in generator", 0.1),
        ("torch.optim.SGD in discriminator", 0.2),
    ]


class Dangerous:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, {"optimizer": Dangerous()})
    with pytest.raises(InputError, match=r"^checkpoint\.pt holds posix\.mkdir, which only executing code could load"):
        audit_checkpoint(path)
    assert not (tmp_path / "executed").exists()
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Dangerous()))
    with pytest.raises(InputError, match=r"^plain\.pt "):
        audit_checkpoint(tmp_path / "plain.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.filterwarnings("error")
def test_torch_does_not_advise_to_execute_a_file(tmp_path: Path) -> None:
    unsafe = saved(tmp_path, {"args": argparse.Namespace(lr=0.1)})
    damaged, script = tmp_path / "damaged.pt", tmp_path / "script.pt"
    damaged.write_bytes(unsafe.read_bytes()[:200])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 1)).save(script)  # type: ignore[no-untyped-call]
    said = {unsafe: "checkpoint.pt holds argparse.Namespace, which only executing code could load; save {'optimizer': "}
    for path in (unsafe, damaged, script):
        with pytest.raises(InputError) as caught:
            audit_checkpoint(path)
        assert str(caught.value).startswith(said.get(path, f"{path.name} is not a file of torch.save, or damaged; req"))
        assert "weights_only" not in str(caught.value)
        assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_state_without_entries_claims_nothing(tmp_path: Path, momentum: float) -> None:
    optimizer = torch.optim.SGD(nn.Linear(5, 3).parameters(), 0.1, momentum=momentum)
    (found,) = audit_checkpoint(saved(tmp_path, optimizer.state_dict()))
    assert (found.momentum, found.momentum_active) == (momentum, momentum > 0)
    assert (found.state_saved, found.state_bytes_per_parameter) == (False, 0)
    empty = "no momentum buffers in this state: saved before the first step, or momentum is not used"
    assert (empty in found.notes) is (momentum > 0)
    text = audit_text([found])
    assert "  state         none saved\n" in text
    assert ", active" not in text


def test_whether_decay_is_coupled_is_read_or_not_known(tmp_path: Path) -> None:
    state = trained(lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)).state_dict()
    (group,) = state["param_groups"]
    for said, way in [
        (True, "0.1 beside the gradient (decoupled)"),
        (False, "0.1 through the gradient (coupled)"),
        (None, "0.1 (whether coupled is not known)"),
    ]:
        group["decoupled_weight_decay"] = said
        (found,) = audit_checkpoint(saved(tmp_path, state))
        assert found.decoupled is said
        assert f"  weight decay  {way}\n" in audit_text([found])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"w": torch.ones(1)}}, "checkpoint.pt holds no optimizer's state, a dict with 'state'"),
        ({"state": {}, "param_groups": [{"lr": 1.0}]}, "groups without a list of params"),
    ],
)
def test_files_without_a_state(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        audit_checkpoint(saved(tmp_path, content))
    with pytest.raises(InputError, match=r"there is no file '.*gone.pt': give a checkpoint, or my_train.py:make_opt"):
        audit_checkpoint(tmp_path / "gone.pt")
    with pytest.raises(InputError, match=r"is a folder: give a checkpoint in it"):
        audit_checkpoint(tmp_path)
