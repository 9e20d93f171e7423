"""A client that sends no more: does it still read, or has it gone? TCP says the same in both cases.

Who has gone answers whatever we send with a reset. So the response itself would find out, but that may
be minutes away, and until then nobody needs what is computed. '100 Continue' may be sent at any time before
a response, and every client of HTTP/1.1 must skip it. Once the response has begun its pieces ask.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

QUESTION = b"HTTP/1.1 100 Continue\r\n\r\n"
LOOK_S = 0.05
QUIET_S = 3.0
"""After so long without sending we ask anew, or, where we cannot, take it that the client has gone."""

TCP_CLOSE = 7
"""State of a connection that was reset."""


class HalfClosed:
    """One such connection, while its request is answered."""

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._timer: asyncio.TimerHandle | None = None

    def may_be_there(self) -> bool:
        """Whether to keep the connection, for now."""
        connection = self._transport.get_extra_info("socket")
        is_tcp = connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6)
        if self._cycle.more_body or not is_tcp or self._cycle.scope["http_version"] != "1.1":
            return False
        if not self._cycle.response_started:
            self._transport.write(QUESTION)
        self._look_later()
        return True

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        if self._transport.is_closing():
            return
        info = _tcp_info(self._transport.get_extra_info("socket"))
        is_quiet = info.last_data_sent_s > QUIET_S
        if info.state == TCP_CLOSE or (is_quiet and self._cycle.response_started):
            self._transport.abort()
            return
        if is_quiet:
            self._transport.write(QUESTION)
        self._look_later()


class _TcpInfo(NamedTuple):
    state: int
    last_data_sent_s: float
    """Seconds ago."""


def _tcp_info(connection: socket.socket) -> _TcpInfo:
    """The two fields that we read of Linux's struct tcp_info: its first byte, and milliseconds at byte 44."""
    state, milliseconds = struct.unpack(
        "=B43xI", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 48)
    )
    return _TcpInfo(state, milliseconds / 1000)
