"""One parameter, or one parameter group, moved by its gradients: finds the buffers, picks the path, bounds memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _default_to_fused_or_foreach  # what torch.optim.SGD decides by

from lightball.optim.in_place import move, move_all, move_fused, numbers_of
from lightball.optim.options import check_sparse
from lightball.optim.rounding import is_rounded, writer

Group = Mapping[str, Any]
State = MutableMapping[str, Any]
Moving = tuple[Tensor, Tensor, Tensor | None]  # parameter, gradient, buffer
Rows = slice | EllipsisType

# Elements worked on at a time where the rule makes temporaries: they then stay small and, on a CPU, in its cache.
_PIECE_ON_CPU = 1 << 18
_PIECE = 1 << 22


def update_one(p: Tensor, g: Tensor, state: State, group: Group) -> None:
    """Move the parameter p by its gradient g in place, by the rule in `rules.kernel`; call it without grad mode.

    state is p's entry in the optimizer's state, {} before its first step; it gets "momentum_buffer" where the
    momentum of its group is not 0. g is only read. Extra memory: a few MB. Raises `InputError` for a sparse g with
    momentum or weight decay.
    """
    if g.is_sparse:
        _update_sparse(p, g, group)
    elif is_rounded(p, group):
        _update_rounded(p, g, state, group)
    elif group["fused"]:
        _update_together([(p, g, state)], group)
    else:
        _update_in_pieces(p, g, state, group)


def update_group(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[State],
    group: Group,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:
    """`update_one` for the parameters of one group that have gradients, by its fused, foreach or plain path.

    The group's `foreach` and `fused` decide as in `torch.optim.SGD`. Sparse gradients and low-precision weights
    that are not rounded to nearest go one by one. grad_scale and found_inf are a GradScaler's, for fused.
    """
    many = _moves_many_at_once(params, group)
    together: list[tuple[Tensor, Tensor, State]] = []
    for p, g, state in zip(params, grads, states, strict=True):
        if many and not (g.is_sparse or is_rounded(p, group)):
            together.append((p, g, state))
        else:
            update_one(p, g, state, group)
    _update_together(together, group, grad_scale, found_inf)


def momentum_buffer(g: Tensor, state: State, group: Group) -> tuple[Tensor | None, bool]:
    """The buffer in which the step remembers, made if need be, and whether this step fills it undampened.

    None where the group has no momentum. The canonical convention starts from zeros and, where momentum passes
    through 0 on a schedule, goes on remembering: m' = g there.
    """
    canonical = group["convention"] == "canonical"
    buffer = state.get("momentum_buffer")
    remembers = canonical and (buffer is not None or group["momentum_schedule"] is not None)
    if group["momentum"] == 0 and not remembers:
        return None, False
    first = group["momentum"] == 0 or (buffer is None and not canonical)
    if buffer is None:
        buffer = state["momentum_buffer"] = torch.zeros_like(g) if canonical else torch.empty_like(g)
    return buffer, first


def _moves_many_at_once(params: Sequence[Tensor], group: Group) -> bool:
    if group["foreach"] is None and group["fused"] is None:
        return _default_to_fused_or_foreach(list(params), group["differentiable"])[1]
    return bool(group["foreach"] or group["fused"])


def _update_together(
    all_of_them: Sequence[tuple[Tensor, Tensor, State]],
    group: Group,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:
    """Parameters with their gradients and states, by lists of those that are alike."""
    numbers = numbers_of(group)
    alike: dict[tuple[torch.device, torch.dtype, bool], list[Moving]] = {}
    for p, g, state in all_of_them:
        buffer, first = momentum_buffer(g, state, group)
        alike.setdefault((p.device, p.dtype, first), []).append((p, g, buffer))
    for (_, _, first), moving in alike.items():
        for batch in [moving] if group["fused"] else _batches(moving):
            xs, gs = [x for x, _, _ in batch], [g for _, g, _ in batch]
            buffers = [buffer for _, _, buffer in batch if buffer is not None]
            if group["fused"]:
                move_fused(xs, gs, buffers, numbers, first=first, grad_scale=grad_scale, found_inf=found_inf)
            else:
                move_all(xs, gs, buffers, numbers, first=first)


def _batches(moving: list[Moving]) -> Iterator[list[Moving]]:
    """Lists of a bounded number of elements, since foreach makes temporaries of the size of its lists."""
    batch: list[Moving] = []
    size = 0
    for each in moving:
        if batch and size + each[0].numel() > _PIECE and not torch.compiler.is_compiling():
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each[0].numel()
    yield batch


def _update_in_pieces(p: Tensor, g: Tensor, state: State, group: Group) -> None:
    """The step in p's own dtype."""
    numbers = numbers_of(group)
    buffer, first = momentum_buffer(g, state, group)
    one_pass = buffer is None and not numbers.decays and not numbers.maximize
    for rows in [...] if one_pass or group["differentiable"] else _row_ranges(p):
        move(p[rows], g[rows], _part(buffer, rows), numbers, first=first)


def _update_rounded(p: Tensor, g: Tensor, state: State, group: Group) -> None:
    """The step in float32 of a weight in low precision, written back as the group's rounding says."""
    numbers = numbers_of(group)
    buffer, first = momentum_buffer(g, state, group)
    write, compensation = writer(p, state, group)
    for rows in _row_ranges(p):
        rest, memory = _part(compensation, rows), _part(buffer, rows)
        exact = p[rows].float() if rest is None else p[rows].float().add_(rest)
        remembered = None if memory is None else memory.float()
        move(exact, g[rows].float(), remembered, numbers, first=first)
        write(exact, p[rows], rest)
        if memory is not None and remembered is not None:
            write(remembered, memory, None)


def _row_ranges(p: Tensor) -> list[Rows]:
    """Ranges of p's first axis with a bounded number of elements, unless one row has more; all of p if it is small."""
    size = _PIECE_ON_CPU if p.device.type == "cpu" else _PIECE
    if p.numel() <= size or torch.compiler.is_compiling():
        return [...]
    rows = max(1, size * p.shape[0] // p.numel())
    return [slice(start, start + rows) for start in range(0, p.shape[0], rows)]


def _part(tensor: Tensor | None, rows: Rows) -> Tensor | None:
    return None if tensor is None else tensor[rows]


def _update_sparse(p: Tensor, g: Tensor, group: Group) -> None:
    """Plain SGD on the rows that the sparse gradient names."""
    check_sparse(group)
    lr = numbers_of(group).lr
    p.add_(g, alpha=lr if group["maximize"] else -lr)
