"""The pool's slots: bounded, the most urgent first, none lost when someone stops waiting."""

from __future__ import annotations

import asyncio

from k2think.workers.pool import Slots


async def test_the_most_urgent_goes_first_and_equals_in_turn() -> None:
    slots = Slots(2)
    order: list[str] = []
    running = 0
    gate = asyncio.Event()

    async def work(name: str, priority: int) -> None:
        nonlocal running
        async with slots.slot(priority):
            running += 1
            assert running <= 2
            order.append(name)
            await gate.wait()
            running -= 1

    tasks = [asyncio.ensure_future(work(name, 2)) for name in ("first", "second", "batch-a", "batch-b")]
    await asyncio.sleep(0)
    tasks += [asyncio.ensure_future(work(name, priority)) for name, priority in (("normal", 1), ("urgent", 0))]
    await asyncio.sleep(0)
    assert order == ["first", "second"]

    gate.set()
    await asyncio.gather(*tasks)

    assert order == ["first", "second", "urgent", "normal", "batch-a", "batch-b"]


async def test_who_stops_waiting_takes_no_slot_along() -> None:
    slots = Slots(1)
    held = slots.slot(0)
    await held.__aenter__()

    async def work() -> None:
        async with slots.slot(0):
            pass

    gone, granted, last = (asyncio.ensure_future(work()) for _ in range(3))
    await asyncio.sleep(0)
    gone.cancel()
    await held.__aexit__(None, None, None)
    granted.cancel()  # it was given the slot, and has not run since
    await asyncio.gather(gone, granted, return_exceptions=True)

    await asyncio.wait_for(last, 5)
    await asyncio.wait_for(work(), 5)
