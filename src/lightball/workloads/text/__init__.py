"""Few-shot fine-tuning of pretrained language models on the text classification tasks of the paper."""

from lightball.workloads.text.few_shot import OFFICIAL_K, OFFICIAL_SEEDS, evaluation_rows, sample
from lightball.workloads.text.models import EncoderClassifier, PromptClassifier
from lightball.workloads.text.tasks import TASKS, TextTask, find_task
from lightball.workloads.text.workload import few_shot

__all__ = [
    "OFFICIAL_K",
    "OFFICIAL_SEEDS",
    "TASKS",
    "EncoderClassifier",
    "PromptClassifier",
    "TextTask",
    "evaluation_rows",
    "few_shot",
    "find_task",
    "sample",
]
