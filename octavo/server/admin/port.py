"""What the administrative routes need from an engine, beside what clients' routes do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from octavo.config.decisions.known import Reason
from octavo.engine.rest import Rest
from octavo.server.engine_port import EnginePort


class AdminPort(EnginePort, Protocol):
    """An engine that can be administrated. AsyncLLM is one."""

    @property
    def rest(self) -> Rest: ...

    @property
    def reasons(self) -> Sequence[Reason]: ...

    async def reset_prefix_cache(self) -> bool: ...

    def open_request_ids(self) -> list[str]: ...

    async def abort(self, request_id: str) -> None: ...

    async def set_log_level(self, level: str) -> None: ...

    async def start_profile(self) -> None: ...

    async def stop_profile(self, folder: str) -> str: ...
