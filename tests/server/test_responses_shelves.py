"""Shelves: bytes by name, in memory and in an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo.base.errors import ConfigError
from octavo.config.server import ServerConfig
from octavo.server.openai.responses.library import check_store
from octavo.server.openai.responses.shelf_memory import MemoryShelf
from octavo.server.openai.responses.shelf_sqlite import APPLICATION_ID, SqliteShelf
from octavo.server.openai.responses.store import Shelf, ShelfError


@pytest.fixture(params=["memory", "sqlite"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    made = MemoryShelf(3, 100) if request.param == "memory" else SqliteShelf(str(tmp_path / "r.db"), 3, 100)
    yield made
    made.close()


async def test_a_shelf_keeps_and_forgets(shelf: Shelf) -> None:
    await shelf.put("me", "a", b"one")
    await shelf.put("me", "a", b"two")
    assert await shelf.get("a") == b"two" and await shelf.get("b") is None
    assert await shelf.delete("a") and not await shelf.delete("a")
    assert await shelf.get("a") is None


async def test_a_shelf_is_bounded_in_number(shelf: Shelf) -> None:
    for name in "abcd":
        await shelf.put("me", name, b"x")
    assert [await shelf.get(name) for name in "abcd"] == [None, b"x", b"x", b"x"]
    await shelf.put("me", "b", b"y")  # It is the newest now.
    await shelf.put("me", "e", b"x")
    assert await shelf.get("c") is None and await shelf.get("b") == b"y"


async def test_a_shelf_is_bounded_in_bytes(shelf: Shelf) -> None:
    await shelf.put("me", "a", b"x" * 60)
    await shelf.put("me", "b", b"x" * 60)
    assert await shelf.get("a") is None and await shelf.get("b") is not None
    await shelf.put("me", "c", b"x" * 101)
    assert [await shelf.get(name) for name in "abc"] == [None, None, None]
    await shelf.put("me", "d", b"x" * 100)
    assert await shelf.get("d") == b"x" * 100


async def test_who_holds_the_most_makes_room(shelf: Shelf) -> None:
    """One key's responses took the place of everybody else's."""
    await shelf.put("few", "f", b"x")
    for name in "abcd":
        await shelf.put("many", name, b"x")
    assert [await shelf.get(name) for name in "fabcd"] == [b"x", None, None, b"x", b"x"]
    await shelf.put("third", "t", b"x")
    assert [await shelf.get(name) for name in "fcdt"] == [b"x", None, b"x", b"x"]
    await shelf.put("many", "e", b"x" * 101)
    assert [await shelf.get(name) for name in "fdte"] == [b"x", None, b"x", None]
    await shelf.delete("t")
    await shelf.put("many", "g", b"x" * 99)
    assert [await shelf.get(name) for name in "fg"] == [b"x", b"x" * 99]


async def test_a_file_from_before_there_were_owners_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with sqlite3.connect(path) as file:
        file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        file.execute("PRAGMA user_version = 1")
        file.execute(
            "CREATE TABLE responses "
            "(number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, data BLOB NOT NULL)"
        )
        rows = [("f", b'{"owner": "few"}'), ("a", b'{"owner": "many"}'), ("b", b"broken")]
        file.executemany("INSERT INTO responses (name, data) VALUES (?, ?)", rows)
    file.close()
    for _ in range(2):
        shelf = SqliteShelf(str(path), 3, 1000)
        assert [await shelf.get(name) for name in "fab"] == [data for _, data in rows]
        shelf.close()
    shelf = SqliteShelf(str(path), 3, 1000)
    await shelf.put("many", "c", b"x")
    assert [await shelf.get(name) is None for name in "fabc"] == [False, True, False, False]
    shelf.close()


async def test_a_file_whose_making_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    """A server of version 1 that was killed between its marks and its table left this."""
    path = tmp_path / "r.db"
    with sqlite3.connect(path) as file:
        file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        file.execute("PRAGMA user_version = 1")
    file.close()
    shelf = SqliteShelf(str(path), 3, 1000)
    await shelf.put("me", "a", b"x")
    assert await shelf.get("a") == b"x"
    shelf.close()


async def test_an_sqlite_shelf_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    first = SqliteShelf(str(path), 3, 1000)
    for name in "abc":
        await first.put("me", name, name.encode() * 10)
    first.close()
    assert path.stat().st_mode & 0o077 == 0, "nobody else reads it"
    second = SqliteShelf(str(path), 3, 1000)
    await second.put("me", "d", b"d")
    assert [await second.get(name) for name in "abcd"] == [None, b"b" * 10, b"c" * 10, b"d"]
    second.close()


async def test_a_failed_write_costs_no_count(tmp_path: Path) -> None:
    shelf = SqliteShelf(str(tmp_path / "r.db"), 2, 1000)
    shelf._file.execute(
        "CREATE TEMP TRIGGER t AFTER INSERT ON responses WHEN new.name = 'bad' "
        "BEGIN SELECT raise(FAIL, 'full'); END"
    )
    for _ in range(5):
        with pytest.raises(ShelfError, match="full"):
            await shelf.put("me", "bad", b"x")
    await shelf.put("me", "a", b"x")
    await shelf.put("me", "b", b"x")
    assert await shelf.get("a") == await shelf.get("b") == b"x"
    shelf.close()


def test_one_server_has_the_file(tmp_path: Path) -> None:
    config = ServerConfig(response_store=str(tmp_path / "r.db"))
    check_store(config)
    shelf = SqliteShelf(str(tmp_path / "r.db"), 3, 100)
    with pytest.raises(ConfigError, match="end the server") as refused:
        check_store(config)
    assert refused.value.param == "response_store"
    shelf.close()
    check_store(config)


@pytest.mark.parametrize("kind", ["garbage", "foreign", "later version", "folder", "missing folder"])
def test_files_that_are_not_ours_are_left_alone(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    if kind == "garbage":
        path.write_bytes(b"no database" * 100)
    elif kind == "foreign":
        with sqlite3.connect(path) as file:
            file.execute("CREATE TABLE things (x)")
    elif kind == "later version":
        SqliteShelf(str(path), 3, 100).close()
        with sqlite3.connect(path) as file:
            file.execute("PRAGMA user_version = 99")
    elif kind == "folder":
        path.mkdir()
    else:
        path = tmp_path / "nowhere" / "r.db"
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigError) as refused:
        check_store(ServerConfig(response_store=str(path)))
    assert refused.value.param == "response_store" and str(tmp_path) not in refused.value.message
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize(
    "name", ["max_stored_responses", "max_stored_response_bytes", "max_background_responses"]
)
def test_options_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        check_store(ServerConfig(**{name: -1}))
