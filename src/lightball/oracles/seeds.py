"""Random numbers by name: a seed is a hash of the axes that determine it."""

from __future__ import annotations

import hashlib
import json

import torch


def seed_of(**axes: str | int | float) -> int:
    """A 63-bit seed from named axes, the same in every process and on every machine.

    Name what the randomness may depend on (task, seed, batch size, epoch) and never the arm (SGD or SGDM): two
    arms with equal axes then share their noise, so that their difference has a small variance. Runs with
    different axes are independent for every practical purpose (BLAKE2b).
    """
    name = json.dumps(axes, sort_keys=True, separators=(",", ":"))
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(**axes: str | int | float) -> torch.Generator:
    """A CPU generator seeded by :func:`seed_of`; samples are drawn on the CPU so that devices agree on them."""
    return torch.Generator().manual_seed(seed_of(**axes))
