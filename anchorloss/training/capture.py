"""Recording work on a CUDA stream as a graph."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def captured(stream: torch.cuda.Stream | None) -> Iterator[torch.cuda.CUDAGraph]:
    """Record what is enqueued in the `with` block on `stream` as a graph, which is yielded; nothing of it is carried out.

    Python's garbage collector waits meanwhile: what it finalises may free a graph or a kernel, which ends a capture.
    """
    graph = torch.cuda.CUDAGraph()
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with torch.cuda.graph(graph, stream=stream):
            yield graph
    finally:
        if was_enabled:
            gc.enable()
