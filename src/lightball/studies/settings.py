"""What a comparison is asked to do; every field is an option of the command line and a key of the TOML file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from lightball.errors import InputError
from lightball.oracles import SamplingKind
from lightball.rules import schedules
from lightball.stats import Stages, stages_for

Selection = Literal["train_loss", "validation_accuracy"]
Compilation = Literal["auto", "on", "off"]
EngineKind = Literal["vectorised", "process", "command"]
Precision = Literal["float32", "bfloat16", "float16"]
BatchNorm = Literal["each", "once", "frozen"]
Checkpoint = Literal["last", "best", "median"]
Decay = Literal["all", "matrices"]
Tuned = Literal["both", "sgdm"]
Confirmed = Literal["grid", "selected"]


@dataclass(frozen=True)
class Settings:
    """A comparison of SGD with SGDM at matched effective learning rates.

    Args:
        batch_sizes: compared at an equal number of epochs.
        lr: effective learning rates η to try for both rules; SGDM's rate in torch is η (1 − β). The grid grows at
            its edges by its own ratio.
        momentum: β of SGDM; several are compared with the same SGD.
        epochs: passes over the training data.
        num_steps: steps of a run instead of whole epochs, under SVAG those of ell = 1; 0 for epochs; process engine.
        stages: pairs after which a verdict is tried, cumulative.
        tuning_seeds: runs of each rate and rule on which rates are selected.
        margin_loss: the difference in training loss that does not matter, as a share of the decrease from the
            untrained model's loss to the best tuned one.
        margin_accuracy: the difference in test accuracy that does not matter (0.005 is half a point).
        select: what a rate is chosen by; never the test set.
        sampling: "shuffle" (without replacement) or "iid" (with).
        drop_last: leave out the incomplete last batch of an epoch.
        weight_decay: added to the gradient, as in ``torch.optim.SGD``.
        decay: what weight decay acts on: "all" parameters, or "matrices", which leaves out biases and normalisation;
            process engine.
        schedule: of the learning rate, as text: see ``lightball.rules.schedules.parse``.
        max_extensions: how often each end of the grid may grow; 0 keeps it as it is.
        tune: "both" rules, or "sgdm" alone, whose rate SGD then takes; for one momentum.
        confirm_rates: on fresh seeds, first all rules at every rate of the "grid", which describes how they differ at
            equal rates; or each rule at its "selected" rate only. The verdict is on selected rates either way.
        compile: ``torch.compile`` the training step; "auto" does where a compiler is found and the work is worth it,
            in the vectorised engine.
        engine: "vectorised" (many small models at once), "process" (any model, one a worker process) or "command"
            (any script).
        eval_every: steps between evaluations, 0 for an epoch; process engine.
        checkpoint: the weights whose accuracies count: "last", or "best" by validation accuracy of those that were
            evaluated after some training; "median" takes the median accuracies of the last five evaluations, as Goyal
            et al. 2017; process engine.
        precision: "float32", or mixed precision with "bfloat16" or "float16"; process engine.
        accumulate: micro-batches of a step, whose gradients are averaged; process engine.
        ell: of SVAG, see :class:`lightball.training.Recipe`: ell times as many steps of 1/ell of the rate, which take
            1/ell of what curvature does and all that noise does; process engine.
        batch_norm: of BatchNorm under SVAG, see :class:`lightball.training.Recipe`; process engine.
        clip_norm: the gradient norm at which a step is clipped, 0 for none; process engine.
        in_backward: update each parameter as soon as its gradient is known, which saves the memory of the gradients;
            process engine.

    Raises:
        InputError: one line on the first value that cannot be used.
    """

    batch_sizes: tuple[int, ...] = (8, 32, 128, 512)
    lr: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    momentum: tuple[float, ...] = (0.9,)
    epochs: int = 24
    stages: tuple[int, ...] = (16, 32, 64)
    tuning_seeds: int = 6
    margin_loss: float = 0.01
    margin_accuracy: float = 0.005
    select: Selection = "train_loss"
    sampling: SamplingKind = "shuffle"
    drop_last: bool = True
    weight_decay: float = 0.0
    schedule: str = "constant"
    max_extensions: int = 8
    compile: Compilation = "auto"
    engine: EngineKind = "vectorised"
    eval_every: int = 0
    checkpoint: Checkpoint = "last"
    precision: Precision = "float32"
    accumulate: int = 1
    ell: int = 1
    batch_norm: BatchNorm = "each"
    clip_norm: float = 0.0
    num_steps: int = 0
    decay: Decay = "all"
    in_backward: bool = False
    tune: Tuned = "both"
    confirm_rates: Confirmed = "grid"

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name), field.default))
        for name in ("batch_sizes", "lr", "momentum"):
            object.__setattr__(self, name, tuple(sorted(set(_nonempty(name, getattr(self, name))))))
        _require(all(b >= 1 for b in self.batch_sizes), "batch-sizes", self.batch_sizes, "whole numbers from 1 up")
        _require(all(0 < r < math.inf for r in self.lr), "lr", self.lr, "finite effective learning rates above 0")
        _require(
            all(0 < b < 1 for b in self.momentum),
            "momentum",
            self.momentum,
            "numbers above 0 and below 1, such as 0.9 (0 is SGD itself, which always runs)",
        )
        for name in ("epochs", "tuning_seeds", "accumulate", "ell"):
            _require(getattr(self, name) >= 1, _flag(name), getattr(self, name), "a whole number from 1 up")
        for name in ("margin_loss", "margin_accuracy"):
            _require(0 < getattr(self, name) < 1, _flag(name), getattr(self, name), "a number between 0 and 1")
        _require(0 <= self.weight_decay < math.inf, "weight-decay", self.weight_decay, "a finite number from 0 up")
        _require(0 <= self.clip_norm < math.inf, "clip-norm", self.clip_norm, "a finite number from 0 up, 0 for none")
        _require(self.drop_last or self.ell == 1, "ell", self.ell, "1 with keep-last: SVAG pairs batches of one size")
        _require(self.eval_every >= 0, "eval-every", self.eval_every, "a whole number from 1 up, or 0 for an epoch")
        _require(self.num_steps >= 0, "num-steps", self.num_steps, "a whole number from 1 up, or 0 for epochs")
        _require(self.max_extensions >= 0, "max-extensions", self.max_extensions, "a whole number from 0 up")
        choices = {
            "select": Selection,
            "sampling": SamplingKind,
            "compile": Compilation,
            "engine": EngineKind,
            "checkpoint": Checkpoint,
            "batch_norm": BatchNorm,
            "precision": Precision,
            "decay": Decay,
            "tune": Tuned,
            "confirm_rates": Confirmed,
        }
        for name, kind in choices.items():
            _require(
                getattr(self, name) in get_args(kind),
                _flag(name),
                getattr(self, name),
                " or ".join(get_args(kind)),
            )
        _require(
            self.tune == "both" or len(self.momentum) == 1,
            "tune",
            self.tune,
            f"both with momentum {','.join(map(str, self.momentum))}: SGD can take the rate of one SGDM only",
        )
        schedules.parse(self.schedule, num_steps=1000)
        _ = self.decision_stages

    @property
    def decision_stages(self) -> Stages:
        return stages_for(self.stages)

    @property
    def family_size(self) -> int:
        """Batch sizes × momenta × the two measures: the claims that share the 5 % of error."""
        return len(self.batch_sizes) * len(self.momentum) * 2


def read_toml(path: Path, also: Mapping[str, object] = MappingProxyType({})) -> dict[str, Any]:
    """The settings of a TOML file, by field name; keys may be written with - or _.

    ``also`` has the keys that the file may hold besides, each with a value of the type that it must have.

    Raises:
        InputError: no such file, not TOML, a key that is neither a setting nor in ``also``, or a value of ``also``
            that has the wrong type.
    """
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the settings file {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the settings file {str(path)!r} is not TOML: {error}") from error
    values = {_field(key, path, also): tuple(v) if isinstance(v, list) else v for key, v in text.items()}
    return {name: _typed(name, v, also[name]) if name in also else v for name, v in values.items()}


def make(*sources: Mapping[str, Any]) -> Settings:
    """Settings from several sources, the later ones winning; None means not given.

    Raises:
        InputError: a name that is not a setting, or a value that cannot be used.
    """
    given = {name: value for source in sources for name, value in source.items() if value is not None}
    for name in given:
        _field(name, None)
    one = {f.name for f in fields(Settings) if isinstance(f.default, tuple)}
    values: dict[str, Any] = {n: (v,) if n in one and isinstance(v, int | float) else v for n, v in given.items()}
    return Settings(**values)


def _field(key: str, path: Path | None, also: Collection[str] = ()) -> str:
    names = [*(field.name for field in fields(Settings)), *also]
    name = key.replace("-", "_")
    if name not in names:
        where = f" in {str(path)!r}" if path else ""
        raise InputError(f"unknown setting {key!r}{where}: the settings are {', '.join(map(_flag, names))}")
    return name


def _typed(name: str, value: object, default: object) -> object:
    """The value in the type of its default: a list becomes a tuple, and a whole number may stand for a float.

    Equal settings are then equal in every byte, and so are the keys of what was computed with them.
    """
    if isinstance(default, tuple):
        if not isinstance(value, tuple | list):
            raise InputError(f"{_flag(name)} is {value!r}, but must be a list")
        return tuple(_typed(name, v, default[0]) for v in value)
    kind = type(default)
    if isinstance(value, int) and not isinstance(value, bool) and kind is float:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"{_flag(name)} is {value!r}, but must be of type {kind.__name__}")
    return value


def _nonempty(name: str, value: tuple[Any, ...]) -> tuple[Any, ...]:
    _require(len(value) > 0, _flag(name), "empty", "at least one value")
    return value


def _require(holds: bool, name: str, value: object, required: str) -> None:
    if not holds:
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        raise InputError(f"{name} is {shown}, but must be {required}")


def _flag(name: str) -> str:
    return name.replace("_", "-")
