"""The text classification tasks: where their rows are, and how a prompt asks for the label.

Templates and label words are those of the MeZO code, as are the splits but for SNLI's test; labels are numbered as in
the data on the Hugging Face hub.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightball.errors import InputError


@dataclass(frozen=True)
class Split:
    """Rows by the name that the hub gives them, and by patterns of Parquet files in a folder.

    Without ``patterns`` the files are ``<name>-*.parquet``; of several, those that match nothing may be missing, but
    for the first.
    """

    name: str
    patterns: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return self.patterns or (f"{self.name}-*.parquet",)


@dataclass(frozen=True)
class TextTask:
    """A task of one sentence or a pair, and one of several labels.

    Args:
        name: of the task, and of its folder among the data.
        hub: its id on the Hugging Face hub.
        config: of the data set there, if it has several.
        columns: of the texts, one or two.
        label_column: of the labels, whole numbers from 0; −1 where there is none.
        labels: their names, by number.
        template: the prompt: ``<s>`` is the sentence, ``<s1>`` and ``<s2>`` are a pair, ``<mask>`` is the mask token.
        words: what stands for each label at the mask, by number.
        train, test: few-shot samples come from ``train``; accuracy is reported on ``test``.
        scarce: names of labels with too few examples for large samples: training takes what it can, and the
            selection data what is left. All others must have enough.
    """

    name: str
    hub: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    template: str
    words: tuple[str, ...]
    test: Split
    train: Split = Split("train")
    label_column: str = "label"
    config: str | None = None
    scarce: tuple[str, ...] = ()

    @property
    def pair(self) -> bool:
        return len(self.columns) == 2


_SENTIMENT = "<s> It was <mask>."
_INFERENCE = "<s1> ? <mask> , <s2>"
_ENTAILED = ("entailment", "neutral", "contradiction")

TASKS = {
    task.name: task
    for task in (
        TextTask(
            "sst2",
            "stanfordnlp/sst2",
            ("sentence",),
            ("negative", "positive"),
            _SENTIMENT,
            ("terrible", "great"),
            test=Split("validation"),  # the hub's test split has no labels
        ),
        TextTask(
            "sst5",
            "SetFit/sst5",
            ("text",),
            ("very negative", "negative", "neutral", "positive", "very positive"),
            _SENTIMENT,
            ("terrible", "bad", "okay", "good", "great"),
            test=Split("test"),
        ),
        TextTask(
            "trec",
            "CogComp/trec",
            ("text",),
            ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
            "<mask> : <s>",
            ("Expression", "Entity", "Description", "Human", "Location", "Number"),
            test=Split("test"),
            # The official training split, some of which a folder may keep apart; official samples come from all of it.
            train=Split("train", ("train-*.parquet", "validation-*.parquet")),
            label_column="coarse_label",
            scarce=("ABBR", "LOC", "NUM"),
        ),
        TextTask(
            "snli",
            "stanfordnlp/snli",
            ("premise", "hypothesis"),
            _ENTAILED,
            _INFERENCE,
            ("Yes", "Maybe", "No"),
            test=Split("test"),
        ),
        TextTask(
            "mnli",
            "nyu-mll/glue",
            ("premise", "hypothesis"),
            _ENTAILED,
            _INFERENCE,
            ("Yes", "Maybe", "No"),
            test=Split("validation_matched"),
            config="mnli",
        ),
    )
}


def find_task(name: str) -> TextTask:
    """The task called ``name``.

    Raises:
        InputError: there is none.
    """
    if name not in TASKS:
        raise InputError(f"unknown text task {name!r}: choose one of {', '.join(TASKS)}")
    return TASKS[name]
