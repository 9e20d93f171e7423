"""Profiles: started and stopped by an operator, and stopped by themselves if nobody does."""

from __future__ import annotations

import asyncio
import logging

from octavo.base.errors import ErrorCode, OctavoError, RequestError
from octavo.server.admin.port import AdminPort

logger = logging.getLogger(__name__)

LONGEST_S = 60.0
"""What is recorded is held in memory until it is written."""


class Profiles:
    """At most one at a time."""

    def __init__(self, engine: AdminPort, folder: str | None) -> None:
        self._engine = engine
        self._folder = folder
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._folder_or_refuse()
        await self._engine.start_profile()
        self._ending = asyncio.create_task(self._end_later())

    async def stop(self) -> str:
        """Write the trace. Returns its name."""
        folder = self._folder_or_refuse()
        if self._ending is not None:
            self._ending.cancel()
        return await self._engine.stop_profile(folder)

    async def _end_later(self) -> None:
        await asyncio.sleep(LONGEST_S)
        self._ending = None  # Nobody may cancel it from here on.
        try:
            name = await self.stop()
        except OctavoError as error:
            logger.warning("The profile could not be written: %s", error.message)
        else:
            logger.warning("The profile was ended after %.0f s and written to %s", LONGEST_S, name)

    def _folder_or_refuse(self) -> str:
        if self._folder is None:
            raise RequestError(
                "This server was started without --profile-dir, so there is no place for a profile.",
                code=ErrorCode.UNSUPPORTED_VALUE,
            )
        return self._folder
