"""Which requests in the engine an operator means by the ids that clients see."""

from __future__ import annotations

from octavo.server.admin.port import AdminPort
from octavo.server.admin.schema import AbortReply


async def abort_requests(engine: AdminPort, wanted: list[str]) -> AbortReply:
    """End them. Ids are compared whole: a part of one means nobody."""
    open_ids: dict[str, list[str]] = {}
    for engine_id in engine.open_request_ids():
        for name in known_as(engine_id):
            open_ids.setdefault(name, []).append(engine_id)
    reply = AbortReply(aborted=[], unknown=[])
    for name in dict.fromkeys(wanted):
        (reply.aborted if name in open_ids else reply.unknown).append(name)
        for engine_id in open_ids.get(name, []):
            await engine.abort(engine_id)
    return reply


def known_as(engine_id: str) -> set[str]:
    """'chatcmpl-0af7-0' (the first prompt of an answer) is known as that, 'chatcmpl-0af7' and '0af7'."""
    answer_id = engine_id.rpartition("-")[0]
    request_id = answer_id.replace("_", "-").rpartition("-")[2]
    return {engine_id, answer_id, request_id} - {""}
