"""The file of --api-key-file: what it may say, what is refused, and what a change of it does."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path

import pytest
import yaml

from octavo.base.errors import ConfigError
from octavo.config.server import ServerConfig
from octavo.server.tenants.key_book import KeyBook, administrators, configured_keys
from octavo.server.tenants.key_file import read_key_file
from octavo.server.tenants.tenant import Scope, digest_of

TOML = """
[[keys]]
name = "search"
key = "sk-search"
weight = 2
requests_per_minute = 60

[[keys]]
name = "ops"
sha256 = ["{digest}"]
scopes = ["admin"]
"""
YAML = """
keys:
  - {{name: search, key: sk-search, weight: 2, requests_per_minute: 60}}
  - {{name: ops, sha256: ["{digest}"], scopes: [admin]}}
"""


@pytest.mark.parametrize(("suffix", "text"), [(".toml", TOML), (".yaml", YAML), (".yml", YAML)])
def test_both_languages_say_the_same(tmp_path: Path, suffix: str, text: str) -> None:
    file = tmp_path / f"keys{suffix}"
    file.write_text(text.format(digest=hashlib.sha256(b"sk-ops").hexdigest()))
    tenants = read_key_file(file)
    search, ops = tenants[digest_of(b"sk-search")], tenants[digest_of(b"sk-ops")]
    assert (search.name, search.weight, search.scopes) == ("search", 2.0, {Scope.INFERENCE})
    assert search.allowance.requests_per_minute == 60 and search.allowance.concurrency is None
    assert (ops.name, ops.scopes) == ("ops", {Scope.ADMIN})
    assert "sk-search" not in repr(tenants)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys = []", "names no key"),
        ("[[keys]]\nname = 'a'", "neither key nor sha256"),
        ("[[keys]]\nname = 'a b'\nkey = 'secret'", "a name that is not"),
        ("[[keys]]\nname = 'a'\nkey = ' secret'", "empty or has spaces"),
        ("[[keys]]\nname = 'a'\nkey = ''", "empty or has spaces"),
        ("[[keys]]\nname = 'a'\nsha256 = 'secret'", "64 hexadecimal digits"),
        ("[[keys]]\nname = 'a'\nkey = 'secret'\nscopes = ['root']", "scopes"),
        ("[[keys]]\nname = 'a'\nkey = 'secret'\nscopes = []", "no scope"),
        ("[[keys]]\nname = 'a'\nkey = 'secret'\nweight = 0", "a weight"),
        ("[[keys]]\nname = 'a'\nkey = 'secret'\nweight = nan", "a weight"),
        ("[[keys]]\nname = 'a'\nkey = 'secret'\nconcurrency = 0", "concurrency of 0"),
        ("[[keys]]\nname = 'a'\nkey = 'secret'\nrpm = 5", "unknown field `rpm`"),
        ("[[keys]]\nname = 'a'\nkey = 'secret'\n[[keys]]\nname = 'a'\nkey = 'other'", "names a twice"),
        ("[[keys]]\nname = 'a'\nkey = 'secret'\n[[keys]]\nname = 'b'\nkey = 'secret'", "a has, too"),
        ("[[keys]]\nkey = 'secret", "not valid TOML at end of document"),
    ],
)
def test_what_is_wrong_is_said_without_showing_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_key_file(file)
    assert "secret" not in caught.value.message and str(tmp_path) not in caught.value.message


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="needs libyaml")
def test_yaml_is_read_by_libyaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read between requests, and Python's own scanner is slow."""
    monkeypatch.delattr("yaml.scanner.Scanner.fetch_more_tokens")
    file = tmp_path / "keys.yaml"
    file.write_text("keys: [{name: a, key: b}]")
    assert len(read_key_file(file)) == 1


def test_broken_yaml_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("keys:\n  - {name: a, key: secret")
    with pytest.raises(ConfigError, match="not valid YAML at line 2") as caught:
        read_key_file(file)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["keys.json", "nothing.toml"])
def test_files_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "keys.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"must end in|no such file"):
        read_key_file(tmp_path / name)


