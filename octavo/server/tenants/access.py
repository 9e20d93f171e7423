"""Which kind of key each path asks for."""

from __future__ import annotations

from enum import StrEnum

from octavo.server.paths import OPEN_PATHS
from octavo.server.tenants.tenant import Scope, Tenant


class Access(StrEnum):
    OPEN = "open"
    ANY_KEY = "any key"
    INFERENCE = "inference"
    ADMIN = "admin"


ANY_KEY_PATHS = frozenset({"/version", "/v1/usage", "/v1/models", "/docs", "/openapi.json"})
"""They tell a key's holder about the server or itself."""

ADMIN_PATHS = frozenset({"/metrics"})
"""They show what others do."""


def client_access(path: str) -> Access:
    """On the listener for clients. What is not named here, paths that do not exist included, is inference."""
    if path in OPEN_PATHS:
        return Access.OPEN
    if path in ANY_KEY_PATHS:
        return Access.ANY_KEY
    return Access.ADMIN if path in ADMIN_PATHS else Access.INFERENCE


def admin_access(path: str) -> Access:
    """On the administrative listener."""
    return Access.OPEN if path in OPEN_PATHS else Access.ADMIN


def is_allowed(tenant: Tenant, access: Access) -> bool:
    return access in (Access.OPEN, Access.ANY_KEY) or Scope(access.value) in tenant.scopes
