"""The first moments of a server process: it listens, launches its core, and imports the rest meanwhile.

A core takes longest to start, as it imports torch; what a server imports takes two thirds of a second. So
this module imports little, and what needs much is imported where it is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from octavo.config.admin import AdminConfig
from octavo.config.root import EngineConfig
from octavo.engine.core_choice import launch_core
from octavo.observe.log import set_up_logging
from octavo.server.listen import inherited_listener, listen, listen_tcp, with_address

if TYPE_CHECKING:
    from octavo.server.engine_port import EnginePort

logger = logging.getLogger(__name__)


def run_server(config: EngineConfig, *, on_ready: Callable[[EnginePort], None] | None = None) -> int:
    """Serve until told to stop. Returns the exit status. Raises ConfigError or ModelFileError at start."""
    set_up_logging(config.observe.log_format, config.observe.log_level)
    faulthandler.register(signal.SIGQUIT, file=sys.__stderr__ or 2, all_threads=True)
    with contextlib.ExitStack() as stack:
        inherited = inherited_listener()
        listener = stack.enter_context(contextlib.closing(inherited or listen(config.server)))
        if inherited is not None:
            logger.info("Listening on the socket that was handed over, not on host and port")
        config = with_address(config, listener)
        admin_listener = _listen_admin(config.admin)
        if admin_listener is not None:
            stack.enter_context(contextlib.closing(admin_listener))
        return asyncio.run(_run(config, listener, admin_listener, on_ready, hands_over=inherited is not None))


async def _run(
    config: EngineConfig,
    listener: socket.socket,
    admin_listener: socket.socket | None,
    on_ready: Callable[[EnginePort], None] | None,
    *,
    hands_over: bool,
) -> int:
    core = await launch_core(in_process=False)
    try:
        from octavo.engine.async_llm import AsyncLLM
        from octavo.server.options import check_options
        from octavo.server.run import serve

        check_options(config)
        return await serve(
            lambda: AsyncLLM.start(config, core=core, on_progress=lambda text: logger.info("%s", text)),
            config,
            listener,
            admin_listener,
            on_ready=on_ready,
            hands_over=hands_over,
        )
    finally:
        await core.close()


def _listen_admin(admin: AdminConfig) -> socket.socket | None:
    """Bind it, if there is to be one."""
    if admin.admin_port is None:
        return None
    listener = listen_tcp(admin.admin_host, admin.admin_port, "admin_")
    logger.info("Administration on %s:%d", admin.admin_host, listener.getsockname()[1])
    return listener
