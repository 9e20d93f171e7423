"""StallWatch: which silence of a core is ordinary."""

from __future__ import annotations

from octavo.engine import stall_watch
from octavo.engine.stall_watch import StallWatch


def ticks(watch: StallWatch, seconds: float) -> None:
    for _ in range(round(seconds / stall_watch.TICK_S)):
        watch.tick(stall_watch.TICK_S)


def test_silence_is_judged_by_what_is_usual() -> None:
    watch = StallWatch(60.0)
    ticks(watch, 4.0)
    assert not watch.is_stalled
    ticks(watch, 0.5)
    assert watch.is_stalled and not watch.is_stuck
    watch.heard(step_tokens=1)
    ticks(watch, 4.5)
    assert watch.is_stalled, "once is not usual: that may have been a stall"
    watch.heard(step_tokens=1)
    ticks(watch, 8.5)  # Its steps are known to take 4.5 s.
    assert not watch.is_stalled
    ticks(watch, 60.0)
    assert watch.is_stalled and watch.is_stuck


def test_an_announced_operation_is_no_stall_and_ends_with_the_next_word() -> None:
    watch = StallWatch(60.0)
    watch.heard("Sleep")
    ticks(watch, 500.0)
    assert not watch.is_stalled and not watch.is_stuck
    watch.heard()
    ticks(watch, 5.0)
    assert watch.is_stalled, "and it does not make later silence look usual"


def test_time_in_which_the_server_itself_stood_still_does_not_count() -> None:
    watch = StallWatch(60.0)
    watch.tick(3600.0)
    assert not watch.is_stalled


def test_an_hour_of_short_steps_does_not_make_it_forget_the_long_ones() -> None:
    watch = StallWatch(60.0)
    for _ in range(2):  # Chunks of a long prompt, on a slow machine.
        ticks(watch, 6.0)
        watch.heard(step_tokens=512)
    for _ in range(1000):
        watch.heard(step_tokens=1)
    ticks(watch, 6.0)
    assert not watch.is_stalled
    watch.heard(step_tokens=400)
    for _ in range(20):  # Whatever made these steps slow is over.
        watch.heard(step_tokens=512)
    ticks(watch, 4.5)
    assert watch.is_stalled
