"""An answer to what never became a request: written by hand, as no application has seen it."""

from __future__ import annotations

import logging
import secrets
from http import HTTPStatus

import msgspec

from octavo.base.errors import OctavoError, Retry
from octavo.observe.log import REFUSALS, log_fields
from octavo.server.errors import RETRY_AFTER_S, describe

logger = logging.getLogger(REFUSALS)


def plain_reply(error: OctavoError) -> bytes:
    """All bytes of the response, after which the connection is to be closed."""
    status, reply = describe(error)
    body = msgspec.json.encode(reply)
    request_id = secrets.token_hex(16)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        "x-request-id": request_id,
        "request-id": request_id,
    }
    if error.code.value.retry is Retry.LATER:
        headers["retry-after"] = str(RETRY_AFTER_S)
    log_fields(logger, logging.DEBUG, "no request", status=status, refused=error.code.value.code)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
