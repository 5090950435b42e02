"""Training processes that add up their gradients in shared memory.

One process a worker, one thread each: at this size two processes do more per second than one process with two threads.
Gradients are added in worker order, so a run is reproducible from its seed on one kind of machine with one number of workers.
"""

# pyright: reportMissingImports=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import multiprocessing as processes
from torch.multiprocessing.spawn import ProcessException, spawn

WAIT_S = 600.0
"""A worker gives up when another has not finished its step within this time."""


class Exchange:
    """The place where the workers' gradients meet."""

    def __init__(self, workers: int, size: int, barrier: Any) -> None:
        self._gradients = torch.zeros(workers, size).share_memory_()
        self._weights = torch.zeros(workers, dtype=torch.float64).share_memory_()
        self._barrier = barrier

    def average(self, rank: int, parameters: Sequence[Tensor], weight: float) -> float:
        """Replaces each parameter's gradient by the sum over the workers divided by the sum of their weights.

        A parameter without a gradient counts as zero. Returns the sum of the weights; 0 = no worker had anything to say.
        """
        flat = [p.grad.reshape(-1) if p.grad is not None else torch.zeros(p.numel()) for p in parameters]
        self._gradients[rank].copy_(torch.cat(flat))
        self._weights[rank] = weight
        self._barrier.wait(WAIT_S)
        total = float(self._weights.sum())
        mean = self._gradients.sum(0) / max(total, 1e-12)
        self._barrier.wait(WAIT_S)
        position = 0
        for parameter in parameters:
            parameter.grad = mean[position : position + parameter.numel()].view_as(parameter)
            position += parameter.numel()
        return total


def _start(rank: int, work: Callable[..., None], exchange: Exchange, arguments: tuple[Any, ...]) -> None:
    # Torch ends a worker by this signal when the run's own process dies; a shell has it ignored by what it starts with `&`.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    work(rank, exchange, *arguments)


def run_workers(work: Callable[..., None], workers: int, size: int, *arguments: Any) -> None:
    """Runs ``work(rank, exchange, *arguments)`` in ``workers`` processes; ``size`` is the number of parameters.

    Raises ``RuntimeError`` when a worker fails.
    """
    # Returning freed pages to the system after every step costs a third of the speed; the workers inherit this.
    os.environ.update(MALLOC_MMAP_THRESHOLD_="4294967296", MALLOC_TRIM_THRESHOLD_="4294967296", OMP_NUM_THREADS="1")
    exchange = Exchange(workers, size, processes.get_context("spawn").Barrier(workers))
    try:
        spawn(_start, (work, exchange, arguments), nprocs=workers)  # pyright: ignore[reportUnknownMemberType]
    except ProcessException as failure:
        raise RuntimeError(f"a training worker failed: {failure}") from failure
