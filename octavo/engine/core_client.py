"""CoreClient: the engine's end of the line to a core, and how a core's failure becomes an exception again."""

from __future__ import annotations

from typing import Protocol

from octavo.base import errors
from octavo.base.errors import ErrorCode, OctavoError
from octavo.messages.start import CoreReady, StartCore
from octavo.messages.wire import CoreFailed, FromCore, ToCore


class CoreClient(Protocol):
    """One core, wherever it runs."""

    is_same_process: bool

    async def launch(self) -> None:
        """Begin what needs no model: a process takes seconds to import torch. Once, before `start`."""

    async def start(self, start: StartCore) -> CoreReady:
        """Load the model. Raises the core's own typed error when it cannot."""

    def send(self, message: ToCore) -> None: ...

    async def receive(self) -> list[FromCore]:
        """All messages that are there, at least one. Raises EngineError once the core is gone."""

    async def end_stuck(self) -> bool:
        """Have it say where it is stuck, in the log, and kill it. False if it cannot be killed."""

    async def close(self) -> None:
        """End the core and free what it holds. Idempotent."""


_ERRORS = {
    "RequestError": errors.RequestError,
    "ConfigError": errors.ConfigError,
    "ModelFileError": errors.ModelFileError,
    "EngineError": errors.EngineError,
}


def raised(failure: CoreFailed) -> OctavoError:
    """The exception that `failure` describes."""
    kind = _ERRORS.get(failure.error, errors.EngineError)
    return kind(failure.message, code=ErrorCode[failure.code], param=failure.param)
