"""Connection: uvicorn's HTTP/1.1 connection, with an end to everybody's patience and errors of our shape.

nothing complete arrives   header_timeout, from the first byte (or the start) to the end of the head
next to nothing is taken   send_timeout, while more is to be written than the transport wants to hold
answered before its end    the rest of a body is read past, so that the next request may follow, up to a bound
half closed                see half_close.py
too many of them           refused with 503, so that descriptors are left for what is being served
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from octavo.base.errors import EngineError, ErrorCode, OctavoError, RequestError
from octavo.server.connections.half_close import HalfClosed
from octavo.server.connections.plain_reply import plain_reply
from octavo.server.connections.taken import num_taken

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

LINGER_S = 2.0
"""How long a client may still read an answer that came before the end of its body."""
MAX_REST_BYTES = 2**20
"""What may still come of a body that was answered before its end."""
MAX_BEHIND = 64 * 1024
"""What may wait behind a request that is being answered, before no more is read."""
UNSENT_BYTES = 64 * 1024
"""What the kernel holds of one connection beyond what is on its way; the transport holds as much again."""
MIN_TAKEN = 4096
"""Bytes within send_timeout. Who takes less holds a connection by single bytes."""
TCP_NOTSENT_LOWAT = 25
"""Linux's number; socket has the name from Python 3.12 on."""

TOO_MANY = "There are too many connections; try again later."

Protocols = Callable[..., asyncio.Protocol]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """What connections of one listener may take."""

    header_timeout_s: float
    send_timeout_s: float
    max_connections: int


def connections(patience: Patience) -> Protocols:
    """What uvicorn makes its connections with."""

    def make(**arguments: Any) -> Connection:
        return Connection(patience, **arguments)

    return make


