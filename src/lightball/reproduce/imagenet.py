"""ResNet-50 on ImageNet at batch sizes from small to large: SGDM tuned, and SGD at the matched rate.

Source: the experiment of arXiv:2307.15196 with the recipe of Goyal et al. (arXiv:1706.02677): 90 epochs, ÷ 10 at 30, 60
and 80 after a warm-up of 5, γ = 0.1 B/256 in the sum form, which is η = B/256 at β = 0.9; weight decay 1e-4, none on
BatchNorm; BatchNorm in groups of 32; accuracy as the median of the last five epochs. The paper's grid for γ are powers
of two times 0.1; here they are relative to B/256. Its batch sizes, rates and accuracies are not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightball.errors import InputError
from lightball.reproduce.pairs import Pairs, choice_of, pairs_of
from lightball.reproduce.parts import Part, PartPlan, Progressed, plan_parts, read_parts, run_parts
from lightball.reproduce.scales import Scale
from lightball.stats.decision import FEWEST_PAIRS
from lightball.studies.engines.devices import choose_device
from lightball.studies.ledger import Observer
from lightball.studies.result_json import as_json
from lightball.studies.settings import Precision, Settings
from lightball.studies.study import Study
from lightball.studies.tuning import Choice
from lightball.workloads import Workload
from lightball.workloads.imagenet import imagenet

REFERENCE = 256
"""The batch size that rates are given for; at others they are in proportion to it."""


@dataclass(frozen=True)
class ImagenetSettings:
    """How the experiment is made; the defaults are the paper's scale.

    Args:
        batch_sizes: B, each compared by itself.
        lr: γ of the sum form to try for SGDM at B = 256; at another B they are B/256 times as large. η = γ/(1 − β).
        momentum: β of SGDM.
        epochs, schedule: of a run; positions of the schedule are fractions of it.
        seeds: pairs at each batch size.
        tuning_seeds: further ones, on which SGDM's rate is chosen by validation accuracy.
        max_extensions: how often each end of the grid may grow.
        weight_decay: none on biases and BatchNorm.
        micro_batch: examples that are computed at once, over all processes; a larger batch is accumulated.
        bn_group: samples that BatchNorm normalises together.
        depth, size: of the network, and its images' rows and columns.
        num_validation, measured: training images held out to choose by, and those that the training loss is measured
            on; None: see :func:`lightball.workloads.imagenet.imagenet`.
        max_broken: images that may fail to decode.
        decoders: processes that decode; None: as many as there are cores.
        precision: None: bfloat16 on a GPU, float32 on the CPU.
        compile: run training steps through ``torch.compile``.
        margin_accuracy: the difference in test accuracy that does not matter.
        data: folder of the images; None: what LIGHTBALL_DATA names, or else the Hugging Face hub.
        hub: the data set there.

    Raises:
        InputError: one line on the first value that cannot be used; others are checked by what uses them.
    """

    batch_sizes: tuple[int, ...] = (64, 256, 1024, 4096, 16384)
    lr: tuple[float, ...] = (0.05, 0.1, 0.2)
    momentum: float = 0.9
    epochs: int = 90
    schedule: str = "warmup:0.055556+step:0.333333,0.666667,0.888889:0.1"
    seeds: int = FEWEST_PAIRS
    tuning_seeds: int = 1
    max_extensions: int = 2
    weight_decay: float = 1e-4
    micro_batch: int = 256
    bn_group: int = 32
    depth: int = 50
    size: int = 224
    num_validation: int | None = None
    measured: int | None = 50_000
    max_broken: int = 100
    decoders: int | None = None
    precision: Precision | None = None
    compile: bool = False
    margin_accuracy: float = 0.005
    data: Path | None = None
    hub: str = "ILSVRC/imagenet-1k"

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_sizes", tuple(sorted(set(self.batch_sizes))))
        if not self.batch_sizes:
            raise InputError("batch-sizes is empty, but must be at least one")
        if self.seeds < FEWEST_PAIRS:
            raise InputError(
                f"seeds is {self.seeds}, but must be at least {FEWEST_PAIRS}: a verdict needs as many pairs"
            )
        if not 0 < self.momentum < 1:
            raise InputError(
                f"momentum is {self.momentum:g}, but must be above 0 and below 1: SGD always runs beside it"
            )
        for batch_size in self.batch_sizes:
            if batch_size > self.micro_batch and batch_size % self.micro_batch:
                raise InputError(
                    f"micro-batch is {self.micro_batch}, but must divide the batch size {batch_size}, so that all of a "
                    "step's micro-batches are of one size"
                )

    def effective_lr(self, batch_size: int) -> tuple[float, ...]:
        """The grid at a batch size, as η."""
        return tuple(float(f"{rate * batch_size / REFERENCE / (1 - self.momentum):.6g}") for rate in self.lr)

    def lr_at_reference(self, effective: float, batch_size: int) -> float:
        """An η at a batch size as γ at B = 256."""
        return effective * (1 - self.momentum) * REFERENCE / batch_size


PRESETS: Mapping[Scale, ImagenetSettings] = MappingProxyType(
    {
        "smoke": ImagenetSettings(
            batch_sizes=(32, 64),
            lr=(0.1,),
            epochs=2,
            max_extensions=0,
            micro_batch=32,
            depth=18,
            size=32,
            measured=32,
            max_broken=4,
            decoders=1,
        ),
        "cpu": ImagenetSettings(
            batch_sizes=(32, 256),
            epochs=18,
            max_extensions=0,
            micro_batch=64,
            depth=18,
            size=64,
            measured=2_000,
            decoders=1,
        ),
        "gpu": ImagenetSettings(
            batch_sizes=(64, 1024), epochs=18, max_extensions=0, depth=18, size=112, measured=10_000
        ),
        "paper": ImagenetSettings(),
    }
)


@dataclass(frozen=True)
class AtBatchSize:
    """What is found at one batch size; ``choice`` is SGDM's, None while it is tuned, ``pairs`` None until there are."""

    batch_size: int
    choice: Choice | None
    pairs: Pairs | None
    finished: bool


