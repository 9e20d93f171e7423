"""All groups of rows: name, how their server is started, the rows, and those about what is not there yet."""

from __future__ import annotations

from dataclasses import dataclass

from tests.attacks import (
    rows_connections,
    rows_contention,
    rows_doors,
    rows_faults,
    rows_fields,
    rows_files,
    rows_forms,
    rows_framing,
    rows_http,
    rows_keys,
    rows_kills,
    rows_leaving,
    rows_listening,
    rows_machines,
    rows_media,
    rows_private,
    rows_prompts,
    rows_sampling,
    rows_signals,
    rows_templates,
    rows_tools,
)
from tests.attacks.arena import Setting
from tests.attacks.row import NotThere, Row


@dataclass(frozen=True)
class Group:
    name: str
    setting: Setting
    rows: tuple[Row, ...]
    not_there: tuple[NotThere, ...] = ()


USUAL = Setting()

GROUPS: tuple[Group, ...] = (
    Group(
        "2.1 HTTP layer",
        USUAL,
        (*rows_http.ROWS, *rows_framing.ROWS, *rows_connections.ROWS, *rows_listening.ROWS),
    ),
    Group("2.3 request validation", USUAL, (*rows_prompts.ROWS, *rows_sampling.ROWS, *rows_fields.ROWS)),
    Group("every front door", USUAL, rows_doors.ROWS),
    Group(
        "2.4 structured output, tools, templates",
        USUAL,
        (*rows_forms.ROWS, *rows_tools.ROWS, *rows_templates.ROWS),
    ),
    Group("2.5 media and remote fetch", USUAL, (), rows_media.NOT_THERE),
    Group(
        "2.6 life of a request", USUAL, (*rows_leaving.ROWS, *rows_contention.ROWS), rows_leaving.NOT_THERE
    ),
    Group(
        "2.7 processes, machine, shutdown",
        USUAL,
        (*rows_kills.ROWS, *rows_faults.ROWS, *rows_signals.ROWS, *rows_machines.ROWS),
        rows_kills.NOT_THERE,
    ),
    Group("2.8 files", USUAL, rows_files.ROWS, rows_files.NOT_THERE),
    Group("2.9 logs, metrics, privacy", USUAL, rows_private.ROWS),
    Group("2.2 authentication and surface", rows_keys.SETTING, rows_keys.ROWS),
    Group(
        "2.3 and 2.4, with what is off by default",
        rows_keys.SETTING,
        (*rows_prompts.EMBED_ROWS, *rows_templates.TEMPLATE_ROWS),
    ),
    Group("2.1 HTTP layer, few descriptors", Setting(num_descriptors=96), rows_connections.CROWD_ROWS),
    Group("2.6 life of a request, few blocks", rows_contention.TIGHT, rows_contention.TIGHT_ROWS),
    Group("2.6 life of a request, tenants", rows_contention.TENANTS, rows_contention.TENANT_ROWS),
)
