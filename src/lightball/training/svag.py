"""A step of SVAG for any model: one batch split in two halves, and what BatchNorm does with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, get_args

from torch import Tensor, nn

from lightball.errors import InputError
from lightball.optim.svag import SVAG
from lightball.training.batch_norm import BatchNormStatistics, statistics_frozen, statistics_kept


def svag_step(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batch: Any,
    optimizer: SVAG,
    batch_norm: BatchNormStatistics = "each",
) -> Tensor:
    """One step on a batch of 2B examples, the first B as one minibatch and the last B as the other.

    Returns the mean loss, detached: at ℓ = 1 that of the first half, which is then the only one used.

    Args:
        loss: (model, half a batch) → the mean loss over it.
        batch: tensors with the examples along their first axis, in tuples, lists and mappings as deep as you like;
            what has no examples in it stays outside, in ``loss``. The 2B examples must be drawn independently, or
            without replacement, and in random order: halves that differ in kind are not two draws of one noise.
        batch_norm: of the model's BatchNorm layers, as far as they are in train mode and keep running statistics.
            "each" normalises each half by its own statistics and updates the running ones by both, as the code
            published with arXiv:2102.12470 does: at ℓ they are then updated 2ℓ times where SGD does so once, and
            forget in as much less time. "once" does not let the second half update them. "frozen" normalises by
            the running statistics and leaves these alone, so that the gradient is exactly a mean over examples.

    Raises:
        InputError: an odd number of examples, tensors of different lengths, or an unknown ``batch_norm``.
    """
    if batch_norm not in get_args(BatchNormStatistics):
        raise InputError(f"batch_norm is {batch_norm!r}; required is one of {', '.join(get_args(BatchNormStatistics))}")
    if not isinstance(optimizer, SVAG):
        raise InputError(
            f"svag_step got a {type(optimizer).__name__}; required is an SVAG: wrap it, as SVAG(optimizer, ell=4)"
        )
    first, second = halves(batch)
    optimizer.zero_grad()
    with statistics_frozen(model, batch_norm == "frozen"):
        result = optimizer.backward(partial(loss, model, first), partial(_second, model, loss, second, batch_norm))
    optimizer.step()
    return result


def halves(batch: Any) -> tuple[Any, Any]:
    """The first and the last half of the examples, in the containers that they came in.

    Raises:
        InputError: see `svag_step`.
    """
    lengths = sorted({len(tensor) for tensor in _tensors(batch)})
    if len(lengths) != 1 or lengths[0] % 2 or lengths[0] == 0:
        raise InputError(
            f"a batch with {' and '.join(map(str, lengths)) or 'no'} examples; SVAG requires tensors of one even "
            "length, 2B, to split: use an even batch size with drop_last=True"
        )
    middle = lengths[0] // 2
    return _mapped(lambda tensor: tensor[:middle], batch), _mapped(lambda tensor: tensor[middle:], batch)


def _second(
    model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], batch: Any, batch_norm: BatchNormStatistics
) -> Tensor:
    with statistics_kept(model, batch_norm == "once"):
        return loss(model, batch)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor) and batch.ndim > 0:
        yield batch
    elif isinstance(batch, Mapping | tuple | list):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(part)
    else:
        raise InputError(
            f"a batch holds a {'single number' if isinstance(batch, Tensor) else type(batch).__name__}; SVAG can split "
            "tensors of examples, in tuples, lists and mappings: keep everything else out of the batch"
        )


def _mapped(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: _mapped(function, part) for key, part in batch.items()}
    parts = [_mapped(function, part) for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
