"""Tenant: who stands behind a key, what the key opens and how much it may ask for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a key opens."""

    INFERENCE = "inference"
    ADMIN = "admin"


EVERYTHING = frozenset(Scope)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """How much a tenant may ask for; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompts and answers."""
    concurrency: int | None = None
    """Requests being answered at the same time."""
    max_priority: int | None = None
    """The smallest, that is the most urgent, priority that a request may ask for."""


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """One per name, however many keys it has."""

    name: str
    owner: str
    """What stored things are marked with: no way back to a key."""
    scopes: frozenset[Scope] = EVERYTHING
    weight: float = 1.0
    """Its share of the engine beside others, where several wait."""
    allowance: Allowance = Allowance()


def digest_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def owner_of_digest(digest: bytes) -> str:
    """For a key without a name: the same for the same key."""
    return hashlib.sha256(b"octavo owner" + digest).hexdigest()[:32]


def owner_of_name(name: str) -> str:
    """For a named key: what belongs to the name stays when the key is changed."""
    return hashlib.sha256(b"octavo tenant" + name.encode()).hexdigest()[:32]


NOBODY = Tenant(name="anonymous", owner="")
"""Whoever comes to a server without keys."""