@dataclass(frozen=True)
class ImagenetResult:
    """What is found so far, by batch size; ``studies`` hold all of it."""

    settings: ImagenetSettings
    batches: tuple[AtBatchSize, ...]
    finished: bool
    seconds: float
    studies: Mapping[str, Study]

    @property
    def pairs(self) -> tuple[Pairs, ...]:
        """Those that there are, by increasing batch size."""
        return tuple(batch.pairs for batch in self.batches if batch.pairs)

    def as_json(self) -> dict[str, Any]:
        """Settings, rates, scores, gaps, and the study of each part, as plain numbers; null for what is not known."""
        given = {**asdict(self.settings), "data": self.settings.data and str(self.settings.data)}
        return {
            "experiment": "imagenet",
            "settings": given,
            "finished": self.finished,
            "seconds": self.seconds,
            "batches": [
                {
                    "batch_size": batch.batch_size,
                    "effective_lr": batch.choice.effective_lr if batch.choice else None,
                    "finished": batch.finished,
                    **(batch.pairs.as_json() if batch.pairs else {}),
                }
                for batch in self.batches
            ],
            "studies": {name: as_json(study.result) for name, study in self.studies.items()},
        }


def imagenet_parts(settings: ImagenetSettings, device: str) -> list[Part]:
    """A comparison for each batch size. ``device`` decides the arithmetic where the settings leave it open."""
    workload = partial(_workload, settings)
    return [Part(f"batch-{b}", workload, _study(settings, device, b)) for b in settings.batch_sizes]


def plan_imagenet(
    settings: ImagenetSettings, *, out: str | Path, device: str = "auto", workers: int | None = None
) -> list[PartPlan]:
    """What the experiment will cost; see :func:`lightball.reproduce.parts.plan_parts`."""
    device = choose_device(device)
    parts = imagenet_parts(settings, device)
    return plan_parts(parts, out=out, device=device, workers=workers or 1, keep_runs=True)


def run_imagenet(
    settings: ImagenetSettings,
    *,
    out: str | Path,
    device: str = "auto",
    workers: int | None = None,
    deadline: float | None = None,
    observer: Observer | None = None,
) -> ImagenetResult:
    """Run the experiment, as far as time allows; see :func:`lightball.reproduce.parts.run_parts`.

    Raises:
        InputError: one line on what cannot be used.
    """
    device = choose_device(device)
    progressed = run_parts(
        imagenet_parts(settings, device),
        out=out,
        device=device,
        workers=workers or 1,  # each run has decoding processes of its own
        deadline=deadline,
        observer=observer,
        keep_runs=True,
    )
    return _result(settings, progressed)


def read_imagenet(settings: ImagenetSettings, out: str | Path) -> ImagenetResult:
    """What is finished of the experiment in a folder; no run is changed."""
    return _result(settings, read_parts(imagenet_parts(settings, "cpu"), out=out))


def _result(settings: ImagenetSettings, progressed: Progressed) -> ImagenetResult:
    studies = progressed.studies
    batches = tuple(_at(settings, b, studies[name]) for b in settings.batch_sizes if (name := f"batch-{b}") in studies)
    seconds = sum(study.seconds or 0.0 for study in studies.values())
    return ImagenetResult(settings, batches, progressed.finished, seconds, studies)


def _at(settings: ImagenetSettings, batch_size: int, study: Study) -> AtBatchSize:
    (batch,) = study.batches
    choice = choice_of(batch)
    rate = choice.effective_lr if choice else None
    pairs = None if rate is None else pairs_of(batch_size, batch, rate, settings.momentum)
    return AtBatchSize(batch_size, choice, pairs, study.finished)


def _study(settings: ImagenetSettings, device: str, batch_size: int) -> Settings:
    return Settings(
        batch_sizes=(batch_size,),
        lr=settings.effective_lr(batch_size),
        momentum=(settings.momentum,),
        epochs=settings.epochs,
        stages=(settings.seeds,),
        tuning_seeds=settings.tuning_seeds,
        margin_accuracy=settings.margin_accuracy,
        select="validation_accuracy",
        weight_decay=settings.weight_decay,
        decay="matrices",
        schedule=settings.schedule,
        max_extensions=settings.max_extensions,
        compile="on" if settings.compile else "off",
        engine="process",
        checkpoint="median",
        confirm_rates="selected",
        tune="sgdm",
        precision=settings.precision or ("bfloat16" if device.startswith("cuda") else "float32"),
        accumulate=-(-batch_size // settings.micro_batch),
    )


@cache  # to list a million files takes long
def _workload(settings: ImagenetSettings) -> Workload:
    return imagenet(
        settings.data,
        hub=settings.hub,
        size=settings.size,
        depth=settings.depth,
        bn_group=settings.bn_group,
        num_validation=settings.num_validation,
        measured=settings.measured,
        workers=settings.decoders,
        max_broken=settings.max_broken,
    )
