"""Orders: what the engine asks of its core beside requests, and the answers to it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from octavo.base.errors import EngineError, OctavoError, RequestError
from octavo.engine.core_client import raised
from octavo.engine.failure import Failure
from octavo.engine.supervised_core import SupervisedCore
from octavo.messages.wire import Order, OrderDone


class Orders:
    """The core answers in the sequence of the orders, so a queue of waiting callers is enough."""

    def __init__(self, core: SupervisedCore, failure: Failure) -> None:
        self._core = core
        self._failure = failure
        self._waiting: deque[asyncio.Future[OrderDone]] = deque()

    async def give(self, order: Order) -> OrderDone:
        """Send it and wait for the answer. Raises RequestError or EngineError if it was not carried out."""
        self._failure.check()
        if self._core.is_down:
            self._core.check()
        answer: asyncio.Future[OrderDone] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._core.send(order)
        done = await answer
        if done.failure is not None:
            error = raised(done.failure)
            # A broken checkpoint is the caller's fault at a start, not when an engine is to wake up.
            raise error if isinstance(error, RequestError | EngineError) else EngineError(error.message)
        return done

    def answered(self, done: OrderDone) -> None:
        answer = self._waiting.popleft()
        if not answer.done():  # Its caller may have left.
            answer.set_result(done)

    def fail(self, again: Callable[[], OctavoError]) -> None:
        """The core is gone: nobody waits any longer."""
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(again())
