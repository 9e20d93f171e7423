"""Accounts: what every tenant has used since the server started, and whether it may have more."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import msgspec

from octavo.base.clock import Clock, monotonic
from octavo.base.errors import ErrorCode, RequestError
from octavo.engine.usage import Used
from octavo.server.tenants.bucket import Bucket
from octavo.server.tenants.tenant import Tenant


class TenantUsage(msgspec.Struct, kw_only=True):
    """Of one tenant. Counts only grow."""

    requests: int = 0
    """That were let in; each line of a batch is one."""
    refused: int = 0
    """By its own limits."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens."""
    output_tokens: int = 0
    engine_seconds: float = 0.0
    """From the first step to the end, of all its requests together."""
    block_seconds: float = 0.0
    """Blocks of the KV cache, times how long its requests held them. Shared ones count for each holder."""


class Account:
    """One tenant's books. A bucket exists only while there is a limit."""

    def __init__(self) -> None:
        self.usage = TenantUsage()
        self.num_running = 0
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None


class Accounts:
    """Of all tenants, by name: what a name used stays when its key is changed. A UsageListener."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self.since = int(time.time())
        """Unix seconds."""
        self._clock = clock
        self._accounts: dict[str, Account] = {}

    def enter(self, tenant: Tenant) -> None:
        """A request comes in. Raises RATE_LIMITED if this tenant has to wait."""
        account, allowance = self._account(tenant.name), tenant.allowance
        try:
            self._check_concurrency(account, allowance.concurrency)
            requests = allowance.requests_per_minute
            account.requests = self._checked(account.requests, requests, 1.0, "requests")
            # One token is enough to begin: how many there will be is known only at the end.
            account.tokens = self._checked(account.tokens, allowance.tokens_per_minute, 1.0, "tokens")
        except RequestError:
            account.usage.refused += 1
            raise
        if account.requests is not None:
            account.requests.take(1)
        account.num_running += 1
        account.usage.requests += 1

    def leave(self, tenant: Tenant) -> None:
        """A request that came in was answered, or given up."""
        self._account(tenant.name).num_running -= 1

    def stay(self, tenant: Tenant) -> None:
        """What a request began goes on behind its answer, until it leaves as well."""
        self._account(tenant.name).num_running += 1

    def enter_own_call(self, tenant: Tenant) -> None:
        """A line of a batch: the batch was let in before."""
        self._account(tenant.name).usage.requests += 1

    def begun(self, tenant: str, num_prompt_tokens: int) -> None:
        account = self._account(tenant)
        account.usage.prompt_tokens += num_prompt_tokens
        if account.tokens is not None:
            account.tokens.take(num_prompt_tokens)

    def ended(self, tenant: str, used: Used) -> None:
        account = self._account(tenant)
        usage = account.usage
        usage.cached_tokens += used.cached_tokens
        usage.output_tokens += used.output_tokens
        usage.engine_seconds += used.seconds
        if account.tokens is not None:
            account.tokens.take(used.output_tokens)

    def held(self, tenant: str, block_seconds: float) -> None:
        self._account(tenant).usage.block_seconds += block_seconds

    def of(self, names: Iterable[str]) -> Mapping[str, TenantUsage]:
        return {name: self._account(name).usage for name in names}

    def _account(self, name: str) -> Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account()
        return account

    def _check_concurrency(self, account: Account, limit: int | None) -> None:
        if limit is not None and account.num_running >= limit:
            raise RequestError(
                f"This key has {account.num_running} requests running; {limit} are the most. "
                "Try again when one has ended.",
                code=ErrorCode.RATE_LIMITED,
            )

    def _checked(self, bucket: Bucket | None, limit: int | None, least: float, what: str) -> Bucket | None:
        """The bucket of a limit, if there is one. Raises RATE_LIMITED while it holds too little."""
        if limit is None:
            return None
        now = self._clock()
        bucket = bucket or Bucket(limit, now)
        wait_s = bucket.wait_s(limit, least, now)
        if wait_s > 0:
            raise RequestError(
                f"This key may use {limit} {what} per minute and has. Try again in {wait_s:.0f} s.",
                code=ErrorCode.RATE_LIMITED,
                retry_after_s=wait_s,
            )
        return bucket
