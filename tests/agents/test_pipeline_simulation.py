"""2,000 seeded runs of the state machine in an unreliable world; every promise of the design is asserted on each."""

from collections import Counter

import pytest
from harness import simulation
from k2think.schemas.outcomes import StepStatus

SEEDS = 2_000


def test_every_promise_holds_in_two_thousand_unreliable_worlds() -> None:
    statuses: Counter[str] = Counter()
    for seed in range(SEEDS):
        world = simulation.World(seed, simulation.MemoryBooks())
        job = world.run()
        try:
            simulation.check_invariants(world, job)
        except AssertionError as exc:
            raise AssertionError(f"seed {seed}: {exc}") from exc
        statuses[job.status.value] += 1
    assert set(statuses) == {"succeeded", "failed", "refused", "cancelled", "expired"}, statuses
    assert statuses["succeeded"] > SEEDS / 2, statuses


class _Unfenced(simulation.MemoryBooks):
    """A store with a planted fault: it takes results from attempts that have lost their lease."""

    def _held(self, envelope):
        step = self.steps[envelope.step]
        return step if step.fence >= 1 else None


class _EndsTwice(simulation.MemoryBooks):
    """A store with a planted fault: it writes a result although there is one."""

    def cancel(self, now):
        self.ended.append(self.ended[0] if self.ended else None)


class _NoSweeper(simulation.MemoryBooks):
    """A store with a planted fault: nothing takes up what was lost."""

    def sweep(self, now):
        return []


class _ClaimsTwice(simulation.MemoryBooks):
    """A store with a planted fault: it gives out work of jobs that have ended."""

    def claim(self, envelope, now):
        step = self.steps[envelope.step]
        step.fence += 1
        step.view = step.view.model_copy(update={"status": StepStatus.running})
        return True


@pytest.mark.parametrize("faulty", [_Unfenced, _EndsTwice, _NoSweeper, _ClaimsTwice])
def test_the_simulation_catches_a_planted_fault(faulty: type) -> None:
    caught = 0
    for seed in range(300):
        world = simulation.World(seed, faulty())
        try:
            simulation.check_invariants(world, world.run())
        except AssertionError:
            caught += 1
    assert caught > 0
