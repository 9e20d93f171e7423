"""A step that answers many: whoever comes meanwhile waits for a part of them only."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

from octavo import SamplingParams
from octavo.engine.receiver import TAKEN_AT_ONCE
from octavo.executor.fake import FakeExecutor
from tests.tiny import VOCAB_SIZE

NUM_REQUESTS = 4 * TAKEN_AT_ONCE


async def test_answers_of_a_large_step_are_given_over_several_turns_of_the_loop(make_engine: Any) -> None:
    all_are_there = threading.Event()

    def wait(_: object) -> dict[int, str]:
        assert all_are_there.wait(20)
        return {}

    engine = await make_engine(FakeExecutor(vocab_size=VOCAB_SIZE, fail=wait), max_num_seqs=NUM_REQUESTS)
    turn, answered = 0, Counter[int]()

    async def ask(number: int) -> None:
        async for _ in engine.generate([number + 1], SamplingParams(max_tokens=1)):
            answered[turn] += 1

    asking = [asyncio.create_task(ask(number)) for number in range(NUM_REQUESTS)]
    while not all(map(asyncio.Task.done, asking)):
        turn += 1
        await asyncio.sleep(0)
        if sum(1 for _ in engine._streams) == NUM_REQUESTS:
            all_are_there.set()
    assert sum(answered.values()) == NUM_REQUESTS
    # The rest of one step, and a part of the next.
    assert max(answered.values()) < 2 * TAKEN_AT_ONCE
    await engine.shutdown()
