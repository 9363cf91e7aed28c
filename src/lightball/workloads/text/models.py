"""Pretrained language models as classifiers of token ids: by a linear layer, or by the words that they expect."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from lightball.errors import InputError
from lightball.workloads.text.pretrained import load_weights

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Pooling = Literal["mean", "first"]
# Where a masked-LM head is a module that takes hidden states, it is asked about the mask alone, not about each token.
_LM_HEADS = {"roberta": "lm_head", "xlm-roberta": "lm_head", "camembert": "lm_head", "bert": "cls"}


class EncoderClassifier(nn.Module):
    """An encoder, the mean of its last hidden states over real tokens (or the first of them), and a linear layer.

    The linear layer is drawn as ``transformers`` draws its own, N(0, initializer_range²) with bias 0, from torch's
    generator.

    Args:
        encoder: a model of ``transformers`` without head.
        num_classes: of the linear layer.
        padding: the id of the padding token.
        separator: the id of the token after the first sentence of a pair, for encoders that tell the sentences apart
            (``token_type_ids``); None for others, and for single sentences.
        pooling: "mean" or "first".
        dropout: of the pooled state.

    Shapes: token ids ``[example, length]`` to logits ``[example, class]``.

    Raises:
        InputError: pooling is neither.
    """

    def __init__(
        self,
        encoder: nn.Module,
        num_classes: int,
        *,
        padding: int,
        separator: int | None = None,
        pooling: Pooling = "mean",
        dropout: float = 0.0,
    ) -> None:
        if pooling not in get_args(Pooling):
            raise InputError(f"pooling is {pooling!r}, but must be {' or '.join(get_args(Pooling))}")
        super().__init__()
        config: Any = encoder.config
        self.encoder = encoder
        self.padding, self.separator, self.pooling = padding, separator, pooling
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(config.hidden_size, num_classes)
        nn.init.normal_(self.head.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Int[Tensor, "example length"]) -> Float[Tensor, "example class"]:
        """The logits."""
        tokens, real = without_padding(tokens, self.padding)
        sentence = {} if self.separator is None else {"token_type_ids": _second_sentence(tokens, self.separator, real)}
        hidden = self.encoder(input_ids=tokens, attention_mask=real.long(), **sentence).last_hidden_state
        if self.pooling == "first":
            pooled = hidden[:, 0]
        else:
            pooled = (hidden * real.unsqueeze(-1)).sum(dim=1) / real.sum(dim=1, keepdim=True)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


class PromptClassifier(nn.Module):
    """A masked language model; the logits of a few words where the mask is.

    Args:
        language_model: a model of ``transformers`` with a masked-LM head.
        words: token ids of the label words, by label.
        padding, mask: ids of these tokens. The first mask of a row counts.

    Shapes: token ids ``[example, length]`` to logits ``[example, class]``.
    """

    def __init__(self, language_model: nn.Module, words: Sequence[int], *, padding: int, mask: int) -> None:
        super().__init__()
        config: Any = language_model.config
        self.language_model = language_model
        self.padding, self.mask = padding, mask
        self.register_buffer("words", torch.tensor(words))
        self.head_name = _LM_HEADS.get(config.model_type)

    def forward(self, tokens: Int[Tensor, "example length"]) -> Float[Tensor, "example class"]:
        """The logits."""
        tokens, real = without_padding(tokens, self.padding)
        inputs = {"input_ids": tokens, "attention_mask": real.long()}
        at_mask = torch.arange(len(tokens), device=tokens.device), (tokens == self.mask).int().argmax(dim=1)
        model: Any = self.language_model
        if self.head_name is None:
            logits: Tensor = model(**inputs).logits[at_mask]
        else:
            logits = getattr(model, self.head_name)(model.base_model(**inputs).last_hidden_state[at_mask])
        words: Tensor = self.words  # type: ignore[assignment]
        return logits[:, words]


@dataclass(frozen=True)
class MakeClassifier:
    """Makes an :class:`EncoderClassifier` from pretrained weights; for ``dropout`` None is the model's own."""

    model: str
    num_classes: int
    padding: int
    separator: int | None
    pooling: Pooling = "mean"
    dropout: float | None = None

    def __call__(self) -> EncoderClassifier:
        encoder = _copied(load_weights(self.model, "encoder"), self.dropout)
        config: Any = encoder.config
        dropout = getattr(config, "hidden_dropout_prob", 0.0) if self.dropout is None else self.dropout
        return EncoderClassifier(
            encoder,
            self.num_classes,
            padding=self.padding,
            separator=self.separator,
            pooling=self.pooling,
            dropout=dropout,
        )


@dataclass(frozen=True)
class MakePrompt:
    """Makes a :class:`PromptClassifier` from pretrained weights; for ``dropout`` None is the model's own."""

    model: str
    words: tuple[int, ...]
    padding: int
    mask: int
    dropout: float | None = None

    def __call__(self) -> PromptClassifier:
        language_model = _copied(load_weights(self.model, "masked-lm"), self.dropout)
        return PromptClassifier(language_model, self.words, padding=self.padding, mask=self.mask)


def without_padding(
    tokens: Int[Tensor, "example length"], padding: int
) -> tuple[Int[Tensor, "example longest"], Bool[Tensor, "example longest"]]:
    """The tokens up to the longest row, and which of them are real."""
    real = tokens != padding
    longest = int(real.sum(dim=1).max())
    return tokens[:, :longest], real[:, :longest]


def _second_sentence(tokens: Tensor, separator: int, real: Tensor) -> Int[Tensor, "example length"]:
    """1 for the real tokens after the first separator, as BERT numbers the sentences of a pair."""
    ends = (tokens == separator).int()
    return ((ends.cumsum(dim=1) > ends) & real).long()


def _copied(model: nn.Module, dropout: float | None) -> nn.Module:
    copied = deepcopy(model)
    for module in copied.modules():
        if dropout is not None and isinstance(module, nn.Dropout):
            module.p = dropout
    return copied
