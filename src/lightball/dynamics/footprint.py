"""How many replicas to move at once, from the memory that a step touches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lightball.dynamics.graph import bytes_touched, has_convolution
from lightball.dynamics.stepper import trace
from lightball.oracles import Oracle
from lightball.rules import canonical, kernel

# Of a core's caches: a wider chunk hides the overhead of calls no better, and spills.
_CPU_BYTES = 20 * 2**20
# Of a GPU's memory.
_CUDA_SHARE = 1 / 8
_WIDEST_ON_CPU = 28
_WIDEST_ON_CUDA = 1024
# A convolution batched over replicas is a grouped one; above this batch size it lost to one model at a time.
_LARGEST_CONVOLVED_BATCH = 32
# Compiling costs 5 to 12 s, about as much as touching this many bytes without.
_BYTES_WORTH_COMPILING = 20 * 10**9


@dataclass(frozen=True)
class Footprint:
    """What one step of one replica touches.

    ``bytes_per_replica`` counts parameters, state, gradients and activations; ``width`` is the number of replicas
    to move at once. Both follow from the shapes (and a GPU's memory), not from timings, so that plans repeat.
    """

    bytes_per_replica: int
    width: int

    def worth_compiling(self, replica_steps: int) -> bool:
        return self.bytes_per_replica * replica_steps > _BYTES_WORTH_COMPILING


def measure_footprint(oracle: Oracle) -> Footprint:
    """Trace one step of one replica and count; takes a fraction of a second."""
    x = oracle.init([0])
    states = {name: kernel.init(p) for name, p in x.items()}
    sample = oracle.stream([0])(0)
    with torch.no_grad():
        device = sample.device
        graph = trace(
            oracle, x, states, sample, canonical(torch.zeros(1, device=device), torch.zeros(1, device=device))
        )
    per_replica = bytes_touched(graph)
    if sample.is_cuda:
        total = torch.cuda.get_device_properties(sample.device).total_memory
        return Footprint(per_replica, _even(min(int(_CUDA_SHARE * total) // per_replica, _WIDEST_ON_CUDA)))
    if has_convolution(graph) and sample.shape[-1] > _LARGEST_CONVOLVED_BATCH:
        return Footprint(per_replica, 1)
    return Footprint(per_replica, _even(min(_CPU_BYTES // per_replica, _WIDEST_ON_CPU)))


def _even(width: int) -> int:
    """A whole number of pairs, or one run at a time."""
    return max(width - width % 2, 1)
