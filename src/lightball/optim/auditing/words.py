"""An audit in plain words for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightball.optim.auditing.audited import Audited

UNSEEN = "not seen: clipping, a GradScaler, accumulation or cleared buffers outside step"
"""The last note of every audit by experiments."""
WIDTH = 80
_FAMILIES = {
    "sgd": "SGD without momentum",
    "sgdm": "SGD with momentum",
    "nesterov": "SGD with Nesterov momentum",
    "linear, other": "linear in the gradients, but not SGD's rule",
    "not linear": "not linear in the gradients",
    "unknown": "unknown",
}
_NONLINEARITIES = {
    "clipping": "with gradients limited inside step",
    "adaptive": "adaptive: its steps do not follow the size of gradients",
    "skipping": "with large gradients skipped inside step",
    "random": "random: the same gradients give other steps",
    "sign": "a sign method: its steps have one size",
    "other": "and neither adaptive nor a sign method",
}


def audit_text(audited: Sequence[Audited]) -> str:
    """A few aligned lines per group; notes that hold for all of several stand once, and what is never seen is last."""
    first = audited[0].notes if len(audited) > 1 else ()
    common = [note for note in first if note != UNSEEN and all(note in one.notes for one in audited)]
    blocks = [_block(one, {*common, UNSEEN}) for one in audited]
    blocks.append("\n".join(_entry("note", note) for note in common))
    if any(UNSEEN in one.notes for one in audited):
        blocks.append(UNSEEN)
    return "\n\n".join(block for block in blocks if block)


def _block(one: Audited, elsewhere: set[str]) -> str:
    entries = [("family", _family(one)), *_rates(one), *_momentum(one), *_decay(one)]
    if one.maximize:
        entries.append(("direction", "up the gradient: it maximises"))
    if one.state_saved is False:
        entries.append(("state", "none saved"))
    elif one.state_bytes_per_parameter is not None:
        entries.append(("state", f"{one.state_bytes_per_parameter:.4g} bytes per parameter"))
    entries += [("note", note) for note in one.notes if note not in elsewhere]
    return "\n".join([f"group {one.group} of {one.optimizer}", *(_entry(name, text) for name, text in entries)])


def _family(one: Audited) -> str:
    words = _FAMILIES[one.family]
    return f"{words}, {_NONLINEARITIES[one.nonlinearity]}" if one.nonlinearity else words


def _rates(one: Audited) -> list[tuple[str, str]]:
    if one.effective_lr is None:
        return []
    same = one.lr == one.effective_lr
    return [("effective lr", f"{one.effective_lr:.6g}" + ("" if same else f", from lr {one.lr:.6g}"))]


def _momentum(one: Audited) -> list[tuple[str, str]]:
    if one.momentum_active is None:
        return []
    if one.momentum is None:
        return [("momentum", "of its own kind, active" if one.momentum_active else "none")]
    if one.momentum == 0:
        return [("momentum", "none")]
    dampening = f", dampening {one.dampening:.6g}" if one.dampening else ""
    activity = f"active; it remembers {one.memory_length:.4g} steps" if one.momentum_active else "not active"
    if one.state_saved is False:
        activity = "of which no buffer is saved"
    lines = [("momentum", f"{one.momentum:.6g}{dampening}, {activity}")]
    if one.first_step not in (None, 1.0):
        lines.append(("first step", f"counts {one.first_step:.4g} times as much as every other"))
    return lines


def _decay(one: Audited) -> list[tuple[str, str]]:
    if one.weight_decay is None:
        return []
    if one.weight_decay == 0:
        return [("weight decay", "none")]
    way = "beside the gradient (decoupled)" if one.decoupled else "through the gradient (coupled)"
    if one.decoupled is None:
        way = "(whether coupled is not known)"
    strength = f"; weights shrink by {one.decay_per_step:.4g} of themselves a step" if one.decay_per_step else ""
    return [("weight decay", f"{one.weight_decay:.6g} {way}{strength}")]


def _entry(name: str, text: str) -> str:
    head = f"  {name:<14}"
    return textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)
