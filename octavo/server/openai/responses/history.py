"""What a response continues: the items of earlier responses, and items that are only referred to."""

from __future__ import annotations

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import quoted
from octavo.server.openai.responses.ids import response_of_item
from octavo.server.openai.responses.library import Library
from octavo.server.openai.responses.reply import Item
from octavo.server.openai.responses.store import StoredResponse, output_items
from octavo.server.render.messages import MAX_MESSAGES

MAX_CHAIN = 512
"""Responses that one may continue, one behind the other."""
MAX_CHAIN_BYTES = 64 * 2**20
"""Their size together, as stored: far more text than a context holds."""

CONTINUABLE = ("completed", "incomplete")


async def items_before(library: Library, owner: str, stored: StoredResponse) -> list[Item]:
    """What a stored response continued, as far as it is still kept."""
    items: list[Item] = []
    next_id = stored.reply.previous_response_id
    for _ in range(MAX_CHAIN):
        earlier = None if next_id is None else await library.find(owner, next_id)
        if earlier is None or len(items) > MAX_MESSAGES:
            break
        items = [*earlier.input, *spoken_items(earlier), *items]
        next_id = earlier.reply.previous_response_id
    return items


async def continued_items(library: Library, owner: str, previous_id: str | None) -> list[Item]:
    """Input and output of all responses before, the oldest first."""
    chain: list[StoredResponse] = []
    seen: set[str] = set()
    num_bytes = 0
    next_id = previous_id
    while next_id is not None:
        if next_id in seen or len(chain) == MAX_CHAIN:
            raise _unusable(previous_id, f"leads back over more than {MAX_CHAIN} responses or in a circle")
        seen.add(next_id)
        stored = await library.find(owner, next_id)
        if stored is None:
            raise RequestError(
                f"There is no response {quoted(next_id)} (any more); send its items in input.",
                code=ErrorCode.NOT_FOUND,
                param="previous_response_id",
            )
        if stored.reply.status not in CONTINUABLE:
            raise _unusable(next_id, f"is {stored.reply.status}; wait for it to be completed")
        num_bytes += stored.num_bytes
        if num_bytes > MAX_CHAIN_BYTES:
            raise _unusable(previous_id, f"stands for more than {MAX_CHAIN_BYTES} bytes")
        chain.append(stored)
        next_id = stored.reply.previous_response_id
    items = [item for stored in reversed(chain) for item in (*stored.input, *spoken_items(stored))]
    if len(items) > MAX_MESSAGES:
        raise _unusable(previous_id, f"stands for {len(items)} items; at most {MAX_MESSAGES}")
    return items


def spoken_items(stored: StoredResponse) -> list[Item]:
    """Output that a conversation can go on from: a call that was cut cannot be answered."""
    return [
        item
        for item in output_items(stored)
        if not (item["type"] == "function_call" and item["status"] != "completed")
    ]


async def resolved_items(library: Library, owner: str, items: list[Item], before: list[Item]) -> list[Item]:
    """`items` with references replaced by what they refer to. No item may be there twice."""
    known = {item["id"] for item in before}
    resolved = []
    for index, item in enumerate(items):
        where = f"input[{index}].id"
        if item["id"] in known:
            raise RequestError(
                f"{where}: item {quoted(item['id'])} is part of the conversation already; leave it out.",
                param=where,
            )
        known.add(item["id"])
        is_reference = item["type"] == "item_reference"
        resolved.append(await _referred(library, owner, item["id"], where) if is_reference else item)
    return resolved


async def _referred(library: Library, owner: str, item_id: str, where: str) -> Item:
    response_id = response_of_item(item_id)
    stored = None if response_id is None else await library.find(owner, response_id)
    items = [] if stored is None else [*stored.input, *output_items(stored)]
    for item in items:
        if item["id"] == item_id:
            return item
    raise RequestError(
        f"There is no item {quoted(item_id)} (any more); send the item itself.",
        code=ErrorCode.NOT_FOUND,
        param=where,
    )


def _unusable(response_id: str | None, why: str) -> RequestError:
    return RequestError(f"Response {quoted(response_id or '')} {why}.", param="previous_response_id")