class Connection(H11Protocol):
    """One connection of a client."""

    def __init__(self, patience: Patience, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._patience = patience
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._num_taken = 0
        self._half_closed: HalfClosed | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._rest_of: RequestResponseCycle | None = None
        self._num_rest_bytes = 0
        self._lingers = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _bound_unsent(transport)
        if len(self.connections) > self._patience.max_connections:
            transport.write(plain_reply(EngineError(TOO_MANY, code=ErrorCode.OVERLOADED)))
            self._close()
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        if self._rest_timer is not None:
            self._num_rest_bytes += len(data)
            if self._num_rest_bytes > MAX_REST_BYTES:
                self.transport.abort()
                return
        if not self._lingers:
            super().data_received(data)
            self._stop_at_rests_end()
            self._watch_head()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """True keeps our half open."""
        if self._rest_timer is not None or not self._is_answering or self.scheme == "https":
            return None
        self._half_closed = HalfClosed(self.transport, self.cycle)
        return self._half_closed.may_be_there()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._send_timer, self._rest_timer):
            if timer is not None:
                timer.cancel()
        if self._half_closed is not None:
            self._half_closed.end()
        super().connection_lost(exc)
        if self.cycle is not None:
            # No circles, which only the collector would find.
            self.cycle.transport, self._rest_of = self.transport, None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._end_unless_taken()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    # What uvicorn calls

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self.cycle.transport = cast("asyncio.Transport", _CycleTransport(self.transport, self._end_cycle))
        self._listen_on()

    def on_response_complete(self) -> None:
        if self._lingers:
            return
        is_cut_short = self.conn.their_state is h11.SEND_BODY
        super().on_response_complete()
        self._end_unless_taken()
        if self.transport.is_closing():
            return
        if self._half_closed is not None:
            self._go_on_half_closed(self._half_closed)
        elif is_cut_short and b"expect" in dict(self.headers):
            # It may never be sent: what comes next could be either, the rest or a request.
            self._linger_and_say_so()
        elif is_cut_short:
            self._read_past_rest()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._end_unless_taken()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Called while a parser's exception is handled, which knows better what was wrong."""
        self._refuse(_parse_error(sys.exc_info()[1], is_head_line=b"\n" not in self.conn.trailing_data[0]))

    def _unsupported_upgrade_warning(self) -> None:
        """Not worth a line: the request is answered as one that asks for no upgrade."""

    # Ours

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _listen_on(self) -> None:
        """What comes behind a request waits for its answer, and uvicorn reads no more until then. But who
        leaves meanwhile is noticed only by who reads."""
        has_all = self._is_answering and not self.cycle.more_body
        if has_all and len(self.conn.trailing_data[0]) < MAX_BEHIND:
            self.flow.resume_reading()

    def _watch_head(self) -> None:
        """Have the timer run while a head is on its way, or has not begun on a new connection."""
        is_awaited = self.conn.their_state is h11.IDLE and not self._is_answering
        has_come = bool(self.conn.trailing_data[0]) or self.cycle is None
        if is_awaited and has_come and not self.transport.is_closing():
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(self._patience.header_timeout_s, self._head_is_late)
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self.conn.trailing_data[0]:
            seconds = self._patience.header_timeout_s
            self._refuse(
                RequestError(
                    f"The headers were not complete after {seconds:g} s.", code=ErrorCode.REQUEST_TIMEOUT
                )
            )
        else:
            self._close()

    def _refuse(self, error: OctavoError) -> None:
        """Answer what never became a request, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self._is_answering:
            self.transport.write(plain_reply(error))
            self._linger()
        else:
            self._close()

    def _end_cycle(self) -> None:
        """A request was answered, and the connection ends with it."""
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._linger()
        else:
            self.transport.close()

    def _close(self) -> None:
        self.transport.close()
        self._end_unless_taken()

    def _go_on_half_closed(self, answered: HalfClosed) -> None:
        """Requests that came before the client's end are answered, too."""
        answered.end()
        self._half_closed = HalfClosed(self.transport, self.cycle)
        if not self._is_answering or not self._half_closed.may_be_there():
            self._close()

    def _linger_and_say_so(self) -> None:
        """The answer did not say that the connection ends with it: within TLS only the end itself can."""
        if self.transport.can_write_eof():
            self._linger()
        else:
            self._close()

    def _linger(self) -> None:
        """Say that nothing more comes, and give the client time to read what came: a close while bytes of the
        client's are unread would make TCP take the answer back."""
        self._lingers = True
        self._read_past_rest()
        try:
            if self.transport.can_write_eof():  # Within TLS the answer's own length has to say it.
                self.transport.write_eof()
        except OSError:
            # Reset by the client, of which asyncio is yet to tell us.
            self.transport.abort()

    def _read_past_rest(self) -> None:
        """Bound what may still come, by bytes and time."""
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self._rest_of = self.cycle
        self._num_rest_bytes = 0
        self._rest_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def _stop_at_rests_end(self) -> None:
        """The connection is an ordinary one again once the whole body has come, maybe with a request."""
        is_over = self.conn.their_state is not h11.SEND_BODY or self.cycle is not self._rest_of
        if self._rest_timer is None or self._lingers or not is_over:
            return
        self._rest_timer.cancel()
        self._rest_timer = self._rest_of = None
        if not self._is_answering and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _end_unless_taken(self) -> None:
        """Give the client time to take what is still to be written, and more while it takes some."""
        if self._send_timer is None and self.transport.get_write_buffer_size():
            self._num_taken = num_taken(self.transport)
            self._send_timer = self.loop.call_later(self._patience.send_timeout_s, self._look_what_was_taken)

    def _look_what_was_taken(self) -> None:
        self._send_timer = None
        if not self.transport.get_write_buffer_size():
            return
        if num_taken(self.transport) - self._num_taken < MIN_TAKEN:
            self.transport.abort()
        else:
            self._end_unless_taken()


class _CycleTransport:
    """What uvicorn's cycle sees of the transport: its `close` is ours."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


def _parse_error(error: BaseException | None, *, is_head_line: bool) -> RequestError:
    if getattr(error, "error_status_hint", 400) != 431:
        return RequestError("This is not a valid HTTP/1.1 request.", code=ErrorCode.HTTP_INVALID)
    if is_head_line:
        return RequestError("The URL is too long.", code=ErrorCode.URI_TOO_LONG)
    return RequestError("The headers are too large.", code=ErrorCode.HEADERS_TOO_LARGE)


def _bound_unsent(transport: asyncio.Transport) -> None:
    """Without it a client that does not read has the kernel hold megabytes for it."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)
