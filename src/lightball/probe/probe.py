"""A probe of a model at its current weights: what noise and curvature do to its loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightball.errors import InputError
from lightball.probe.batches import Batch, num_examples
from lightball.probe.buffer import Carried, momentum_of, vector_of
from lightball.probe.curvature import MEMORY_BUDGET, Curvature
from lightball.probe.data import batches_of, check_counts, curvature_batches_of, halves_of
from lightball.probe.eigenvalues import extreme_eigenvalues
from lightball.probe.estimates import mean_estimate, ratio_estimate
from lightball.probe.forms import Product, largest_node, measures_of, products, trace_products
from lightball.probe.noise import Progress, gradient_sample
from lightball.probe.notes import notes_of
from lightball.probe.objective import Loss, Mode, Objective
from lightball.probe.path import look_ahead
from lightball.probe.record import Probe
from lightball.probe.scope import unchanged

if TYPE_CHECKING:
    from jaxtyping import Float


def probe(
    model: nn.Module,
    loss: Loss,
    data: Iterable[Batch],
    *,
    num_steps: int = 20,
    noise_vectors: int = 8,
    trace_vectors: int = 8,
    curvature: Literal["hessian", "ggn"] = "hessian",
    curvature_batches: int | Iterable[Batch] | None = None,
    training_examples: int | None = None,
    buffer: Carried | Optimizer | None = None,
    last_update: Carried | None = None,
    horizon: float | None = None,
    mode: Mode = "as is",
    per_example: bool = False,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
    progress: Progress | None = None,
) -> Probe:
    """Measure noise and curvature of the loss at the model's weights, and leave everything as it was.

    Costs a gradient of every batch and about (1 + ``noise_vectors``) × ``num_steps`` + 150 products with the curvature
    of its batches, of which those for several vectors share a forward pass.

    Args:
        model: any module, at the weights in question.
        loss: (model, batch) → the batch's mean loss; ``curvature="ggn"`` needs one of :func:`supervised`.
        data: microbatches, drawn at random from the training set without replacement, of any sizes. About 32, and late
            in training as many as make up the training set, give an honest interval of the noise (see
            :meth:`GradientSample.trace`).
        num_steps: Lanczos steps for each start vector, nodes of its quadrature.
        noise_vectors: random vectors for the noise measure.
        trace_vectors: random vectors for tr H.
        curvature: "hessian", or "ggn" for its positive part.
        curvature_batches: how many of ``data`` curvature is taken over, or batches of its own; by default as many as
            have 256 examples.
        training_examples: size of the training set; by default ``data`` is taken as all of it.
        buffer: the momentum of a run in progress: a ``torch.optim.SGD``, or the average of gradients by parameter name.
        last_update: a displacement of the parameters along which curvature is told.
        horizon: follow the path ahead over this flow time, the effective learning rate times the steps to forecast; see
            :func:`lightball.probe.look_ahead`, which does it faster on large batches.
        mode: "eval" or "train" for the whole model, or as its modules are. In training, BatchNorm uses the batch's
            statistics and dropout fixed masks.
        per_example: take the noise from gradients of single examples: by vmap, where the model allows it.
        seed: of the random vectors, from generators of the probe's own.
        memory_budget: bytes that kept graphs may take, and the Lanczos basis as many; beyond it, time is paid instead.
        progress: told of progress.

    Raises:
        InputError: counts below their least, data that are not batches or too few, sizes beyond the data, a loss that
            is no finite scalar or not differentiable twice, no trainable parameters, tensors that do not fit.
    """
    check_counts(num_steps=num_steps, noise_vectors=noise_vectors, trace_vectors=trace_vectors)
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}, but must be a torch.nn.Module")
    with unchanged(model, buffer if isinstance(buffer, Optimizer) else None), torch.inference_mode(False):
        objective = Objective(model, loss, mode=mode, seed=seed)
        batches = batches_of(data)
        curved = curvature_batches_of(batches, curvature_batches)
        examples, curved_examples = _count(batches), _count(curved)
        population = _population(training_examples, examples)
        momentum = None if buffer is None else momentum_of(buffer, objective)
        update = None if last_update is None else vector_of(last_update, objective, "the last update")

        sample = gradient_sample(
            objective, batches, noise_vectors, per_example=per_example, seed=seed, progress=progress
        )
        product = _told(Curvature(objective, curved, curvature, memory_budget=memory_budget), progress)
        image, images = product(sample.gradient[None])[0], product(sample.vectors)
        traces = trace_products(product, sample.gradient, trace_vectors, seed)
        update_curvature = None if update is None else _rayleigh(product, update)
        measures = measures_of(product, sample.gradient, sample.vectors, momentum, num_steps, memory_budget)
        largest, smallest = extreme_eigenvalues(
            product,
            objective.dim,
            dtype=objective.dtype,
            device=objective.device,
            seed=seed,
            memory_budget=memory_budget,
            require_smallest=curvature == "hessian",  # the smallest of the Gauss–Newton matrix is 0, many times
        )
        bias = 0.0 if curved_examples >= population else None
        if bias is None and (halves := halves_of(curved)) is not None:
            del product  # one curvature's graphs at a time, as each may take the whole budget
            tops = [
                largest_node(
                    Curvature(objective, half, curvature, memory_budget),
                    sample.gradient,
                    num_steps,
                    seed,
                    memory_budget=memory_budget,
                )
                for half in halves
            ]
            # What an eigenvalue has too much falls like 1/examples, so halving shows it once more.
            bias = (sum(tops) / 2 - largest.value) * (1 - curved_examples / population)

    trace_noise = sample.trace(population)
    noise_curvature = sample.contracted(trace_noise, products(sample.vectors, images))
    norm = sample.quadratic(sample.gradient, sample.vectors, trace_noise, population)
    along = sample.quadratic(image, images, noise_curvature, population)
    found = Probe(
        loss=sample.loss,
        num_parameters=objective.dim,
        training_examples=population,
        gradient_examples=examples,
        noise_batches=sample.num_batches,
        per_example=per_example,
        curvature=curvature,
        curvature_examples=curved_examples,
        mode=objective.effective_mode,
        gradient=measures.gradient,
        noise=measures.noise.rescaled(trace_noise.value),
        gradient_noise_share=sample.share(population),
        buffer=measures.buffer,
        gradient_norm_squared=norm,
        trace_noise=trace_noise,
        noise_scale=ratio_estimate(trace_noise, norm),
        preconditioned_noise_scale=ratio_estimate(noise_curvature, along),
        gradient_curvature=along.value,
        noise_curvature=noise_curvature,
        trace=mean_estimate(traces),
        sharpness=largest,
        smallest=smallest,
        sharpness_bias=bias,
        update_curvature=update_curvature,
        notes=notes_of(
            objective,
            sample,
            training_examples=population,
            assumed=training_examples is None,
            curvature_examples=curved_examples,
            shared=curvature_batches is None or isinstance(curvature_batches, int),
            sharpness=largest.value,
            sharpness_bias=bias,
        ),
    )
    if horizon is None:
        return found
    return look_ahead(
        found,
        model,
        loss,
        batches,
        horizon,
        buffer=buffer,
        mode=mode,
        per_example=per_example,
        seed=seed,
        memory_budget=memory_budget,
        progress=progress,
    )


def _population(training_examples: int | None, known: int) -> int:
    if training_examples is None:
        return known
    check_counts(training_examples=training_examples)
    if training_examples < known:
        raise InputError(
            f"training_examples is {training_examples}, but the data hold {known} examples: "
            "it must be the size of the training set that they were drawn from"
        )
    return training_examples


def _count(batches: Sequence[Batch]) -> int:
    return sum(map(num_examples, batches))


def _told(product: Product, progress: Progress | None) -> Product:
    """The product that tells of each call how many vectors it has multiplied so far."""
    done = 0

    def told(vectors: Float[Tensor, "vector dim"]) -> Float[Tensor, "vector dim"]:
        nonlocal done
        images = product(vectors)
        done += len(vectors)
        if progress is not None:
            progress("curvature", done, 0)
        return images

    return told


def _rayleigh(product: Product, vector: Float[Tensor, "dim"]) -> float | None:
    """uᵀHu/uᵀu; None for a zero update."""
    unit = vector / vector.abs().max().clamp(min=torch.finfo(vector.dtype).tiny)
    square = float(unit.double() @ unit.double())
    return None if square == 0 else float(products(unit[None], product(unit[None]))[0] / square)
