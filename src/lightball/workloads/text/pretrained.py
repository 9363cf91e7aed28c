"""Tokenizers and pretrained weights, by hub id or folder, through ``transformers``; each is loaded once a process."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import nn

from lightball.errors import InputError, reason_of

Kind = Literal["encoder", "masked-lm"]
_CLASSES: dict[Kind, str] = {"encoder": "AutoModel", "masked-lm": "AutoModelForMaskedLM"}


@cache
def load_tokenizer(name: str) -> Any:
    """The tokenizer of a hub id or a folder.

    Raises:
        InputError: transformers is not installed, or there is no tokenizer to load.
    """
    with _quiet() as transformers, _loading("tokenizer", name):
        return transformers.AutoTokenizer.from_pretrained(name)


@cache
def load_weights(name: str, kind: Kind) -> nn.Module:
    """The pretrained model of a hub id or a folder, in float32. Copy it before training: the next call returns it too.

    The pooling layer that some encoders have above the first token is left out, since classifiers do without.

    Raises:
        InputError: transformers is not installed, the model cannot be loaded, or some of its weights would be random,
            such as those of a masked-LM head that it does not have.
    """
    # Weights that a checkpoint lacks are drawn; that must not move the generator which the first caller has seeded.
    gpus = list(range(torch.cuda.device_count()))
    with _quiet() as transformers, torch.random.fork_rng(devices=gpus), _loading("model", name):
        auto = getattr(transformers, _CLASSES[kind])
        model, info = auto.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing and kind == "masked-lm":
        raise InputError(
            f"the model {name!r} has no trained masked-LM head ({missing[0]} is missing), which prompts need: take one "
            "that has, such as roberta-large, or head 'classifier'"
        )
    if missing:
        raise InputError(f"the model {name!r} lacks weights, first {missing[0]}: give a complete pretrained model")
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model  # type: ignore[no-any-return]


@contextmanager
def _loading(what: str, name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the network, of the files, of transformers: there is no common kind
        raise InputError(
            f"cannot load the {what} {name!r}: {reason_of(error)} (give a folder with a pretrained model, or a hub id "
            "where there is network)"
        ) from error


@contextmanager
def _quiet() -> Iterator[Any]:
    """transformers, without its bars and tables inside.

    Raises:
        InputError: it is not installed.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise InputError("text models need transformers: pip install 'lightball[text]'") from error
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
