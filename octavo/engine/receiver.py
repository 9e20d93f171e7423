"""Receiver: takes what one core after the other reports, and brings what is open from one into the next."""

from __future__ import annotations

import asyncio
import logging

from octavo.base.errors import EngineError, OctavoError
from octavo.engine.core_totals import CoreTotals
from octavo.engine.failure import Failure, raised_again
from octavo.engine.listeners import Listeners
from octavo.engine.open_streams import OpenStreams
from octavo.engine.orders import Orders
from octavo.engine.rest import Rest
from octavo.engine.supervised_core import CoreLost, SupervisedCore
from octavo.messages.wire import CoreUpdate, OrderDone

logger = logging.getLogger(__name__)


class Receiver:
    """Runs from its making on, until `close`."""

    def __init__(
        self,
        core: SupervisedCore,
        *,
        streams: OpenStreams,
        orders: Orders,
        rest: Rest,
        totals: CoreTotals,
        listeners: Listeners,
        failure: Failure,
    ) -> None:
        self._core = core
        self._streams = streams
        self._orders = orders
        self._rest = rest
        self._totals = totals
        self._listeners = listeners
        self._failure = failure
        self._task = asyncio.create_task(self._receive(), name="octavo-receive")

    async def close(self, why: OctavoError) -> None:
        """Take no more. Whoever still waits is told `why`."""
        if not self._failure:
            self._fail(why)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _receive(self) -> None:
        """Take the reports of one core after the other; when there is none any more, fail what is open."""
        try:
            while True:
                try:
                    await self._take_reports()
                except CoreLost as lost:
                    self._lose(lost)
                    await self._core.restart(lost)
                    self._resume()
        except OctavoError as error:
            self._fail(error)
        except Exception:
            # Nobody would take answers any more, and nobody would notice: better to end.
            logger.exception("The engine cannot go on")
            self._fail(EngineError("The engine met an error of its own and cannot go on; its log says more."))

    async def _take_reports(self) -> None:
        while True:
            for message in await self._core.receive():
                if isinstance(message, CoreUpdate):
                    self._update(message)
                elif isinstance(message, OrderDone):
                    self._orders.answered(message)

    def _update(self, update: CoreUpdate) -> None:
        self._listeners.stats_came(self._totals.take(update.stats))
        self._listeners.blocks_held(update.block_seconds)
        self._streams.take(update.deltas)

    def _lose(self, lost: CoreLost) -> None:
        """The core is gone. Requests wait for the next one, orders do not."""
        self._totals.core_lost()
        self._orders.fail(lambda: raised_again(lost.cause))
        self._streams.core_lost()

    def _resume(self) -> None:
        self._rest.resume_sleep()
        self._streams.resume()

    def _fail(self, error: OctavoError) -> None:
        self._failure.set(error)
        self._streams.fail(error)
        self._orders.fail(lambda: raised_again(error))
