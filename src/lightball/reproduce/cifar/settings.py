"""How the experiment on CIFAR-10 is made, at four scales, and the comparisons that it consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from lightball.errors import InputError
from lightball.reproduce.parts import Part
from lightball.reproduce.scales import Scale
from lightball.stats.decision import FEWEST_PAIRS
from lightball.studies.settings import BatchNorm, Precision, Settings
from lightball.workloads import Workload
from lightball.workloads.cifar10 import NUM_VALIDATION, cifar10

RateConvention = Literal["effective", "torch"]
ELLS = (1, 2, 4, 8)
GRID = "grid"  # the part that tunes, and compares at ℓ = 1


@dataclass(frozen=True)
class CifarSettings:
    """How the experiment is made; the defaults are the paper's scale.

    Args:
        ells: ℓ of SVAG, 1 among them; None: as many of 1, 2, 4 and 8 as fit ``minutes``.
        lr: rates to try for SGDM, in ``rate_convention``.
        rate_convention: "torch" (the sum form's γ; η = γ/(1 − β)) or "effective" (η).
        epochs: those of ℓ = 1; None: as many as fit ``minutes``, from a measured step.
        batch_size: B.
        momentum: β of SGDM.
        seeds: pairs at each ℓ.
        tuning_seeds: further ones, on which SGDM's rate is chosen by validation accuracy.
        max_extensions: how often each end of the grid may grow.
        weight_decay, schedule, batch_norm: as :class:`lightball.studies.Settings` has them.
        affine, frozen_head, depth: see :class:`lightball.workloads.resnet.CifarResNet`.
        num_train, num_validation, num_test: images; None: all.
        precision, compile, channels_last: of the arithmetic; None: bfloat16, compiled and channels last on a GPU,
            float32 as it is on the CPU.
        margin_accuracy: the difference in test accuracy that does not matter.
        minutes: for the runs, where ``ells`` or ``epochs`` are to fit.
        data: folder of the images; None: what LIGHTBALL_DATA names, or else the Hugging Face hub.

    Raises:
        InputError: one line on the first value that cannot be used; others are checked by what uses them.
    """

    ells: tuple[int, ...] | None = ELLS
    lr: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8)
    rate_convention: RateConvention = "torch"
    epochs: int | None = 160
    batch_size: int = 512
    momentum: float = 0.9
    seeds: int = FEWEST_PAIRS
    tuning_seeds: int = 1
    max_extensions: int = 2
    weight_decay: float = 5e-4
    schedule: str = "step:0.5,0.75:0.1"
    batch_norm: BatchNorm = "each"
    affine: bool = True
    frozen_head: bool = False
    depth: int = 32
    num_train: int | None = None
    num_validation: int = NUM_VALIDATION
    num_test: int | None = None
    precision: Precision | None = None
    compile: bool | None = None
    channels_last: bool | None = None
    margin_accuracy: float = 0.005
    minutes: float = 21.0
    data: Path | None = None

    def __post_init__(self) -> None:
        if self.ells is not None:
            object.__setattr__(self, "ells", tuple(sorted(set(self.ells))))
            if not self.ells or self.ells[0] != 1:
                shown = ",".join(map(str, self.ells)) or "none"
                raise InputError(
                    f"ells is {shown}, but must have 1, SGD itself, and then whole numbers above: try 1,2,4"
                )
        if self.seeds < FEWEST_PAIRS:
            raise InputError(
                f"seeds is {self.seeds}, but must be at least {FEWEST_PAIRS}: a verdict needs as many pairs"
            )
        if self.rate_convention not in get_args(RateConvention):
            raise InputError(f"rate-convention is {self.rate_convention!r}, but must be effective or torch")
        if not 0 < self.momentum < 1:
            raise InputError(
                f"momentum is {self.momentum:g}, but must be above 0 and below 1: SGD always runs beside it"
            )

    @property
    def effective_lr(self) -> tuple[float, ...]:
        """The grid as η."""
        if self.rate_convention == "effective":
            return self.lr
        return tuple(float(f"{rate / (1 - self.momentum):.6g}") for rate in self.lr)

    def rate(self, effective: float) -> float:
        """An η in the convention of the settings."""
        return effective if self.rate_convention == "effective" else float(f"{effective * (1 - self.momentum):.6g}")


PRESETS: Mapping[Scale, CifarSettings] = MappingProxyType(
    {
        "smoke": CifarSettings(
            ells=(1, 2),
            lr=(0.02, 0.05),
            epochs=2,
            batch_size=32,
            max_extensions=0,
            depth=8,
            num_train=128,
            num_validation=64,
            num_test=64,
        ),
        "cpu": CifarSettings(
            ells=(1, 4),
            lr=(0.1, 0.2, 0.4),
            epochs=6,
            batch_size=128,
            max_extensions=0,
            depth=8,
            num_train=2048,
            num_validation=512,
            num_test=2000,
        ),
        "gpu": CifarSettings(ells=None, epochs=None, lr=(0.1, 0.2, 0.4, 0.8), max_extensions=0),
        "paper": CifarSettings(),
    }
)


def grid_part(settings: CifarSettings, device: str) -> Part:
    """Choose SGDM's rate, and compare at ℓ = 1. ``device`` decides the arithmetic where the settings leave it open."""
    return Part(GRID, partial(_workload, settings, device), _study(settings, device))


def ell_parts(settings: CifarSettings, device: str, rate: float) -> list[Part]:
    """Compare under SVAG at each ℓ above 1, both rules at the effective rate."""
    study = replace(_study(settings, device), lr=(rate,), max_extensions=0, tuning_seeds=1)
    workload = partial(_workload, settings, device)
    return [Part(name_of(ell), workload, replace(study, ell=ell)) for ell in settings.ells or ELLS if ell > 1]


def name_of(ell: int) -> str:
    """The part of an ℓ."""
    return GRID if ell == 1 else f"ell-{ell}"


def _study(settings: CifarSettings, device: str) -> Settings:
    on_gpu = device.startswith("cuda")
    compiled = on_gpu if settings.compile is None else settings.compile
    return Settings(
        batch_sizes=(settings.batch_size,),
        lr=settings.effective_lr,
        momentum=(settings.momentum,),
        epochs=settings.epochs or 1,
        stages=(settings.seeds,),
        tuning_seeds=settings.tuning_seeds,
        margin_accuracy=settings.margin_accuracy,
        select="validation_accuracy",
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        max_extensions=settings.max_extensions,
        compile="on" if compiled else "off",
        engine="process",
        confirm_rates="selected",
        tune="sgdm",
        precision=settings.precision or ("bfloat16" if on_gpu else "float32"),
        batch_norm=settings.batch_norm,
    )


def _workload(settings: CifarSettings, device: str) -> Workload:
    on_gpu = device.startswith("cuda")
    return cifar10(
        settings.data,
        affine=settings.affine,
        frozen_head=settings.frozen_head,
        depth=settings.depth,
        num_train=settings.num_train,
        num_validation=settings.num_validation,
        num_test=settings.num_test,
        channels_last=on_gpu if settings.channels_last is None else settings.channels_last,
    )
