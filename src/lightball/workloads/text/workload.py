"""Few-shot fine-tuning of a pretrained language model, as a workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from torch import nn

from lightball.errors import InputError
from lightball.workloads.text.encoding import Encoder, Head, word_ids
from lightball.workloads.text.few_shot import evaluation_rows, sample
from lightball.workloads.text.models import MakeClassifier, MakePrompt, Pooling
from lightball.workloads.text.pretrained import load_tokenizer, load_weights
from lightball.workloads.text.reading import Rows, root_of
from lightball.workloads.text.tasks import TextTask, find_task
from lightball.workloads.workload import Data, Workload


@dataclass(frozen=True)
class Draw:
    """Seed → training and selection data; ``official`` pairs seeds with the seeds of the samples that they get."""

    encoder: Encoder
    k: int
    data: Path | None = field(repr=False)  # where rows lie, not what they say
    official: tuple[tuple[int, int], ...] = ()

    def __call__(self, seed: int) -> tuple[Data, Data]:
        return _drawn(self, dict(self.official).get(seed, seed))


def few_shot(
    task: str | TextTask,
    model: str,
    *,
    head: Head = "classifier",
    k: int = 512,
    data: str | Path | None = None,
    official: Mapping[int, int] | None = None,
    pooling: Pooling = "mean",
    dropout: float | None = None,
    length: int | None = None,
    num_test: int = 1000,
) -> Workload:
    """Fine-tuning on k examples a class, another sample for every seed: see :func:`few_shot.sample`.

    The weights are loaded once a process and copied for each model; a linear layer is drawn anew. It needs the
    process engine.

    Args:
        task: one of TASKS, or its name.
        model: hub id or folder of a pretrained model with its tokenizer.
        head: "classifier", a fresh linear layer, or "prompt", the masked-LM head at the mask of the task's template.
        k: examples of a class to train on, and as many to select on.
        data: the folder that holds the tasks' folders, by default what LIGHTBALL_DATA names; without either the rows
            come from the Hugging Face hub.
        official: seeds of a study → seeds of the samples that they get, such as those of the MeZO code; all other
            seeds have a sample of their own.
        pooling: for the classifier, "mean" over tokens or the "first" token.
        dropout: of the whole model; None: the model's own, in the classifier before the linear layer too.
        length: tokens of a row at most; None: 128, and 256 for pairs, or what the model takes.
        num_test: test examples at most.

    Raises:
        InputError: no such task, a model that cannot be used for this, too few examples, or rows that cannot be read.
    """
    if dropout is not None and not 0 <= dropout < 1:
        raise InputError(f"dropout is {dropout!r}, but must be a number from 0 up and below 1")
    known = find_task(task) if isinstance(task, str) else task
    root = root_of(data)
    encoder = Encoder(known, model, head, length)
    make_model = _maker(encoder, pooling, dropout)
    draw = Draw(encoder, k, root, tuple((official or {}).items()))
    train, validation = draw(0)
    test = _shortest_first(encoder, evaluation_rows(known, num_test, root))
    return Workload(f"{known.name}-{head}-k{k}", make_model, train, validation, test, draw=draw)


def _maker(encoder: Encoder, pooling: Pooling, dropout: float | None) -> Callable[[], nn.Module]:
    """What makes the model; its weights are loaded here, so that what they lack is known before rows are read."""
    task, tokenizer = encoder.task, load_tokenizer(encoder.model)
    if encoder.head == "prompt":
        words = word_ids(task, encoder.model)
        load_weights(encoder.model, "masked-lm")
        return MakePrompt(encoder.model, words, tokenizer.pad_token_id, tokenizer.mask_token_id, dropout)
    load_weights(encoder.model, "encoder")
    numbered = task.pair and "token_type_ids" in tokenizer.model_input_names
    separator = tokenizer.sep_token_id if numbered else None
    return MakeClassifier(encoder.model, len(task.labels), tokenizer.pad_token_id, separator, pooling, dropout)


@lru_cache(maxsize=8)  # of a few seeds, each of which several runs train on one after the other
def _drawn(draw: Draw, seed: int) -> tuple[Data, Data]:
    train, selection = sample(draw.encoder.task, draw.k, seed, draw.data)
    return _shortest_first(draw.encoder, train), _shortest_first(draw.encoder, selection)


def _shortest_first(encoder: Encoder, rows: Rows) -> Data:
    """The examples by length: neighbours are evaluated together, and a short one is padded to the longest of them."""
    data = encoder(rows)
    order = (data.inputs != load_tokenizer(encoder.model).pad_token_id).sum(dim=1).argsort(stable=True)
    return Data(data.inputs[order], data.targets[order])
