"""Bodies and replies of the administrative routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from octavo.server.body import Body

MAX_IDS = 4096


class Done(msgspec.Struct):
    """It is done."""

    status: str = "ok"


class SleepReply(msgspec.Struct):
    """Whether the model sleeps, and how deep."""

    is_sleeping: bool
    level: int


class PauseReply(msgspec.Struct):
    """Whether requests are refused because an operator said so."""

    is_paused: bool


class LogLevelBody(Body):
    """How much is logged from now on."""

    level: Literal[
        "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "debug", "info", "warning", "error", "critical"
    ]


class AbortBody(Body):
    """Requests to end: the `id` of an answer, or the `x-request-id` header of its response."""

    request_ids: Annotated[list[str], Field(min_length=1, max_length=MAX_IDS)]


class AbortReply(msgspec.Struct):
    """Which of them ran or waited, and which did not."""

    aborted: list[str]
    unknown: list[str]


class ProfileReply(msgspec.Struct):
    """The trace's name in the profile folder."""

    file: str


class OptionReply(msgspec.Struct):
    """One option of the server: its value and, where it was derived, why."""

    option: str
    value: Any
    reason: str | None


class ServerInfo(msgspec.Struct, kw_only=True):
    """What runs here. Keys are never shown."""

    version: str
    models: list[str]
    is_sleeping: bool
    is_paused: bool
    is_draining: bool
    max_request_tokens: int
    kv_blocks: int
    kv_block_size: int
    memory_bytes: dict[str, int]
    start_seconds: dict[str, float]
    options: list[OptionReply]


class Accounting(msgspec.Struct, kw_only=True):
    """What the server holds now, and how late its event loop was at most since this was last asked."""

    answering: int
    """Requests being answered by the listener for clients."""
    open_requests: int
    """Requests that the engine has not ended."""
    running: int
    waiting: int
    kv_blocks: int
    kv_blocks_held: int
    """By requests; 0 when there are none."""
    kv_blocks_cached: int
    """They keep a prefix that nobody may hold at the moment."""
    core_restarts: int
    tasks: int
    threads: int
    descriptors: int
    children: int
    """Processes below this one."""
    resident_bytes: int
    longest_lag_s: float
    longest_busy_s: float
    """The part of it that the event loop's own thread computed."""
