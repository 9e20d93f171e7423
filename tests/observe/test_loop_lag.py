"""The lag of an event loop, and how much of it the loop computed itself, by clocks of the test."""

from __future__ import annotations

import asyncio

from octavo.observe.loop_lag import PROBE_S, LoopLag


class Clocks:
    def __init__(self) -> None:
        self.now = 100.0
        self.computed = 5.0


async def measured(clocks: Clocks, late_s: float, computed_s: float) -> tuple[LoopLag, list[float]]:
    heard: list[float] = []
    lag = LoopLag(clock=lambda: clocks.now, thread_clock=lambda: clocks.computed)
    lag.tell(heard.append)
    lag.start()
    clocks.now += PROBE_S + late_s
    clocks.computed += computed_s
    while not heard:
        await asyncio.sleep(PROBE_S)
    await lag.close()
    return lag, heard


async def test_a_long_callback_is_the_loops_own() -> None:
    lag, heard = await measured(Clocks(), late_s=0.3, computed_s=0.31)
    assert [round(value, 6) for value in heard[:1]] == [0.3]
    assert [round(value, 6) for value in lag.worst()] == [0.3, 0.3]


async def test_a_busy_machine_is_not() -> None:
    lag, _ = await measured(Clocks(), late_s=0.3, computed_s=0.01)
    assert [round(value, 6) for value in lag.worst()] == [0.3, 0.01]


async def test_each_reader_hears_of_the_time_since_the_last() -> None:
    lag, _ = await measured(Clocks(), late_s=0.3, computed_s=0.3)
    lag.worst()
    assert lag.worst() == (0.0, 0.0)


async def test_an_early_call_is_no_lag() -> None:
    _, heard = await measured(Clocks(), late_s=-0.005, computed_s=0.0)
    assert heard[0] == 0.0