class Book:
    """A book on a file and a clock of ours."""

    def __init__(self, file: Path) -> None:
        self.now = 0.0
        self.file = file
        self.write("sk-one")
        self.book = KeyBook({}, file, clock=lambda: self.now)

    def write(self, *keys: str) -> None:
        self.replace("".join(f"[[keys]]\nname = 'n{key[3:]}'\nkey = '{key}'\n" for key in keys))

    def replace(self, text: str) -> None:
        """As editors do: a new file in the place of the old."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o600)
        os.replace(new, self.file)

    def knows(self, key: str) -> bool:
        return self.book.find([key.encode()]) is not None


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "keys.toml")


def test_a_changed_file_is_read_again(book: Book, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert book.knows("sk-one") and not book.knows("sk-two")
    book.write("sk-two")
    assert not book.knows("sk-two")
    book.now = 1.0
    assert book.knows("sk-two") and not book.knows("sk-one")
    assert "New: ntwo. Gone: none." in caplog.text and "sk-" not in caplog.text


def test_bad_content_changes_nothing_and_is_logged_once(book: Book, caplog: pytest.LogCaptureFixture) -> None:
    for content in ("[[keys]]\nname = 'x'", "", "half of a fi"):
        book.replace(content)
        for _ in range(3):
            book.now += 1.0
            assert book.knows("sk-one")
        assert caplog.text.count("The keys stay as they were") == 1
        caplog.clear()
    book.file.unlink()
    book.now += 1.0
    assert book.knows("sk-one") and "cannot be read" in caplog.text
    book.write("sk-two")
    book.now += 1.0
    assert book.knows("sk-two")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("keys.toml", "x = " + "[" * 5000),
        ("keys.toml", "x = " + "9" * 5000),
        ("keys.yaml", "x: " + "9" * 5000),
        ("keys.yaml", "keys:\n - {name: a, key: 2024-99-99}"),
    ],
)
def test_what_makes_a_parser_stumble_is_wrong_content(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=r"is not valid (TOML|YAML)\.$"):
        read_key_file(tmp_path / name)


def test_a_pipe_in_the_place_of_the_file_holds_nobody_up(
    book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    """To open it waits until somebody writes into it: the whole server would."""
    book.file.unlink()
    os.mkfifo(book.file)
    for expected in (1, 1):
        book.now += 1.0
        assert book.knows("sk-one") and caplog.text.count("not a regular file") == expected
    with pytest.raises(ConfigError, match="not a regular file"):
        read_key_file(book.file)
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        read_key_file(book.file.parent)


def test_no_reload_opens_the_door(book: Book) -> None:
    book.replace("keys = []")
    book.now = 1.0
    assert book.book.find([]) is None and not book.book.is_open


def test_a_file_that_others_can_read_is_pointed_out(book: Book, caplog: pytest.LogCaptureFixture) -> None:
    KeyBook({}, book.file)
    assert not caplog.text
    book.file.chmod(0o644)
    KeyBook({}, book.file)
    assert "chmod 600" in caplog.text


def test_the_option_and_the_file_together(book: Book) -> None:
    both = configured_keys(ServerConfig(api_key=["plain"], api_key_file=str(book.file)))
    assert sorted(both.names()) == ["api-key-1", "none"]
    with pytest.raises(ConfigError, match="repeats a key"):
        configured_keys(ServerConfig(api_key=["sk-one"], api_key_file=str(book.file)))


def test_who_administrates(book: Book) -> None:
    server = ServerConfig(api_key_file=str(book.file))
    assert administrators([], server).is_open and administrators(["a"], server).names() == ["admin-key-1"]
    book.replace("[[keys]]\nname = 'ops'\nkey = 'sk-ops'\nscopes = ['admin']")
    assert not administrators([], server).is_open
    assert sorted(administrators(["a"], server).names()) == ["admin-key-1", "ops"]


@pytest.mark.parametrize("language", ["toml", "yaml"])
def test_the_documented_files_can_be_used(tmp_path: Path, language: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "features" / "tenants.md"
    [text] = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    file = tmp_path / f"keys.{language}"
    file.write_text(text)
    names = {tenant.name: tenant for tenant in read_key_file(file).values()}
    assert names["search"].weight == 2 and names["operator"].scopes == {Scope.ADMIN}
