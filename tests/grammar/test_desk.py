"""Helpers answer, are killed when they spend too much, and are replaced; the caller's loop goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future

import psutil
import pytest

from octavo.base.errors import EngineError, RequestError
from octavo.base.leash import LeashBroken
from octavo.grammar.desk import GrammarDesk
from octavo.grammar.limits import COMPILE_WALL_S, HELPER_MEMORY_BYTES
from octavo.grammar.vocabulary import Vocabulary
from octavo.messages.structured import StructuredOutputsParams as Wish
from tests.child_processes import children_running

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
    # Room for a busy machine: without a leash the bomb takes minutes, and in our process all else with it.
    assert bomb_s < COMPILE_WALL_S + 10.0
    assert neighbour_s < COMPILE_WALL_S + 10.0
    assert longest_gap < COMPILE_WALL_S
    assert (await desk.check(Wish(choice=["after"]))).canonical is not None


async def test_a_caller_who_leaves_does_not_spoil_the_next_answer(desk: GrammarDesk) -> None:
    await desk.check(Wish(choice=["warm"]))
    leaving = asyncio.create_task(desk.check(Wish(json=BOMB)))
    await asyncio.sleep(0.05)
    leaving.cancel()
    checked = await desk.check(Wish(regex="mine"))
    assert checked.canonical is not None and "mine" in checked.canonical


async def test_a_helper_that_died_is_not_held_against_a_wish_for_ever(
    desk: GrammarDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been starved of time, or killed by the system for what others took."""

    def die(_: bytes) -> Future[bytes]:
        answer: Future[bytes] = Future()
        answer.set_exception(LeashBroken())
        return answer

    monkeypatch.setattr("octavo.grammar.desk.FORGET_S", 0.0)
    wish = Wish(choice=["harmless"])
    with monkeypatch.context() as patch:
        patch.setattr(desk._leash, "ask", die)
        with pytest.raises(RequestError, match="too complex"):
            await desk.check(wish)
    await asyncio.sleep(0.01)
    assert (await desk.check(wish)).canonical is not None


async def test_helpers_that_died_while_nobody_asked_are_replaced(desk: GrammarDesk) -> None:
    before = set(psutil.Process().children())
    await desk.check(Wish(choice=["warm"]))
    for helper in set(psutil.Process().children()) - before:
        helper.kill()
        while helper.is_running() and helper.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
    for text in ("a", "b", "c"):
        assert (await desk.check(Wish(choice=[text]))).canonical is not None


async def test_helpers_end_with_the_desk(vocabulary: Vocabulary) -> None:
    desk = GrammarDesk(lambda: vocabulary)
    before = set(psutil.Process().children())
    await desk.check(Wish(choice=["a"]))
    started = set(psutil.Process().children()) - before
    assert started
    await desk.close()
    assert not any(child.is_running() for child in started)


async def test_tokens_that_are_no_text() -> None:
    def none() -> Vocabulary:
        raise RequestError("no text", param="structured_outputs")

    desk = GrammarDesk(none)
    with pytest.raises(RequestError, match="no text"):
        await desk.check(Wish(choice=["a"]))
    with pytest.raises(RequestError, match="no text"):
        desk.check_here(Wish(choice=["a"]))
    await desk.close()


HOSTILE: dict[str, Wish] = {
    "G01 (a+)+b": Wish(regex="(a+)+b"),
    "G01 (.*)*x": Wish(regex="(.*)*x"),
    "G01 a{1,100000}": Wish(regex="a{1,100000}"),
    "G01 (a|a)*": Wish(regex="(a|a)*"),
    "G01 [\\s\\S]{0,65535}": Wish(regex="[\\s\\S]{0,65535}"),
    "G01 counted thrice": Wish(regex="((a{1,300}){1,300}){1,300}b"),
    "G01 lookaround": Wish(regex="a(?=b)"),
    "G01 backreference": Wish(regex="(a)\\1"),
    "G01 long": Wish(regex="a" * 500_000),
    "G01 parentheses": Wish(regex="(" * 100_000),
    "G03 enum": Wish(json={"enum": [f"{number:x}" for number in range(100_000)]}),
    "G03 properties": Wish(json={"type": "object", "properties": {f"p{n}": {} for n in range(10_000)}}),
    "G03 oneOf": Wish(json={"oneOf": [{"const": n} for n in range(500)]}),
    "G03 minItems": Wish(json={"type": "array", "minItems": 10**9}),
    "G03 pattern": Wish(json={"type": "string", "pattern": "(a{1,1000}){1,1000}"}),
    "G03 multipleOf": Wish(json={"type": "number", "multipleOf": 1e-300}),
    "G03 maxLength": Wish(json={"type": "string", "maxLength": 10**9}),
    "G06 left recursion": Wish(grammar='start: start "a" | "a"'),
    "G06 parentheses": Wish(grammar="start: " + "(" * 30_000 + '"a"' + ")" * 30_000),
    "G06 undefined": Wish(grammar="start: nothing"),
    "G06 empty alternatives": Wish(grammar='start: | | "a"'),
    "G06 cycle of empty rules": Wish(grammar="start: a\na: b\nb: a |"),
    "G06 GBNF": Wish(grammar="root ::= root | root"),
}


async def test_hostile_wishes_end_typed_and_hurt_nobody(desk: GrammarDesk) -> None:
    """Let in or refused, by name: never anything else, and the next wish of others is answered."""

    async def check(name: str) -> None:
        try:
            assert (await desk.check(HOSTILE[name])).canonical, name
        except RequestError as error:
            assert error.param and error.param.startswith("structured_outputs"), name
            assert len(error.message) < 700, name

    await asyncio.gather(*map(check, HOSTILE))
    assert (await desk.check(Wish(choice=["after"]))).canonical is not None
    for helper in children_running("grammar.helper_main"):
        assert helper.memory_info().rss < HELPER_MEMORY_BYTES + 2**28
