"""The monitor in a real ``lightning.Trainer``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from monitored import Net, everything, examples, loss_of, seed_all
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightball.errors import InputError
from lightball.forecast.monitor import Effort, read_monitor
from lightball.forecast.monitor.lightning import MonitorCallback

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = loss_of(self.net, batch)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 16, 0.5), "interval": "step"}]


def module_loss(module: Any, batch: Any) -> Tensor:
    return loss_of(module.net, batch)


def fitted(folder: Path, callback: MonitorCallback | None, **settings: Any) -> Module:
    seed_all()
    module = Module()
    loader = DataLoader(TensorDataset(*examples()), batch_size=16, shuffle=True)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=3,
        callbacks=[] if callback is None else [callback],
        logger=CSVLogger(folder, "logs", version=""),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=8,
        **settings,
    )
    trainer.fit(module, loader)
    return module


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_is_monitored_and_the_same_to_the_bit(accumulate: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 0.5}
    plain = fitted(tmp_path / "plain", None, **settings)
    plain_state = everything(plain, plain.optimizers().optimizer)
    path = tmp_path / "monitor.jsonl"
    callback = MonitorCallback(module_loss, 12, path=path, effort=Effort(pairs=4), on_error="raise")
    watched = fitted(tmp_path / "watched", callback, **settings)
    assert everything(watched, watched.optimizers().optimizer) == plain_state

    records = read_monitor(path)
    steps = 48 // accumulate
    assert [r.step for r in records] == list(range(12, steps + 1, 12))
    assert records[0].batch_size == 16 * accumulate
    assert records[0].trace_noise_of_pairs.n >= 2
    assert [r.effective_lr for r in records] == pytest.approx([0.5 * 0.5 ** (r.step // 16) for r in records])
    assert "steps 12" in str(callback.summary())
    logged = (tmp_path / "watched" / "logs" / "metrics.csv").read_text()
    assert "lightball/trace_noise" in logged


def test_what_the_callback_is_not_for(tmp_path: Path) -> None:
    class Two(Module):
        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.1)]

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=1,
        callbacks=[MonitorCallback(module_loss, path=tmp_path / "m.jsonl")],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    with pytest.raises(InputError, match="2 optimizers"):
        trainer.fit(Two(), DataLoader(TensorDataset(*examples()), batch_size=16))
    with pytest.raises(InputError, match="nothing is measured yet"):
        MonitorCallback(module_loss).summary()


@pytest.mark.parametrize(
    ("library", "module", "extra"),
    [("lightning", "lightning", "lightning"), ("transformers", "hugging_face", "transformers")],
)
def test_a_missing_library_is_told_with_its_extra(
    library: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"lightball.forecast.monitor.{module}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    for hidden in [m for m in sys.modules if m == library or m.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, hidden)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"pip install 'lightball\[{extra}\]'"):
        importlib.import_module(name)
