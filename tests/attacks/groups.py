"""All groups of rows: name, how their server is started, the rows, and those about what is not there yet."""

from __future__ import annotations

from dataclasses import dataclass

from tests.attacks import rows_files, rows_http, rows_requests
from tests.attacks.arena import Setting
from tests.attacks.row import NotThere, Row


@dataclass(frozen=True)
class Group:
    name: str
    setting: Setting
    rows: tuple[Row, ...]
    not_there: tuple[NotThere, ...] = ()


GROUPS: tuple[Group, ...] = (
    Group("2.1 HTTP layer", rows_http.SETTING, rows_http.ROWS),
    Group("2.6 Life of a request", rows_requests.SETTING, rows_requests.ROWS, rows_requests.NOT_THERE),
    Group("2.6 Life of a request, few blocks", rows_requests.TIGHT, rows_requests.TIGHT_ROWS),
    Group("2.6 Life of a request, tenants", rows_requests.TENANTS, rows_requests.TENANT_ROWS),
    Group("2.8 Files", rows_files.SETTING, rows_files.ROWS, rows_files.NOT_THERE),
)
