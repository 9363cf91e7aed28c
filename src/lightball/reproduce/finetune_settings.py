"""How the few-shot experiment is made, at each scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from lightball.errors import InputError
from lightball.reproduce.scales import Scale
from lightball.stats.decision import FEWEST_PAIRS
from lightball.studies.settings import Precision
from lightball.workloads.text import TASKS, find_task
from lightball.workloads.text.encoding import Head


@dataclass(frozen=True)
class FinetuneSettings:
    """How the experiment is made; the defaults are the paper's scale.

    Args:
        model: hub id or folder of a pretrained model.
        head: "prompt" (masked-LM head at the mask of a template) or "classifier" (a fresh linear layer).
        tasks: of :data:`lightball.workloads.text.TASKS`.
        k: examples of a class to train on, and as many to select on.
        seeds: pairs, each on a sample of its own; the first five are the MeZO code's where the data have them.
        tuning_seeds: further samples, on which rates are chosen.
        num_steps, eval_every, batch_size: of a run; at each evaluation the checkpoint may be the best so far.
        lr: effective learning rates η to try for both rules; SGDM's rate in torch is η (1 − β).
        max_extensions: how often each end of the grid may grow.
        momentum: β of SGDM.
        schedule, clip_norm, weight_decay: as :class:`lightball.studies.Settings` has them; no weight decay on biases
            and normalisation.
        length: tokens of a row at most; None: 128, and 256 for pairs.
        dropout: of the whole model; None: the model's own.
        num_test: test examples at most.
        margin_accuracy: the difference in test accuracy that does not matter.
        in_backward: update each parameter within the backward pass, which saves the memory of the gradients.
        precision: "float32", or mixed precision with "bfloat16" or "float16".
        keep_runs: keep each run's curve, with test accuracies along it, and checkpoints while it runs, so that a run
            that is stopped goes on; for runs that are long.
        data: folder of the tasks' data; None: what LIGHTBALL_DATA names, or else the Hugging Face hub.

    Raises:
        InputError: no such task, or fewer seeds than a verdict needs; other values are checked by what uses them.
    """

    model: str = "roberta-large"
    head: Head = "prompt"
    tasks: tuple[str, ...] = tuple(TASKS)
    k: int = 512
    seeds: int = 6
    tuning_seeds: int = 2
    num_steps: int = 1000
    eval_every: int = 100
    batch_size: int = 8
    lr: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    max_extensions: int = 2
    momentum: float = 0.9
    schedule: str = "linear"
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    length: int | None = None
    dropout: float | None = None
    num_test: int = 1000
    margin_accuracy: float = 0.01
    in_backward: bool = False
    precision: Precision = "float32"
    keep_runs: bool = False
    data: Path | None = None

    def __post_init__(self) -> None:
        for task in self.tasks:
            find_task(task)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"tasks are {','.join(self.tasks) or 'none'}, but must be one or several, each once")
        if self.seeds < FEWEST_PAIRS:
            raise InputError(
                f"seeds is {self.seeds}, but must be at least {FEWEST_PAIRS}: a verdict needs as many pairs (the "
                "paper's five and further ones)"
            )

    @property
    def model_name(self) -> str:
        """What to call the model: its hub id, or the last two names of its folder's path."""
        return "/".join(Path(self.model).absolute().parts[-2:]) if Path(self.model).is_dir() else self.model


PRESETS: Mapping[Scale, FinetuneSettings] = MappingProxyType(
    {
        "smoke": FinetuneSettings(
            tasks=("sst2",),
            k=4,
            tuning_seeds=1,
            num_steps=4,
            eval_every=2,
            lr=(0.05,),
            max_extensions=0,
            length=32,
            num_test=16,
        ),
        "cpu": FinetuneSettings(
            k=64, num_steps=192, eval_every=48, lr=(0.02, 0.05, 0.125), max_extensions=0, length=64
        ),
        "gpu": FinetuneSettings(
            tasks=("sst2", "trec"),
            k=128,
            num_steps=500,
            tuning_seeds=1,
            lr=(0.003, 0.01, 0.03),
            max_extensions=1,
            precision="bfloat16",
        ),
        "paper": FinetuneSettings(keep_runs=True),
    }
)
