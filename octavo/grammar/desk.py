"""GrammarDesk: where an engine's front has wishes checked. Answers are remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from octavo.base.errors import RequestError
from octavo.base.leash import Leash, LeashBroken
from octavo.grammar.cache import ByteCache
from octavo.grammar.limits import COMPILE_WALL_S
from octavo.grammar.outcome import Outcome, fingerprint, too_complex
from octavo.grammar.vocabulary import Vocabulary
from octavo.messages.structured import StructuredOutputsParams

CACHE_BYTES = 32 * 2**20
FORGET_S = 60.0
"""So long the end of a helper counts against the wish that it was at. Others may have been to blame: whoever
took the machine's time or memory just then."""


class GrammarDesk:
    """Two ways in: `check_here` in the caller's process, `check` in a helper's. The same answers.

    Nothing is loaded before the first wish.
    """

    def __init__(self, vocabulary: Callable[[], Vocabulary]) -> None:
        """vocabulary: may raise RequestError where the engine's tokens are not text."""
        self._vocabulary = vocabulary
        self._outcomes: ByteCache[bytes, Outcome] = ByteCache(CACHE_BYTES)
        self._asked: dict[bytes, asyncio.Task[Outcome]] = {}
        self._leash = Leash(
            "octavo.grammar.helper_main",
            wall_s=COMPILE_WALL_S,
            first_frame=lambda: msgspec.msgpack.encode(self._vocabulary()),
        )
        self._compile: Callable[[StructuredOutputsParams], str] | None = None

    def check_here(self, wish: StructuredOutputsParams) -> StructuredOutputsParams:
        """The wish as the core takes it. Raises RequestError. May take seconds for a hostile wish."""
        wish.check()
        if wish.canonical is not None:
            return wish
        key = fingerprint(wish)
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = self._compiled_here(wish)
            self._outcomes.put(key, outcome, outcome.num_bytes)
        return outcome.applied(wish)

    async def check(self, wish: StructuredOutputsParams) -> StructuredOutputsParams:
        """The same with bounded time and memory, while the event loop goes on."""
        wish.check()
        if wish.canonical is not None:
            return wish
        key = fingerprint(wish)
        outcome = self._outcomes.get(key)
        if outcome is None:
            asked = self._asked.get(key)
            if asked is None:
                asked = self._asked[key] = asyncio.create_task(self._ask(key, wish))
            # Others may wait for the same answer.
            outcome = await asyncio.shield(asked)
        return outcome.applied(wish)

    async def close(self) -> None:
        """End the helpers."""
        await asyncio.to_thread(self._leash.close)

    async def _ask(self, key: bytes, wish: StructuredOutputsParams) -> Outcome:
        try:
            frame = await asyncio.wrap_future(self._leash.ask(msgspec.msgpack.encode(wish)))
            outcome = msgspec.msgpack.decode(frame, type=Outcome)
        except LeashBroken:
            outcome = too_complex(wish.kind)
            asyncio.get_running_loop().call_later(FORGET_S, self._outcomes.drop, key)
        finally:
            del self._asked[key]
        self._outcomes.put(key, outcome, outcome.num_bytes)
        return outcome

    def _compiled_here(self, wish: StructuredOutputsParams) -> Outcome:
        if self._compile is None:
            from octavo.grammar.compiler import GrammarCompiler

            self._compile = GrammarCompiler(self._vocabulary()).compile
        try:
            return Outcome(canonical=self._compile(wish))
        except RequestError as error:
            return Outcome.refused(error)
