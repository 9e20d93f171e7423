"""Failure: why an engine is of no use any more, once that is so."""

from __future__ import annotations

import asyncio

from octavo.base.errors import OctavoError


class Failure:
    """One per engine."""

    def __init__(self) -> None:
        self._cause: OctavoError | None = None
        self._came = asyncio.Event()

    def __bool__(self) -> bool:
        return self._cause is not None

    def set(self, cause: OctavoError) -> None:
        self._cause = cause
        self._came.set()

    def check(self) -> None:
        """Raise the cause, if there is one."""
        if self._cause is not None:
            raise raised_again(self._cause)

    async def wait(self) -> OctavoError:
        await self._came.wait()
        assert self._cause is not None, "set before the event"
        return self._cause


def raised_again(error: OctavoError) -> OctavoError:
    """A fresh exception of the same kind: one traceback per raise."""
    return type(error)(error.message, code=error.code, param=error.param)
