"""How batches end: cancelled, too late, on a full disk, with a server that stops and goes on later."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import openai
import pytest
from batch_server import Clock, chat_line, ended, entries, lines, served, start_batch, until_batch

from octavo.server.openai.batches import run as run_module
from octavo.server.openai.batches.entries import Entry
from octavo.server.openai.batches.journal import Journal, finished_lines
from octavo.server.openai.batches.store import BatchStore


async def test_cancel_a_running_batch(folder: Path) -> None:
    async with served(folder, batch_concurrency=2) as server:
        api, engine = server.api(), server.engine
        engine.delay_s = 0.01
        batch = await start_batch(api, lines(50))
        await until_batch(api, batch.id, lambda b: bool(b.request_counts and b.request_counts.completed >= 4))
        engine.stall_at = 2
        cancelled = await api.batches.cancel(batch.id)
        assert cancelled.status in ("cancelling", "cancelled") and cancelled.cancelling_at
        batch = await ended(api, batch)
        assert batch.status == "cancelled" and batch.cancelled_at
        assert engine.num_open == 0
        counts = batch.request_counts
        assert counts is not None and 4 <= counts.completed < 50
        assert len(await entries(api, batch.output_file_id)) == counts.completed
        assert (await api.batches.cancel(batch.id)).status == "cancelled"
        engine.stall_at = None
        assert (await ended(api, await start_batch(api, lines(2)))).status == "completed"


async def test_cancel_a_waiting_batch_and_an_ended_one() -> None:
    async with served(engine={"stall_at": 1}, batch_concurrency=1) as server:
        api = server.api()
        first = await start_batch(api, lines(2))
        second = await start_batch(api, lines(2))
        await until_batch(api, second.id, lambda b: b.status == "in_progress")
        assert (await api.batches.cancel(second.id)).status == "cancelled"
        server.engine.stall_at = None
        assert (await ended(api, first)).status == "completed"
        started = server.engine.num_started
        with pytest.raises(openai.BadRequestError):
            await api.batches.cancel(first.id)
        with pytest.raises(openai.NotFoundError):
            await api.batches.cancel("batch_0")
        assert server.engine.num_started == started


async def test_restart_in_the_middle(folder: Path) -> None:
    async with served(folder, api_key=["alice"], batch_concurrency=2) as server:
        api = server.api("alice")
        server.engine.delay_s = 0.005
        first = await start_batch(api, [*lines(30), chat_line("bad", body={"temperature": -1})])
        second = await start_batch(api, lines(3))
        await until_batch(api, first.id, lambda b: bool(b.request_counts and b.request_counts.completed >= 8))
    async with served(folder, api_key=["alice"], batch_concurrency=2) as server:
        api = server.api("alice")
        batch = await ended(api, first)
        counts = batch.request_counts
        assert counts is not None and (counts.total, counts.completed, counts.failed) == (31, 30, 1)
        assert len(await entries(api, batch.output_file_id)) == 30
        assert list(await entries(api, batch.error_file_id)) == ["bad"]
        assert (await ended(api, second)).status == "completed"
        # Two lines may have run twice: those that were open when the first server ended.
        assert server.engine.num_started <= 30 - 8 + 3
        assert len(list((folder / "contents").iterdir())) == 2 + 3


async def test_an_entry_that_was_cut_short_is_made_anew(folder: Path) -> None:
    async with served(folder, engine={"stall_at": 3}, batch_concurrency=1) as server:
        batch = await start_batch(
            server.api(),
            [*lines(1), *lines(4, max_tokens=5)[1:]],
        )
        await until_batch(server.api(), batch.id, lambda b: b.status == "in_progress")
    journal = _journal(folder, "output_file_id")
    journal.write_bytes(
        b'{"id":"batch_req_000001","custom_id":"line-0","response":null}\n{"id":"batch_req_0000'
    )
    async with served(folder) as server:
        batch = await ended(server.api(), batch)
        assert set(await entries(server.api(), batch.output_file_id)) == {f"line-{i}" for i in range(4)}
        assert server.engine.num_started == 3


def _journal(folder: Path, column: str) -> Path:
    with sqlite3.connect(folder / "octavo.sqlite3") as connection:
        (file_id,) = connection.execute(f"SELECT {column} FROM batches").fetchone()
    return folder / "contents" / str(file_id)


async def test_an_end_between_the_last_line_and_the_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any, **__: Any) -> None:
        raise RuntimeError("the process is gone")

    async with served(folder) as server:
        with monkeypatch.context() as patch:
            patch.setattr(BatchStore, "conclude", dies)
            batch = await start_batch(server.api(), lines(3))
            batch = await until_batch(server.api(), batch.id, lambda b: b.status == "finalizing")
            assert batch.output_file_id is None
            with pytest.raises(openai.BadRequestError):
                await server.api().batches.cancel(batch.id)
            await server.lifecycle.close_background()
    async with served(folder) as server:
        batch = await ended(server.api(), batch)
        assert batch.status == "completed" and server.engine.num_started == 0
        assert len(await entries(server.api(), batch.output_file_id)) == 3


async def test_draining_stops_lines_at_once_and_they_run_later(folder: Path) -> None:
    async with served(folder, engine={"stall_at": 2}) as server:
        batch = await start_batch(server.api(), lines(6))
        while server.engine.num_open < 4:
            await asyncio.sleep(0.01)
        server.lifecycle.begin_drain()
        await asyncio.wait_for(server.lifecycle.idle(), 5)
        assert server.engine.num_open == 0
    async with served(folder) as server:
        batch = await ended(server.api(), batch)
        assert batch.status == "completed" and batch.error_file_id is None


async def test_a_batch_whose_key_is_gone_waits(folder: Path) -> None:
    async with served(folder, api_key=["alice"], engine={"stall_at": 1}) as server:
        batch = await start_batch(server.api("alice"), lines(2))
        await until_batch(server.api("alice"), batch.id, lambda b: b.status == "in_progress")
    async with served(folder, api_key=["bob"]) as server:
        await asyncio.sleep(0.05)
        assert server.engine.num_started == 0
        with pytest.raises(openai.NotFoundError):
            await server.api("bob").batches.retrieve(batch.id)
    async with served(folder) as server:
        await asyncio.sleep(0.05)
        assert server.engine.num_started == 0
    async with served(folder, api_key=["bob", "alice"]) as server:
        assert (await ended(server.api("alice"), batch)).status == "completed"
    for path in folder.rglob("*"):
        assert not path.is_file() or b"alice" not in path.read_bytes()


async def test_the_window_ends(folder: Path, clock: Clock) -> None:
    async with served(folder, batch_concurrency=1) as server:
        api = server.api()
        server.engine.delay_s = 0.005
        batch = await start_batch(api, lines(20))
        await until_batch(api, batch.id, lambda b: bool(b.request_counts and b.request_counts.completed >= 3))
    clock.ahead_s = 24 * 3600
    async with served(folder) as server:
        api = server.api()
        batch = await ended(api, batch)
        assert batch.status == "expired" and batch.expired_at and server.engine.num_open == 0
        good, late = await entries(api, batch.output_file_id), await entries(api, batch.error_file_id)
        assert len(good) >= 3 and not good.keys() & late.keys() and len(good) + len(late) == 20
        assert {entry["error"]["code"] for entry in late.values()} == {"batch_expired"}
        counts = batch.request_counts
        assert counts is not None and (counts.completed, counts.failed) == (len(good), len(late))


async def test_outputs_may_expire(folder: Path, clock: Clock) -> None:
    async with served(folder) as server:
        api = server.api()
        batch = await start_batch(
            api, lines(1), output_expires_after={"anchor": "created_at", "seconds": 3600}
        )
        batch = await ended(api, batch)
        output = await api.files.retrieve(batch.output_file_id or "")
        assert output.expires_at == output.created_at + 3600
        clock.ahead_s = 3700
        with pytest.raises(openai.NotFoundError):
            await api.files.content(batch.output_file_id or "")


async def test_answers_that_do_not_fit_end_the_batch(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(run_module, "ROOM_CHECK_S", 0.0)
    async with served(folder, max_stored_bytes=20_000) as server:
        api = server.api()
        batch = await ended(api, await start_batch(api, lines(60)))
        assert batch.status == "failed" and batch.errors is not None
        assert [error.code for error in batch.errors.data or []] == ["storage_full"]
        assert 1 <= len(await entries(api, batch.output_file_id)) < 60
        assert sum(path.stat().st_size for path in (folder / "contents").iterdir()) < 30_000


async def test_a_disk_that_fails_ends_the_batch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Journal, entry: Entry) -> None:
        raise OSError(28, "No space left on device")

    async with served() as server:
        api = server.api()
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", broken)
            batch = await ended(api, await start_batch(api, lines(5)))
        assert batch.status == "failed" and batch.errors is not None
        assert [error.code for error in batch.errors.data or []] == ["internal_error"]
        assert server.engine.num_open == 0
        assert (await ended(api, await start_batch(api, lines(5)))).status == "completed"


def test_a_journal_has_one_writer_and_whole_entries(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b'{"id":"a","custom_id":null}\n' + b"x" * 200_000)
    journal = Journal(path)
    with pytest.raises(BlockingIOError):
        Journal(path)
    journal.append(Entry(id="b", custom_id="c"))
    journal.close()
    assert [entry.key for entry in finished_lines(path)] == ["a", "c"]
    path.write_bytes(b"no end of line")
    Journal(path).close()
    assert path.read_bytes() == b""
