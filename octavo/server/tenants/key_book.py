"""KeyBook: all keys that open a listener; those of a file change while the server runs."""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from octavo.base.clock import Clock, monotonic
from octavo.base.env import api_key
from octavo.base.errors import ConfigError
from octavo.config.server import ServerConfig
from octavo.server.tenants.key_file import Tenants, read_key_file
from octavo.server.tenants.tenant import NOBODY, Scope, Tenant, digest_of, owner_of_digest

logger = logging.getLogger(__name__)

CHECK_S = 1.0
"""How often it is looked whether the file has changed; only requests make it look."""

Stamp = tuple[int, int, int]
"""Tells one content of a file from another."""


class KeyBook:
    """Looks keys up. Whether any key is needed is settled at the start: no reload ever opens the door."""

    def __init__(self, fixed: Tenants, file: Path | None = None, *, clock: Clock = monotonic) -> None:
        self.has_names = file is not None
        """Keys have names: tenants are told apart."""
        self._fixed = fixed
        self._file = file
        self._clock = clock
        self._checked_at = clock()
        self._stamp = None if file is None else _stamp(file)
        self._tenants = fixed if file is None else _joined(fixed, read_key_file(file))
        self.is_open = not self._tenants
        if file is not None:
            _warn_of_readers(file)

    def find(self, keys: Sequence[bytes]) -> Tenant | None:
        """Whose the first known one of these keys is. Every known key is compared with each of them, so
        that time does not tell which one matched."""
        if self.is_open:
            return NOBODY
        tenants = self._current()
        found = []
        for key in keys:
            digest = digest_of(key)
            found += [tenant for known, tenant in tenants.items() if hmac.compare_digest(digest, known)]
        return found[0] if found else None

    def by_owner(self, owner: str) -> Tenant | None:
        """For calls that the server makes to itself on somebody's behalf."""
        return next((tenant for tenant in self.tenants() if tenant.owner == owner), None)

    def tenants(self) -> list[Tenant]:
        """Each once."""
        if self.is_open:
            return [NOBODY]
        return list({tenant.owner: tenant for tenant in self._current().values()}.values())

    def owners(self) -> set[str]:
        return {tenant.owner for tenant in self.tenants()}

    def names(self) -> list[str]:
        return [tenant.name for tenant in self.tenants()]

    def _current(self) -> Tenants:
        now = self._clock()
        if self._file is not None and now - self._checked_at >= CHECK_S:
            self._checked_at = now
            self._look_again(self._file)
        return self._tenants

    def _look_again(self, file: Path) -> None:
        stamp = _stamp(file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            tenants = _joined(self._fixed, read_key_file(file))
        except ConfigError as error:
            logger.error("The keys stay as they were: %s", error.message)
            return
        before, after = _names(self._tenants), _names(tenants)
        self._tenants = tenants
        logger.info(
            "Keys read again: %d names. New: %s. Gone: %s.",
            len(after),
            ", ".join(sorted(after - before)) or "none",
            ", ".join(sorted(before - after)) or "none",
        )


def configured_keys(server: ServerConfig) -> KeyBook:
    """What opens the listener for clients: keys of the options, else the one of the environment, and those
    of the file. None at all means: no key is asked for. Raises ConfigError."""
    keys = usable_keys(server.api_key, api_key(), "api_key")
    return KeyBook(fixed_tenants(keys, "api-key"), _key_file(server))


def administrators(keys: Iterable[str], server: ServerConfig) -> KeyBook:
    """What opens the administrative listener: its own keys, and those of the file with that scope."""
    own, file = fixed_tenants(keys, "admin-key"), _key_file(server)
    if file is None or all(Scope.ADMIN not in tenant.scopes for tenant in read_key_file(file).values()):
        return KeyBook(own)  # A file without an administrator changes nothing here.
    return KeyBook(own, file)


def usable_keys(given: list[str], from_environment: str | None, option: str) -> list[str]:
    """What was given, else what the environment says."""
    keys = given or ([from_environment] if from_environment else [])
    if any(not key.strip() for key in keys):
        raise ConfigError(f"{option} is empty; give a key or leave the option out.", param=option)
    return keys


def fixed_tenants(keys: Iterable[str], prefix: str) -> Tenants:
    """Keys of an option: they open everything and are named by their place."""
    digests = [digest_of(key.encode()) for key in keys]
    return {
        digest: Tenant(name=f"{prefix}-{number}", owner=owner_of_digest(digest))
        for number, digest in enumerate(digests, start=1)
    }


def _joined(fixed: Tenants, from_file: Tenants) -> Tenants:
    if fixed.keys() & from_file.keys() or _names(fixed) & _names(from_file):
        raise ConfigError(
            "The file of api_key_file repeats a key, or a name such as api-key-1, of the option api_key.",
            param="api_key_file",
        )
    return {**fixed, **from_file}


def _names(tenants: Tenants) -> set[str]:
    return {tenant.name for tenant in tenants.values()}


def _key_file(server: ServerConfig) -> Path | None:
    return None if server.api_key_file is None else Path(server.api_key_file)


def _stamp(file: Path) -> Stamp | None:
    """None: it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _warn_of_readers(file: Path) -> None:
    if os.name == "posix" and file.stat().st_mode & 0o044:
        logger.warning(
            "The file of api_key_file can be read by other users of this machine; chmod 600 ends that."
        )
