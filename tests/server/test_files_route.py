"""/v1/files: the official client, limits while reading, other people's files, restarts."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from batch_server import Clock, served
from server_replies import check_error

from octavo.base.errors import ConfigError
from octavo.config.server import ServerConfig
from octavo.server.openai.files import upload as upload_module
from octavo.server.openai.files.disk import Disk, check_files_dir


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "contents").iterdir())


async def put(http: httpx.AsyncClient, data: bytes = b"x", **extra: str) -> httpx.Response:
    return await http.post(
        "/v1/files", files={"file": ("a.jsonl", data)}, data={"purpose": "batch", **extra}, timeout=20
    )


async def test_the_official_client(folder: Path) -> None:
    data = os.urandom(300_000)
    async with served(folder) as server:
        api = server.api()
        file = await api.files.create(file=("in.jsonl", data), purpose="user_data")
        assert (file.bytes, file.filename, file.purpose) == (300_000, "in.jsonl", "user_data")
        assert (await api.files.retrieve(file.id)) == file
        assert (await api.files.content(file.id)).read() == data
        assert [found.id async for found in await api.files.list()] == [file.id]
        assert contents(folder) == [file.id]
        gone = await api.files.delete(file.id)
        assert gone.deleted and gone.id == file.id
        assert contents(folder) == []
        for call in (api.files.retrieve, api.files.content, api.files.delete):
            with pytest.raises(openai.NotFoundError):
                await call(file.id)


async def test_lists_come_in_pages() -> None:
    async with served() as server:
        api = server.api()
        made = [
            (await api.files.create(file=(f"{i}", b"x"), purpose="batch" if i % 2 else "user_data")).id
            for i in range(7)
        ]
        newest = await api.files.list(limit=3)
        assert [file.id for file in newest.data] == made[:3:-1] and newest.has_more
        assert [file.id async for file in api.files.list(limit=2)] == made[::-1]
        assert [file.id async for file in api.files.list(limit=2, order="asc")] == made
        assert [file.id async for file in api.files.list(purpose="batch", order="asc")] == made[1::2]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=10001", "limit"),
        ("limit=1e3", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("order=up", "order"),
        ("after=file-0", "after"),
        ("after=" + "x" * 5000, "after"),
        ("after=%00%ff", "after"),
    ],
)
async def test_bad_pages(query: str, param: str) -> None:
    async with served() as server:
        check_error(await server.http().get(f"/v1/files?{query}"), 400, "invalid_value", param)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..", "/", "a\\..\\b", "x" * 3000, "", "\u202e\u0000.txt"]
)
async def test_file_names_are_only_labels(folder: Path, name: str) -> None:
    async with served(folder) as server:
        response = await server.http().post(
            "/v1/files", files={"file": (name or "x", b"data")}, data={"purpose": "user_data"}
        )
        file = response.json()
        assert response.status_code == 200, response.text
        assert contents(folder) == [file["id"]]
        assert "/" not in file["filename"] and file["filename"].isprintable()
        assert 1 <= len(file["filename"]) <= 255
        read = await server.http().get(f"/v1/files/{file['id']}/content")
        assert read.content == b"data"
        assert read.headers["content-type"] == "application/octet-stream"
        assert read.headers["x-content-type-options"] == "nosniff"
        assert read.headers["content-disposition"].startswith("attachment;")


PART = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n'
PURPOSE = PART % (b"purpose", b"batch")
END = b"--b--\r\n"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "invalid_value", None),
        (b"garbage", 400, "invalid_value", None),
        (FILE % b"x", 400, "invalid_value", None),
        (FILE % b"x" + PURPOSE, 400, "invalid_value", None),
        (PURPOSE + END, 400, "invalid_value", "file"),
        (FILE % b"x" + END, 400, "invalid_value", "purpose"),
        (FILE % b"x" + FILE % b"y" + PURPOSE + END, 400, "invalid_value", "file"),
        (PART % (b"file", b"x") + PURPOSE + END, 400, "invalid_value", "file"),
        (PURPOSE + PURPOSE + FILE % b"x" + END, 400, "invalid_value", "purpose"),
        (PART % (b"purpose", b"fine-tune") + FILE % b"x" + END, 400, "unsupported_value", "purpose"),
        (PART % (b"purpose", b"\xff\x00") + FILE % b"x" + END, 400, "unsupported_value", "purpose"),
        (PART % (b"purpose", b"x" * 2000) + FILE % b"x" + END, 400, "invalid_value", "purpose"),
        (PART % (b"n" * 5000, b"x") + PURPOSE + END, 400, "invalid_value", None),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END, 400, "invalid_value", None),
        (b"--b\r\nno colon\r\n\r\nx\r\n" + END, 400, "invalid_value", None),
        (b"--b\r\nX: " + b"y" * 50_000, 400, "invalid_value", None),
        (b"".join(PART % (b"f%d" % i, b"") for i in range(20)) + END, 413, "body_too_large", None),
        (FILE % (b"x" * 2001) + PURPOSE + END, 413, "body_too_large", "file"),
        (b"\r\n" * 100_000, 413, "body_too_large", None),
    ],
)
async def test_bad_forms_leave_nothing_behind(
    folder: Path, body: bytes, status: int, code: str, param: str | None
) -> None:
    async with served(folder, max_file_bytes=2000) as server:
        headers = {"content-type": "multipart/form-data; boundary=b"}
        response = await server.http().post("/v1/files", content=body, headers=headers)
        check_error(response, status, code, param)
        assert contents(folder) == []
        assert (await put(server.http())).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=b",
    ],
)
async def test_only_forms_are_taken(content_type: str | None) -> None:
    async with served() as server:
        headers = {} if content_type is None else {"content-type": content_type}
        response = await server.http().post("/v1/files", content=PURPOSE + END, headers=headers)
        check_error(response, 415, "unsupported_media_type", None)


async def test_the_body_is_cut_while_it_comes(folder: Path) -> None:
    """Without a length, nothing beyond the limit is read."""
    sent = 0

    async def drip() -> AsyncIterator[bytes]:
        nonlocal sent
        yield FILE.partition(b"%b")[0]
        while True:
            sent += 10_000
            yield b"x" * 10_000

    async with served(folder, max_file_bytes=100_000) as server:
        headers = {"content-type": "multipart/form-data; boundary=b"}
        response = await server.http().post("/v1/files", content=drip(), headers=headers)
        assert response.status_code == 413 and sent < 300_000
        assert contents(folder) == []


async def test_a_file_that_stops_coming(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(upload_module, "STALL_S", 0.05)

    async def stuck() -> AsyncIterator[bytes]:
        yield FILE.partition(b"%b")[0]
        await asyncio.sleep(30)

    async with served(folder) as server:
        headers = {"content-type": "multipart/form-data; boundary=b"}
        response = await server.http().post("/v1/files", content=stuck(), headers=headers)
        check_error(response, 408, "request_timeout", None)
        assert contents(folder) == []


async def test_the_number_of_uploads_at_a_time_is_bounded() -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield PURPOSE + FILE.partition(b"%b")[0]
        await go_on.wait()
        yield b"x\r\n" + END

    async with served() as server:
        headers = {"content-type": "multipart/form-data; boundary=b"}
        running = [
            asyncio.create_task(server.http().post("/v1/files", content=slow(), headers=headers))
            for _ in range(upload_module.MAX_UPLOADS)
        ]
        await asyncio.sleep(0.1)
        check_error(await put(server.http()), 503, "overloaded", None)
        go_on.set()
        assert [response.status_code for response in await asyncio.gather(*running)] == [200] * 4
        assert (await put(server.http())).status_code == 200


async def test_room_is_bounded_and_comes_back(folder: Path) -> None:
    async with served(folder, max_stored_bytes=1000) as server:
        http = server.http()
        first = await put(http, b"x" * 600)
        assert first.status_code == 200
        check_error(await put(http, b"x" * 600), 413, "storage_full", None)
        assert (await put(http, b"x" * 400)).status_code == 200
        check_error(await put(http), 413, "storage_full", None)
        assert len(contents(folder)) == 2
        await http.delete(f"/v1/files/{first.json()['id']}")
        assert (await put(http, b"x" * 600)).status_code == 200


async def test_files_belong_to_their_key() -> None:
    async with served(api_key=["alice", "bob"], max_stored_bytes=2000) as server:
        alice, bob = server.api("alice"), server.api("bob")
        file = await alice.files.create(file=("secret", b"x" * 900), purpose="batch")
        assert [found.id async for found in bob.files.list()] == []
        for call in (bob.files.retrieve, bob.files.content, bob.files.delete):
            with pytest.raises(openai.NotFoundError) as hidden:
                await call(file.id)
            with pytest.raises(openai.NotFoundError) as absent:
                await call("file-" + "0" * 32)
            assert str(hidden.value).replace(file.id, "") == str(absent.value).replace("file-" + "0" * 32, "")
        response = await server.http("bob").get(f"/v1/files?after={file.id}")
        check_error(response, 400, "invalid_value", "after")
        # Each has half of the room: one cannot take it all.
        with pytest.raises(openai.APIStatusError, match="1000 bytes together"):
            await alice.files.create(file=("more", b"x" * 200), purpose="batch")
        assert (await bob.files.create(file=("mine", b"x" * 900), purpose="batch")).bytes == 900
        assert (await alice.files.content(file.id)).read() == b"x" * 900


@pytest.mark.parametrize("file_id", ["", "%00", "..%2f..%2fetc", "x" * 3000, "file-%ff", "%F0%9F%98%80"])
async def test_odd_ids_are_not_found(file_id: str) -> None:
    async with served() as server:
        for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content"):
            assert (await server.http().get(path)).status_code in (404, 405)


async def test_files_expire(folder: Path, clock: Clock) -> None:
    async with served(folder) as server:
        api = server.api()
        file = await api.files.create(
            file=("a", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        assert file.expires_at == file.created_at + 3600
        clock.ahead_s = 3599
        await api.files.retrieve(file.id)
        clock.ahead_s = 3601
        with pytest.raises(openai.NotFoundError):
            await api.files.retrieve(file.id)
        assert [found.id async for found in api.files.list()] == []
        await api.files.create(file=("b", b"x"), purpose="user_data")
        assert file.id not in contents(folder)


@pytest.mark.parametrize(
    ("anchor", "seconds", "param"),
    [
        ("created_at", "3599", "seconds"),
        ("created_at", "2592001", "seconds"),
        ("created_at", "-1", "seconds"),
        ("created_at", "9" * 30, "seconds"),
        ("created_at", "", "seconds"),
        ("last_active_at", "3600", "anchor"),
    ],
)
async def test_bad_expiry(anchor: str, seconds: str, param: str) -> None:
    async with served() as server:
        extra = {"expires_after[anchor]": anchor, "expires_after[seconds]": seconds}
        check_error(await put(server.http(), **extra), 400, "invalid_value", f"expires_after.{param}")


async def test_files_survive_a_restart_and_leftovers_do_not(folder: Path) -> None:
    async with served(folder, api_key=["alice"]) as server:
        file = await server.api("alice").files.create(file=("a", b"hello"), purpose="user_data")
    leftovers = ["file-" + "0" * 32, "file-" + "1" * 32 + ".part"]
    for name in leftovers:
        (folder / "contents" / name).write_bytes(b"half")
    (folder / "contents" / "mine.txt").write_bytes(b"not Octavo's")
    async with served(folder, api_key=["alice", "bob"]) as server:
        assert (await server.api("alice").files.content(file.id)).read() == b"hello"
        assert contents(folder) == [file.id, "mine.txt"]
    assert b"alice" not in (folder / "octavo.sqlite3").read_bytes()
    assert (folder / "octavo.sqlite3").stat().st_mode & 0o077 == 0


async def test_without_a_folder_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with served() as server:
        assert list(tmp_path.glob("octavo-files-*")) == []  # Nothing is made before it is needed.
        await server.api().files.create(file=("a", b"x"), purpose="batch")
        (made,) = tmp_path.glob("octavo-files-*")
        assert made.stat().st_mode & 0o077 == 0
    assert not made.exists()


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow, in this whole process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_is_said_and_gets_over(folder: Path) -> None:
    async with served(folder) as server, server.http() as http:
        kept = (await put(http)).json()["id"]
        with full_disk():
            for data in (b"x", b"x" * 100_000):
                check_error(await put(http, data), 507, "storage_failed", None)
            check_error(await http.delete(f"/v1/files/{kept}"), 507, "storage_failed", None)
            assert (await http.get(f"/v1/files/{kept}")).status_code == 200
        assert (await put(http)).status_code == 200
        assert (await http.delete(f"/v1/files/{kept}")).status_code == 200
        assert len(contents(folder)) == 1


async def test_one_folder_has_one_server(folder: Path) -> None:
    config = ServerConfig(files_dir=str(folder))
    check_files_dir(config)
    async with served(folder):
        with pytest.raises(ConfigError, match="Another server uses"):
            check_files_dir(config)
    check_files_dir(config)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    other = tmp_path / "other"
    other.mkdir()
    (other / "octavo.sqlite3").write_bytes(b"this is no database" * 100)
    future = Disk(tmp_path / "future")
    future.open()
    future.close()
    with sqlite3.connect(tmp_path / "future" / "octavo.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 99")
    for name, message in (("file", "cannot be used"), ("other", "cannot be used"), ("future", "version")):
        with pytest.raises(ConfigError, match=message):
            check_files_dir(ServerConfig(files_dir=str(tmp_path / name)))
