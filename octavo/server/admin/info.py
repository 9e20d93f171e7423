"""What GET /server_info says."""

from __future__ import annotations

from octavo.config.root import iter_options
from octavo.server.admin.port import AdminPort
from octavo.server.admin.schema import OptionReply, ServerInfo
from octavo.server.lifecycle import Lifecycle


def server_info(engine: AdminPort, lifecycle: Lifecycle, version: str) -> ServerInfo:
    plan = engine.ready.plan
    return ServerInfo(
        version=version,
        models=engine.config.model.served_model_name,
        is_sleeping=engine.rest.sleep_level > 0,
        is_paused=engine.rest.is_paused,
        is_draining=lifecycle.is_draining,
        max_request_tokens=engine.max_request_tokens,
        kv_blocks=plan.num_blocks,
        kv_block_size=plan.block_size,
        memory_bytes=engine.ready.memory_bytes,
        start_seconds={name: round(value, 3) for name, value in engine.ready.seconds.items()},
        options=_options(engine),
    )


def _options(engine: AdminPort) -> list[OptionReply]:
    reasons = {reason.option: reason.reason for reason in engine.reasons}
    values = engine.config.option_values()
    return [
        OptionReply(spec.name, spec.shown(values[spec.name]), reasons.get(spec.name))
        for spec in iter_options()
    ]
