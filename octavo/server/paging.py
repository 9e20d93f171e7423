"""Lists in pages: which part of a list a request asks for, and the query that finds it."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from starlette.requests import Request

from octavo.base.errors import RequestError
from octavo.server.errors import quoted

MAX_CURSOR = 64


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a list: `limit` items behind the one named `after`."""

    limit: int
    after: str | None = None
    is_descending: bool = True
    """Newest first."""


def page_query(max_limit: int) -> dict[str, dict[str, Any]]:
    """What `page_of` reads, for the OpenAPI page."""
    return {
        "limit": {"type": "integer", "minimum": 1, "maximum": max_limit},
        "after": {"type": "string"},
        "order": {"enum": ["asc", "desc"]},
    }


def page_of(request: Request, *, default_limit: int, max_limit: int) -> Page:
    """What the query of a request asks for. Raises RequestError naming the parameter."""
    query = request.query_params
    limit = query.get("limit", str(default_limit))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 1 <= int(limit) <= max_limit):
        raise RequestError(f"limit must be a whole number from 1 to {max_limit}.", param="limit")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise RequestError("order must be asc or desc.", param="order")
    after = query.get("after")
    if after is not None and len(after) > MAX_CURSOR:
        raise RequestError("after must be the id of an item of the list.", param="after")
    return Page(limit=int(limit), after=after or None, is_descending=order == "desc")


def rows_of(
    connection: sqlite3.Connection, page: Page, table: str, condition: str, values: list[Any]
) -> tuple[list[sqlite3.Row], bool]:
    """Rows of a table with `seq` and `id`, and whether more follow. `table` and `condition` are our words."""
    is_behind, order = ("<", "DESC") if page.is_descending else (">", "ASC")
    if page.after is not None:
        cursor = connection.execute(
            f"SELECT seq FROM {table} WHERE {condition} AND id = ?", [*values, page.after]
        ).fetchone()
        if cursor is None:
            raise RequestError(f"after: there is no {quoted(page.after)} in this list.", param="after")
        condition, values = f"{condition} AND seq {is_behind} ?", [*values, cursor["seq"]]
    rows = connection.execute(
        f"SELECT * FROM {table} WHERE {condition} ORDER BY seq {order} LIMIT ?", [*values, page.limit + 1]
    ).fetchall()
    return rows[: page.limit], len(rows) > page.limit
