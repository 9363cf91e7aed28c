"""From rows of text to token ids: a sentence, a pair, or a prompt with a mask."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from lightball.errors import InputError
from lightball.workloads.text.pretrained import load_tokenizer
from lightball.workloads.text.reading import Rows
from lightball.workloads.text.tasks import TextTask
from lightball.workloads.workload import Data

if TYPE_CHECKING:
    from jaxtyping import Int

Head = Literal["classifier", "prompt"]
Texts = Sequence[tuple[str, ...]]
_PLACES = re.compile(r"(<s>|<s1>|<s2>|<mask>)")
_COLUMN = {"<s>": 0, "<s1>": 0, "<s2>": 1}


@dataclass(frozen=True)
class Encoder:
    """Rows → token ids ``[example, length]`` and labels, for a model by its tokenizer.

    Rows end in padding, whose id tells the model what to leave out. A classifier reads a sentence or a pair in the
    form of its tokenizer; a prompt is the template between the tokens of beginning and end. What is longer than
    ``length`` tokens loses the end of its sentence, of the longer one in a pair; template and mask stay whole.

    Args:
        task: what is read.
        model: hub id or folder of the tokenizer.
        head: "classifier" or "prompt".
        length: tokens of a row at most; None: 128, and 256 for pairs, or what the model takes.

    Raises:
        InputError: a value that cannot be used, or a tokenizer that has not the tokens which this needs.
    """

    task: TextTask
    model: str
    head: Head = "classifier"
    length: int | None = None

    def __post_init__(self) -> None:
        if self.head not in get_args(Head):
            raise InputError(f"head is {self.head!r}, but must be {' or '.join(get_args(Head))}")
        tokenizer = load_tokenizer(self.model)
        for token in ("pad", "mask", "cls", "sep") if self.head == "prompt" else ("pad",):
            if getattr(tokenizer, f"{token}_token_id") is None:
                raise InputError(
                    f"the tokenizer of {self.model!r} has no {token} token, which head {self.head!r} needs: "
                    "take a model such as BERT or RoBERTa"
                )
        if self.length is not None and not 8 <= self.length <= tokenizer.model_max_length:
            raise InputError(
                f"length is {self.length}, but must be from 8 to {tokenizer.model_max_length}, the tokens that "
                f"{self.model!r} takes"
            )

    def __call__(self, rows: Rows) -> Data:
        tokenizer = load_tokenizer(self.model)
        length = self.length or min(256 if self.task.pair else 128, tokenizer.model_max_length)
        ids = prompt_ids if self.head == "prompt" else sentence_ids
        padded = _padded(ids(rows.texts, self.task, tokenizer, length), tokenizer.pad_token_id)
        return Data(padded, torch.tensor(rows.labels))


def sentence_ids(texts: Texts, task: TextTask, tokenizer: Any, length: int) -> list[list[int]]:
    """Token ids of each sentence or pair, in the tokenizer's own form."""
    columns = [list(column) for column in zip(*texts, strict=True)]
    encoded = tokenizer(*columns, truncation="longest_first", max_length=length)
    return encoded["input_ids"]  # type: ignore[no-any-return]


def prompt_ids(texts: Texts, task: TextTask, tokenizer: Any, length: int) -> list[list[int]]:
    """Token ids of each prompt.

    As the MeZO code reads its templates: no blank before the mask or a punctuation mark, one before other words and
    before a sentence that does not begin the prompt; of a pair, the premise gives its final punctuation mark to the
    template and the hypothesis goes on in lower case. (That code drops the last character, whatever it is.)

    Raises:
        InputError: the template alone fills ``length``.
    """
    parts = [part for part in _PLACES.split(task.template) if part.strip()]
    sentences = {part: _sentences(texts, task, tokenizer, part, first=not i) for i, part in enumerate(parts)}
    fixed = {part: _fixed_ids(part, tokenizer) for part in parts if part not in _COLUMN}
    room = length - 2 - sum(map(len, fixed.values()))
    if room < len(task.columns):
        raise InputError(
            f"length is {length}, but the template {task.template!r} takes {length - room}: give at least "
            f"{length - room + len(task.columns)}"
        )
    rows = []
    for i in range(len(texts)):
        of_row = _shortened({part: sentences[part][i] for part in parts if part in _COLUMN}, room)
        tokens = [token for part in parts for token in (of_row.get(part) or fixed.get(part) or [])]
        rows.append([tokenizer.cls_token_id, *tokens, tokenizer.sep_token_id])
    return rows


def word_ids(task: TextTask, model: str) -> tuple[int, ...]:
    """The token of each label word, by label; words follow a blank, as inside a sentence.

    Raises:
        InputError: the tokenizer splits a word, or does not know it.
    """
    tokenizer = load_tokenizer(model)
    found = []
    for word in task.words:
        ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            pieces = tokenizer.convert_ids_to_tokens(ids)
            raise InputError(
                f"the label word {word!r} of task {task.name!r} is {len(ids)} tokens for {model!r}, {pieces}, but must "
                "be one that it knows: take another model, or head 'classifier'"
            )
        found.append(ids[0])
    return tuple(found)


def _sentences(texts: Texts, task: TextTask, tokenizer: Any, part: str, first: bool) -> list[list[int]]:
    if part not in _COLUMN:
        return []
    column = [text[_COLUMN[part]] for text in texts]
    if part == "<s1>":
        column = [text[:-1] if text and not text[-1].isalnum() else text for text in column]
    if part == "<s2>":
        column = [text[:1].lower() + text[1:] for text in column]
    blank = "" if first else " "
    return _ids([blank + text for text in column], tokenizer)


def _fixed_ids(part: str, tokenizer: Any) -> list[int]:
    if part == "<mask>":
        return [tokenizer.mask_token_id]
    words = part.strip()
    return _ids([f" {words}" if words[0].isalnum() else words], tokenizer)[0]


def _ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[no-any-return]


def _shortened(sentences: dict[str, list[int]], room: int) -> dict[str, list[int]]:
    """The sentences without the end of the longest, as long as together they have more than ``room`` tokens."""
    lengths = {part: len(tokens) for part, tokens in sentences.items()}
    while sum(lengths.values()) > room:
        lengths[max(lengths, key=lengths.__getitem__)] -= 1
    return {part: tokens[: lengths[part]] for part, tokens in sentences.items()}


def _padded(rows: list[list[int]], padding: int) -> Int[Tensor, "example length"]:
    ids = torch.full((len(rows), max(map(len, rows))), padding)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    return ids
