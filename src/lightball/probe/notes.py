"""What a reader of a probe should know, in sentences."""

from __future__ import annotations

from torch import nn

from lightball.probe.examples import uses_batch_statistics
from lightball.probe.noise import GradientSample
from lightball.probe.objective import Objective

_CARRIED_BY_FEW = 0.2


def notes_of(
    objective: Objective,
    sample: GradientSample,
    *,
    training_examples: int,
    assumed: bool,
    curvature_examples: int,
    shared: bool,
    sharpness: float,
    sharpness_bias: float | None,
) -> tuple[str, ...]:
    """The sentences that apply.

    Args:
        objective: what was probed.
        sample: its noise.
        training_examples: M.
        assumed: nobody said M; it is the number of examples in the data.
        curvature_examples: how many the curvature is a mean over.
        shared: the curvature examples are among those of the gradient.
        sharpness: λ_max.
        sharpness_bias: how much of it is too much, if known.
    """
    few = curvature_examples < training_examples
    notes = [
        assumed
        and f"the data are taken as the whole training set, {training_examples:,} examples, so that the gradient has "
        "no error of sampling: give training_examples if there are more",
        _heavy_tail(sample, training_examples),
        few
        and sharpness_bias is not None
        and f"curvature is that of {curvature_examples:,} of {training_examples:,} examples; the largest eigenvalue of "
        f"a mean over few is too large: {sharpness:.4g} would be about {sharpness - sharpness_bias:.4g} over all",
        few
        and shared
        and "the curvature examples are also in the gradient, which makes curvature along it a little too large: give "
        "curvature_batches of their own to avoid that",
        *_layers(objective, curvature_examples),
    ]
    return tuple(note for note in notes if note)


def _heavy_tail(sample: GradientSample, training_examples: int) -> str | None:
    total = sample.contributions.sum()
    if total <= 0 or sample.num_examples >= training_examples:
        return None
    share = float(sample.contributions.max() / total)
    if share < max(_CARRIED_BY_FEW, 4 / len(sample.contributions)):
        return None
    kind = "examples" if sample.per_example else "batches"
    return (
        f"one of {sample.num_batches} {kind} carries {share:.0%} of the noise: others like it that were not drawn "
        "can make tr Σ larger than its interval says: give more batches"
    )


def _layers(objective: Objective, curvature_examples: int) -> list[str]:
    modules = list(objective.model.modules())
    norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    live = [m for m in norms if uses_batch_statistics(m, objective.mode)]
    notes = []
    if live:
        notes.append(
            "BatchNorm uses statistics of the batch, in the noise those of each microbatch, in the curvature those of "
            "each of its batches; its running statistics stay as they are"
        )
    if len(live) < len(norms):
        notes.append("BatchNorm uses its running statistics, which count as constants")
    training = [m.training if objective.mode == "as is" else objective.mode == "train" for m in modules]
    if any(t and getattr(m, "p", 0) for m, t in zip(modules, training, strict=True) if _drops(m)):
        notes.append("dropout is on, with masks fixed by the seed: its noise is in that of the gradients")
    return notes


def _drops(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.dropout._DropoutNd)
