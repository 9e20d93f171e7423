"""BatchRecord: a batch as the database has it, and the reply made of it."""

from __future__ import annotations

import secrets

import msgspec

from octavo.server.openai.batches.schema import BatchError, BatchErrors, BatchReply, RequestCounts
from octavo.server.openai.files.store import new_file_id

WINDOW_S = 24 * 3600

VALIDATING = "validating"
IN_PROGRESS = "in_progress"
FINALIZING = "finalizing"
CANCELLING = "cancelling"
COMPLETED, FAILED, EXPIRED, CANCELLED = "completed", "failed", "expired", "cancelled"


class BatchRecord(msgspec.Struct, kw_only=True):
    """One batch. Its output files have ids from the start, which are told once they are files."""

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    created_at: int
    metadata: dict[str, str] | None = None
    output_life_s: int | None = None
    output_file_id: str
    error_file_id: str
    has_output: bool = False
    has_errors: bool = False
    status: str = VALIDATING
    times: dict[str, int] = {}
    """When it came into each later status."""
    counts: RequestCounts = msgspec.field(default_factory=RequestCounts)
    errors: list[BatchError] = []

    @property
    def expires_at(self) -> int:
        return self.created_at + WINDOW_S

    def reply(self, counts: RequestCounts | None = None) -> BatchReply:
        """What the owner sees. `counts` are those of a batch that runs, if they are known better."""
        entered = self.times.get
        return BatchReply(
            id=self.id,
            endpoint=self.endpoint,
            errors=BatchErrors(data=self.errors) if self.errors else None,
            input_file_id=self.input_file_id,
            status=self.status,
            output_file_id=self.output_file_id if self.has_output else None,
            error_file_id=self.error_file_id if self.has_errors else None,
            created_at=self.created_at,
            expires_at=self.expires_at,
            request_counts=counts or self.counts,
            metadata=self.metadata,
            in_progress_at=entered(IN_PROGRESS),
            finalizing_at=entered(FINALIZING),
            completed_at=entered(COMPLETED),
            failed_at=entered(FAILED),
            expired_at=entered(EXPIRED),
            cancelling_at=entered(CANCELLING),
            cancelled_at=entered(CANCELLED),
        )


def new_record(
    *,
    owner: str,
    endpoint: str,
    input_file_id: str,
    created_at: int,
    metadata: dict[str, str] | None,
    output_life_s: int | None,
) -> BatchRecord:
    return BatchRecord(
        id=f"batch_{secrets.token_hex(16)}",
        owner=owner,
        endpoint=endpoint,
        input_file_id=input_file_id,
        created_at=created_at,
        metadata=metadata,
        output_life_s=output_life_s,
        output_file_id=new_file_id(),
        error_file_id=new_file_id(),
    )
