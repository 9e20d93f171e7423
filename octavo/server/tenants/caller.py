"""Who the current task works for, from the door to the engine, without every layer handing it on."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from contextvars import ContextVar
from dataclasses import dataclass

from octavo.base.errors import ErrorCode, RequestError
from octavo.messages.request import Terms
from octavo.server.tenants.tenant import NOBODY, Tenant


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A tenant with one request."""

    tenant: Tenant
    is_walled: bool = False
    """Its prefix cache is its own."""
    arrived: float = 0.0
    """Monotonic seconds."""
    timeout_s: float | None = None
    """What it said how long it will wait."""
    most_s: float | None = None
    """What the server allows."""

    def salt(self, wish: str | None) -> str | None:
        """The salt of its prefix cache: what it asked for, and where walls stand, in its own room."""
        if not self.is_walled:
            return wish
        return hashlib.sha256(f"{self.tenant.owner}:{wish or ''}".encode(errors="surrogatepass")).hexdigest()

    @property
    def terms(self) -> Terms:
        """What the engine is told of it."""
        timeout_s = self.most_s if self.timeout_s is None else self.timeout_s
        return Terms(
            tenant=self.tenant.name,
            weight=self.tenant.weight,
            deadline=None if timeout_s is None else self.arrived + timeout_s,
        )

    def within(self, timeout_s: float, param: str) -> Caller:
        """The same caller, who waits no longer than this. Raises RequestError for what nobody may wait."""
        most_s = math.inf if self.most_s is None else self.most_s
        if not 0.0 < timeout_s < math.inf or timeout_s > most_s:
            allowed = "over 0 and finite" if most_s == math.inf else f"over 0 and at most {most_s:g}"
            raise RequestError(
                f"{param} is {timeout_s:g} seconds; it must be {allowed}.", param=param.lower()
            )
        shortest = timeout_s if self.timeout_s is None else min(timeout_s, self.timeout_s)
        return dataclasses.replace(self, timeout_s=shortest)

    def check_priority(self, priority: int) -> None:
        """Raise FORBIDDEN for a priority that is more urgent than this key may ask for."""
        limit = self.tenant.allowance.max_priority
        if limit is not None and priority < limit:
            raise RequestError(
                f"priority is {priority}; this key may ask for {limit} or greater numbers, which run later.",
                code=ErrorCode.FORBIDDEN,
                param="priority",
            )


NO_CALLER = Caller(tenant=NOBODY)

_current: ContextVar[Caller] = ContextVar("octavo_caller", default=NO_CALLER)


def current_caller() -> Caller:
    return _current.get()


def set_caller(caller: Caller) -> None:
    """From now on this task, and tasks it starts, work for this caller."""
    _current.set(caller)
