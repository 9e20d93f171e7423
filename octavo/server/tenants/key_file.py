"""The file of --api-key-file: keys with names, scopes, weights and limits, as TOML or YAML.

No message from here ever holds a line of the file: it may be a key.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from octavo.base.errors import ConfigError
from octavo.server.tenants.tenant import Allowance, Scope, Tenant, digest_of, owner_of_name

MAX_BYTES = 2**20
MAX_KEYS = 1000
"""All are compared with each key that comes: so many take well under a millisecond."""
MAX_WEIGHT = 1000.0
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
DIGEST = re.compile(r"[0-9a-fA-F]{64}")
SUFFIXES = (".toml", ".yaml", ".yml")

Tenants = dict[bytes, Tenant]
"""By the SHA-256 digest of a key."""


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One name in the file. Keys, or what `sha256sum` makes of them; several while one replaces the other."""

    name: str
    key: str | list[str] = []
    sha256: str | list[str] = []
    scopes: tuple[Scope, ...] = (Scope.INFERENCE,)
    weight: float = 1.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    max_priority: int | None = None


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[KeyEntry]


def read_key_file(path: Path) -> Tenants:
    """Read and check the whole file. Raises ConfigError saying what is wrong with it."""
    document = _parse(_read(path), path.suffix.lower())
    try:
        entries = msgspec.convert(document, KeyFile).keys
    except msgspec.ValidationError as error:
        raise _wrong(f"is not as it has to be: {error}.") from None
    return _tenants(entries)


def _read(path: Path) -> bytes:
    """Never waits: to open a pipe would, with all requests, until somebody writes into it."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _wrong("is not a regular file.")
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _wrong(f"cannot be read: {(error.strerror or 'unknown reason').lower()}.") from None
    if len(content) > MAX_BYTES:
        raise _wrong(f"is larger than {MAX_BYTES} bytes.")
    return content


def _parse(content: bytes, suffix: str) -> Any:
    if suffix not in SUFFIXES:
        raise _wrong(f"must end in one of {', '.join(SUFFIXES)}.")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _wrong("is not UTF-8.") from None
    if suffix == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            place = re.search(r"at line \d+, column \d+|at end of document", str(error))
            raise _wrong(f"is not valid TOML{f' {place[0]}' if place else ''}.") from None
        except (ValueError, RecursionError):  # Endless numbers and brackets.
            raise _wrong("is not valid TOML.") from None
    return _parse_yaml(text)


def _parse_yaml(text: str) -> Any:
    """With libyaml where it is there: a changed file is read between requests, and Python's own reader takes
    200 ms for a thousand keys."""
    import yaml

    try:
        from yaml import CSafeLoader as SafeLoader
    except ImportError:
        from yaml import SafeLoader  # type: ignore[assignment]
    try:
        return yaml.load(text, Loader=SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # At its end libyaml is on the line behind the last one.
        line = min(mark.line, text.count("\n")) + 1 if mark else None
        raise _wrong(f"is not valid YAML{f' at line {line}' if line else ''}.") from None
    except (ValueError, RecursionError):  # The same, and dates that there are not.
        raise _wrong("is not valid YAML.") from None


def _tenants(entries: list[KeyEntry]) -> Tenants:
    if not entries:
        raise _wrong("names no key.")
    tenants: Tenants = {}
    names: set[str] = set()
    for entry in entries:
        _check(entry, names)
        names.add(entry.name)
        tenant = Tenant(
            name=entry.name,
            owner=owner_of_name(entry.name),
            scopes=frozenset(entry.scopes),
            weight=entry.weight,
            allowance=Allowance(
                requests_per_minute=entry.requests_per_minute,
                tokens_per_minute=entry.tokens_per_minute,
                concurrency=entry.concurrency,
                max_priority=entry.max_priority,
            ),
        )
        for digest in _digests(entry):
            if digest in tenants:
                raise _wrong(f"gives {entry.name} a key that {tenants[digest].name} has, too.")
            tenants[digest] = tenant
    if len(tenants) > MAX_KEYS:
        raise _wrong(f"has {len(tenants)} keys; at most {MAX_KEYS}.")
    return tenants


def _check(entry: KeyEntry, names: set[str]) -> None:
    name = entry.name
    if NAME.fullmatch(name) is None:
        raise _wrong("holds a name that is not 1 to 64 of letters, digits, '.', '_' and '-'.")
    if name in names:
        raise _wrong(f"names {name} twice; one entry may have several keys.")
    if not entry.scopes:
        raise _wrong(f"gives {name} no scope: inference, admin or both.")
    if not 0.0 < entry.weight <= MAX_WEIGHT:
        raise _wrong(f"gives {name} a weight that is not over 0 and at most {MAX_WEIGHT:.0f}.")
    limits: Mapping[str, int | None] = {
        "requests_per_minute": entry.requests_per_minute,
        "tokens_per_minute": entry.tokens_per_minute,
        "concurrency": entry.concurrency,
    }
    for limit, value in limits.items():
        if value is not None and value < 1:
            raise _wrong(f"gives {name} a {limit} of {value}; at least 1, or leave it out.")


def _digests(entry: KeyEntry) -> list[bytes]:
    keys = [entry.key] if isinstance(entry.key, str) else entry.key
    hashes = [entry.sha256] if isinstance(entry.sha256, str) else entry.sha256
    if not keys and not hashes:
        raise _wrong(f"gives {entry.name} neither key nor sha256.")
    if any(not key.strip() or key != key.strip() for key in keys):
        raise _wrong(f"gives {entry.name} a key that is empty or has spaces around it.")
    if any(DIGEST.fullmatch(text) is None for text in hashes):
        raise _wrong(f"gives {entry.name} a sha256 that is not 64 hexadecimal digits.")
    return [*(digest_of(key.encode()) for key in keys), *map(bytes.fromhex, hashes)]


def _wrong(what: str) -> ConfigError:
    return ConfigError(f"The file of api_key_file {what}", param="api_key_file")
