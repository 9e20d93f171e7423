"""The listening socket, made before the model is loaded: a taken port is found out in milliseconds."""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

from octavo.base import env
from octavo.base.errors import ConfigError
from octavo.config.root import EngineConfig
from octavo.config.server import ServerConfig

BACKLOG = 2048
ACCEPTED_AT_ONCE = 32
FIRST_INHERITED = 3
"""Descriptors of inherited sockets begin here."""
MAX_UDS_BYTES = 107
"""What fits into a socket address, the closing zero not counted."""


class Listener(socket.socket):
    """Keeps BACKLOG connections waiting. asyncio has one number for these and for how many it accepts in one
    turn of its loop, in which nobody else is served: so it is told the second, ACCEPTED_AT_ONCE."""

    def listen(self, backlog: int = BACKLOG) -> None:  # noqa: ARG002
        super().listen(BACKLOG)


def inherited_listener() -> socket.socket | None:
    """The socket that we were started with, if there is one. Raises ConfigError if it is of no use.

    It outlives us: connections that come while one server takes over from another wait in its queue.
    """
    count = env.num_inherited_sockets()
    if count == 0:
        return None
    if count > 1:
        raise ConfigError(f"LISTEN_FDS hands over {count} sockets; one is used. Hand over just one.")
    try:
        listener = Listener(fileno=FIRST_INHERITED)
        is_listening = bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        is_listening = False
    if not is_listening or listener.type != socket.SOCK_STREAM:
        raise ConfigError("Descriptor 3, which LISTEN_FDS hands over, is not a listening stream socket.")
    listener.setblocking(False)
    return listener


def listen(server: ServerConfig) -> socket.socket:
    """Bind and listen. Raises ConfigError saying what to change."""
    return _listen_unix(server.uds) if server.uds else listen_tcp(server.host, server.port)


def listen_tcp(host: str, port: int, prefix: str = "") -> socket.socket:
    """The same for an address. `prefix` is what the names of its options begin with."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"{prefix}port is {port}; it must be 0 to 65535.", param=f"{prefix}port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise ConfigError(
            f"{prefix}host {host!r} is not an address of this machine.", param=f"{prefix}host"
        ) from None
    listener = Listener(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        reason, flag = (error.strerror or "unknown reason").lower(), prefix.replace("_", "-")
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {reason}. "
            f"Choose another --{flag}port or --{flag}host, or stop what listens there.",
            param=f"{prefix}port",
        ) from None
    return listener


def with_address(config: EngineConfig, listener: socket.socket) -> EngineConfig:
    """The config with the address that is listened on: port 0 stands for any that is free, and a socket that
    was handed over has its own."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return replace(config, server=replace(config.server, uds=os.fsdecode(name)))
    host = config.server.host if config.server.port == 0 else name[0]
    is_as_told = config.server.uds is None and config.server.port == name[1]
    return (
        config
        if is_as_told
        else replace(config, server=replace(config.server, host=host, port=name[1], uds=None))
    )


def _listen_unix(path: str) -> socket.socket:
    if len(os.fsencode(path)) > MAX_UDS_BYTES:
        raise ConfigError(f"The path of uds is longer than {MAX_UDS_BYTES} bytes; shorten it.", param="uds")
    listener = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead_socket(Path(path))
        listener.bind(path)
        listener.listen()
    except OSError as error:
        listener.close()
        reason = (error.strerror or "unknown reason").lower()
        raise ConfigError(
            f"Cannot listen on the socket of uds: {reason}. Choose another path.", param="uds"
        ) from None
    return listener


def _remove_dead_socket(path: Path) -> None:
    """Remove what a server that was killed left behind; never a live socket, never another kind of file."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) != 0:
            path.unlink()
