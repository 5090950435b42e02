"""How full each pool of generators is: the workers bound to one named backend, as one number to scale them by."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...schemas.messages import AgentKind
from ...store.gauges import QueueGauges
from ...store.workers import WorkerRow

_SHARED = AgentKind.generator.value
"""The queue that all pools pull from."""


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """One pool."""

    capacity: int
    """Steps that its living workers run at once."""
    work: float
    """Steps that they run, and those that wait for them: of a queue that several pools pull from, a share by capacity."""

    @property
    def load(self) -> float:
        """Work by capacity; infinite where work meets no worker."""
        if self.capacity:
            return self.work / self.capacity
        return float("inf") if self.work else 0.0


def pool_loads(
    generators: Iterable[WorkerRow],
    queues: Mapping[str, QueueGauges],
    names: Mapping[str, Sequence[str]],
) -> dict[str, PoolLoad]:
    """Return the load of each backend's pool.

    `generators`: the living workers that serve the role, those that are bound to no backend too. `names`: of each named
    backend, what a request may call it (its own name and its classes).
    """
    capacity, running = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    together = 0
    for row in generators:
        together += row.capacity
        if row.backend in capacity:
            capacity[row.backend] += row.capacity
            running[row.backend] += row.running
    loads: dict[str, PoolLoad] = {}
    for backend, own in names.items():
        waiting = _share(queues, _SHARED, capacity[backend], together)
        for name in own:
            rivals = sum(capacity[other] for other, others in names.items() if name in others)
            # Where none of a class has a worker, all of it waits for each: whoever starts first takes it.
            waiting += _share(queues, f"{_SHARED}.{name}", capacity[backend] or not rivals, rivals or 1)
        loads[backend] = PoolLoad(capacity[backend], running[backend] + waiting)
    return loads


def _share(queues: Mapping[str, QueueGauges], queue: str, part: int, whole: int) -> float:
    gauges = queues.get(queue)
    return gauges.ready * part / whole if gauges and whole else 0.0
