"""How the pieces of a streamed body get to the connection: by ASGI, or past it where we know what is below.

uvicorn's h11 checks every piece of a body anew. A piece of a chunked body is a length and the piece, so
where the server is the one we start ourselves, pieces are written to its connection as such.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.types import Scope, Send

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

    Cycle: Any = RequestResponseCycle
else:
    try:
        from uvicorn.protocols.http.h11_impl import RequestResponseCycle as Cycle
    except ImportError:  # a uvicorn that is built otherwise: every piece takes the long way
        Cycle = ()

WritesBody = Callable[[bytes], Awaitable[None]]

SERVER_SEND = "octavo.server_send"
"""Where in the scope our outermost application leaves the server's own `send`."""


def body_writer(scope: Scope, send: Send) -> WritesBody:
    """Writes one piece of the body. Use it after the start of a response without a content-length."""
    cycle = getattr(scope.get(SERVER_SEND), "__self__", None)
    if isinstance(cycle, Cycle) and scope["http_version"] == "1.1" and scope["method"] != "HEAD":
        return _connection_writer(cycle)

    async def write(data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

    return write


def _connection_writer(cycle: RequestResponseCycle) -> WritesBody:
    flow, transport = cycle.flow, cycle.transport

    async def write(data: bytes) -> None:
        if flow.write_paused and not cycle.disconnected:
            await flow.drain()
        if not cycle.disconnected:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    return write
