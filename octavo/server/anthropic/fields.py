"""The policy for fields of an Anthropic body that no schema models, as in `openai/schema/fields.py`."""

from __future__ import annotations

from typing import Any

IGNORED = frozenset(
    {
        "betas",
        "billing_policy",
        "diagnostics",
        "metadata",
        "service_tier",
        "user_profile_id",
        "workspace_id",
    }
)
"""Accounts, prices and beta switches: they change nothing about an answer of ours."""

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "compaction": (),
    "container": (),
    "fallback_credit_token": (),
    "fallbacks": ([],),
    "inference_geo": ("global",),
    "mcp_servers": ([],),
    "speed": ("standard",),
    "thread": (),
}
