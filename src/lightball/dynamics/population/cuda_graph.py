"""Steps on a GPU without their launches: a step of a population is captured once and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lightball.errors import InputError, reason_of


def captured(step: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
    """What does the same as ``step`` at each call, in one launch; the capture itself moves nothing and draws nothing.

    ``step`` must have run before on this device, and may draw from the generators given: each replay goes on in their
    streams of numbers. What it reads must be written into, not replaced, between calls.

    Raises:
        InputError: something in the step cannot be captured, such as reading a value on the host.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        raise InputError(
            f"a step of this oracle cannot be captured as a CUDA graph ({reason_of(error)}): let it draw and compute "
            "on the GPU without reading values there or copying from the CPU, or simulate with device='cpu'"
        ) from error
    return graph.replay
