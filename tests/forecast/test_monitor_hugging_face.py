"""The monitor in a real ``transformers.Trainer``, on a small BERT."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from monitored import everything, seed_all
from torch import Tensor, nn
from torch.utils.data import Dataset

os.environ["HF_HUB_OFFLINE"] = "1"

import transformers
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from lightball.errors import InputError
from lightball.forecast.monitor import Effort, read_monitor
from lightball.forecast.monitor.hugging_face import MonitorCallback

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
transformers.logging.set_verbosity_error()


class Sentences(Dataset[dict[str, Tensor]]):
    """Tokens, whose class is whether the first one is above the second."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(0, 50, (128, 6), generator=random)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        row = self.tokens[number]
        return {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": (row[0] > row[1]).long()}


def bert() -> nn.Module:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=8,
        )
    )


def trained(folder: Path, callback: MonitorCallback | None, sgd: bool = True, **settings: Any) -> Trainer:
    seed_all()
    model = bert()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9) if sgd else None
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=24,
        per_device_train_batch_size=8,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        logging_strategy="no",
        lr_scheduler_type="linear",
        **settings,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Sentences(),
        callbacks=[] if callback is None else [callback],
        optimizers=(optimizer, None),
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_is_monitored_and_the_same_to_the_bit(accumulate: int, tmp_path: Path) -> None:
    settings = {"gradient_accumulation_steps": accumulate}  # gradients are clipped to norm 1 by default
    plain = trained(tmp_path, None, **settings)
    plain_state = everything(plain.model, plain.optimizer.optimizer)
    path = tmp_path / "monitor.jsonl"
    callback = MonitorCallback(every=8, path=path, effort=Effort(pairs=4), on_error="raise")
    watched = trained(tmp_path, callback, **settings)
    assert everything(watched.model, watched.optimizer.optimizer) == plain_state
    assert not watched.model._forward_pre_hooks

    records = read_monitor(path)
    assert [r.step for r in records] == [8, 16, 24]
    assert records[0].batch_size == 8 * accumulate
    assert records[0].trace_noise_of_pairs.n >= 2
    assert 0.2 < records[0].trace_noise_of_pairs.value / records[0].trace_noise.value < 5
    # Linear decay over 24 steps; a record has the rate of the step that was made.
    assert [r.lr for r in records] == pytest.approx([0.02 * (1 - (r.step - 1) / 24) for r in records])
    assert all(r.error is None and r.sharpness is not None for r in records)
    assert "steps 8" in str(callback.summary())


def test_the_trainers_own_adamw_is_measured(tmp_path: Path) -> None:
    callback = MonitorCallback(every=12, path=tmp_path / "monitor.jsonl", on_error="raise")
    trained(tmp_path, callback, sgd=False)
    record = read_monitor(tmp_path / "monitor.jsonl")[-1]
    assert record.trace_noise.value > 0
    assert record.reason.startswith("the optimizer is AdamW")


def test_a_model_without_a_loss_is_an_error_in_the_record(tmp_path: Path) -> None:
    class Labelled(Trainer):
        pass

    def none(model: nn.Module, inputs: Any) -> Any:
        from lightball.forecast.monitor.hugging_face import loss_of_outputs

        return loss_of_outputs(model, {k: v for k, v in inputs.items() if k != "labels"})

    callback = MonitorCallback(none, every=12, path=tmp_path / "monitor.jsonl")
    trained(tmp_path, callback)
    records = read_monitor(tmp_path / "monitor.jsonl")
    assert len(records) == 2
    assert all("the model returns no loss for inputs" in (r.error or "") for r in records)
    with pytest.raises(InputError, match="nothing is measured yet"):
        MonitorCallback().summary()
