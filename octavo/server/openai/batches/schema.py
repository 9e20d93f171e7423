"""/v1/batches: the body and the replies."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from pydantic import Field

from octavo.server.body import Body
from octavo.server.openai.files.store import MAX_LIFE_S, MIN_LIFE_S
from octavo.server.openai.schema.metadata import Metadata


class OutputExpiresAfter(Body):
    """How long output and error file are kept."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=MIN_LIFE_S, le=MAX_LIFE_S)]


class BatchBody(Body):
    """Execute the lines of a file."""

    input_file_id: Annotated[str, Field(max_length=128)]
    endpoint: Annotated[str, Field(max_length=128)]
    completion_window: Literal["24h"]
    metadata: Metadata = None
    output_expires_after: OutputExpiresAfter | None = None


class BatchError(msgspec.Struct):
    """What is wrong with the input."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchErrors(msgspec.Struct, kw_only=True):
    """All that is wrong."""

    object: str = "list"
    data: list[BatchError]


class RequestCounts(msgspec.Struct, kw_only=True):
    """How far a batch is."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchReply(msgspec.Struct, kw_only=True):
    """One batch."""

    id: str
    object: str = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str = "24h"
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class BatchList(msgspec.Struct, kw_only=True):
    """Some batches, newest first unless asked otherwise."""

    object: str = "list"
    data: list[BatchReply]
    first_id: str | None
    last_id: str | None
    has_more: bool
