"""Check of a whole input file before any of it runs. Blocks: call it in a thread."""

from __future__ import annotations

import time
from pathlib import Path

from octavo.base.errors import RequestError
from octavo.server.errors import quoted
from octavo.server.openai.batches.lines import parse_line, read_lines
from octavo.server.openai.batches.schema import BatchError

MAX_LINES = 50_000
MAX_ERRORS = 100
"""Shown of one file; a file with more has one mistake in every line."""


def check_input(path: Path, endpoint: str, max_line_bytes: int) -> tuple[int, list[BatchError]]:
    """Number of lines, and what is wrong with them."""
    errors: list[BatchError] = []
    lines_by_id: dict[str, int] = {}
    total = 0
    for raw in read_lines(path, max_line_bytes):
        total += 1
        if total > MAX_LINES:
            errors.append(BatchError("too_many_lines", f"A batch has at most {MAX_LINES} lines; split it."))
            break
        try:
            line = parse_line(raw, (endpoint,))
            first = lines_by_id.setdefault(line.custom_id, line.number)
            if first != line.number:
                raise RequestError(
                    f"custom_id {quoted(line.custom_id)} is the one of line {first} too.", param="custom_id"
                )
        except RequestError as error:
            errors.append(BatchError(error.code.value.code, error.message, error.param, raw.number))
        if len(errors) >= MAX_ERRORS:
            errors.append(BatchError("too_many_errors", "There may be more mistakes; these are the first."))
            break
        time.sleep(0)  # Let the event loop have the interpreter: others are being answered.
    if not total:
        errors.append(BatchError("empty_file", "The file has no lines."))
    return total, errors
