"""Helpers answer, are killed when they spend too much, and are replaced; the caller's loop goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import psutil
import pytest

from octavo.base.errors import EngineError, RequestError
from octavo.grammar.desk import GrammarDesk
from octavo.grammar.limits import COMPILE_WALL_S
from octavo.grammar.vocabulary import Vocabulary
from octavo.messages.structured import StructuredOutputsParams as Wish

BOMB = {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in "abcdefghijklmnop"]}


@pytest.fixture
async def desk(vocabulary: Vocabulary) -> AsyncIterator[GrammarDesk]:
    desk = GrammarDesk(lambda: vocabulary)
    yield desk
    await desk.close()


async def test_the_same_answers_as_in_process(desk: GrammarDesk, vocabulary: Vocabulary) -> None:
    here = GrammarDesk(lambda: vocabulary)
    wish = Wish(json={"type": "object"}, begin_after=[7])
    checked = await desk.check(wish)
    assert checked == here.check_here(wish)
    assert checked.begin_after == [7] and checked.json is None
    assert await desk.check(checked) is checked
    for check in (
        desk.check(Wish(json={"not": {}})),
        asyncio.to_thread(here.check_here, Wish(json={"not": {}})),
    ):
        with pytest.raises(RequestError) as caught:
            await check
        assert caught.value.param == "structured_outputs.json.not"


async def test_nothing_runs_before_the_first_wish(desk: GrammarDesk) -> None:
    before = {child.pid for child in psutil.Process().children()}
    await desk.check(Wish(choice=["a"]))
    assert 1 <= len({child.pid for child in psutil.Process().children()} - before) <= 2
    for number in range(20):
        await desk.check(Wish(choice=[str(number)]))
    assert len({child.pid for child in psutil.Process().children()} - before) <= 2


async def test_repeats_cost_nothing(desk: GrammarDesk) -> None:
    wish = Wish(json={"enum": [f"value {i}" for i in range(2_000)]})
    first, second = await asyncio.gather(desk.check(wish), desk.check(wish))
    assert first == second
    await desk.close()
    assert await desk.check(wish) == first  # no helper is needed
    with pytest.raises(EngineError):
        await desk.check(Wish(regex="new"))


async def test_a_bomb_is_refused_while_others_go_on(desk: GrammarDesk) -> None:
    await desk.check(Wish(choice=["warm"]))
    longest_gap, done = 0.0, False

    async def tick() -> None:
        nonlocal longest_gap
        last = time.monotonic()
        while not done:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            longest_gap, last = max(longest_gap, now - last), now

    ticking = asyncio.create_task(tick())
    began = time.monotonic()
    bomb = asyncio.create_task(desk.check(Wish(json=BOMB)))
    await desk.check(Wish(regex="neighbour"))
    neighbour_s = time.monotonic() - began
    with pytest.raises(RequestError, match="too complex"):
        await bomb
    bomb_s = time.monotonic() - began
    done = True
    await ticking
    assert bomb_s < COMPILE_WALL_S + 2.0
    assert neighbour_s < COMPILE_WALL_S + 2.0
    assert longest_gap < 0.5
    assert (await desk.check(Wish(choice=["after"]))).canonical is not None


async def test_a_caller_who_leaves_does_not_spoil_the_next_answer(desk: GrammarDesk) -> None:
    await desk.check(Wish(choice=["warm"]))
    leaving = asyncio.create_task(desk.check(Wish(json=BOMB)))
    await asyncio.sleep(0.05)
    leaving.cancel()
    checked = await desk.check(Wish(regex="mine"))
    assert checked.canonical is not None and "mine" in checked.canonical


async def test_helpers_end_with_the_desk(vocabulary: Vocabulary) -> None:
    desk = GrammarDesk(lambda: vocabulary)
    await desk.check(Wish(choice=["a"]))
    children = psutil.Process().children()
    await desk.close()
    assert not any("helper_main" in " ".join(child.cmdline()) for child in children if child.is_running())


async def test_tokens_that_are_no_text() -> None:
    def none() -> Vocabulary:
        raise RequestError("no text", param="structured_outputs")

    desk = GrammarDesk(none)
    with pytest.raises(RequestError, match="no text"):
        await desk.check(Wish(choice=["a"]))
    with pytest.raises(RequestError, match="no text"):
        desk.check_here(Wish(choice=["a"]))
    await desk.close()
