"""Steps on a GPU without their launches: a step of a population is captured once and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from lightball.errors import InputError, reason_of


@contextmanager
def stream_of_its_own(device: torch.device) -> Iterator[None]:
    """Inside, a GPU is the current one and works on a new stream: captures must not be on the default one.

    Everything of a population is, its warm-up above all: libraries make a handle and a workspace for each stream at
    its first use, which must not be while a graph is captured. On a CPU nothing changes.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        outside, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(outside)
        try:
            with torch.cuda.stream(stream):
                yield
        finally:  # memory that was made outside may be given away outside once this is over
            outside.wait_stream(stream)


def captured(step: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
    """What does the same as ``step`` at each call, in one launch; the capture itself moves nothing and draws nothing.

    To be called inside :func:`stream_of_its_own`, where ``step`` must have run before. It may draw from the generators
    given: each replay goes on in their streams of numbers. What it reads must be written into, not replaced, between
    calls. Its intermediate results lie in memory that the graph keeps for as long as the returned function lives.

    Raises:
        InputError: something in the step cannot be captured, such as reading a value on the host.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            step()
    except RuntimeError as error:
        # The end of a capture that failed is an error too, which hides the one that says why.
        reason = reason_of(error.__context__ or error)
        raise InputError(
            f"a step of this oracle cannot be captured as a CUDA graph ({reason}): let it draw and compute "
            "on the GPU without reading values there or copying from the CPU, or simulate with device='cpu'"
        ) from error
    return graph.replay
