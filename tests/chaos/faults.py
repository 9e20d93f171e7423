"""What can be done to a server that works, and how long it takes to get over it."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import signal
import time
from collections.abc import Awaitable, Callable

import psutil

from tests.chaos.light_client import fetch, get, post
from tests.chaos.load import Load
from tests.chaos.server import LiveServer

GONE_S = 5.0
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
FORM = (
    b"--edge\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--edge\r\n"
    b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + b"{}\n" * 2000
    + b"\r\n--edge--\r\n"
)  # fmt: skip
UPLOAD = post("/v1/files", FORM, headers={"content-type": "multipart/form-data; boundary=edge"})


class Trouble(Exception):
    """A server did not do what it must after a fault."""


Fault = Callable[[LiveServer, Load, random.Random], Awaitable[float]]
"""Does it, waits until all is well, and returns the seconds that took."""


async def kill(server: LiveServer, load: Load, _: random.Random) -> float:
    """The core is killed while it works."""
    return await _strike(server, load, signal.SIGKILL)


async def stop(server: LiveServer, load: Load, _: random.Random) -> float:
    """The core is stopped: it is alive and says nothing."""
    return await _strike(server, load, signal.SIGSTOP)


async def kill_twice(server: LiveServer, load: Load, rng: random.Random) -> float:
    """The core is killed, and the next one while it starts."""
    core = _core_of(server)
    load.note_fault("kill")
    core.kill()
    second = await server.other_core(core)
    await asyncio.sleep(rng.uniform(0.0, 1.5))
    # One that is lost while it starts was no core yet.
    server.cores_lost += 1 + await server.is_ready()
    began = time.monotonic()
    second.kill()
    await _until_next_is_ready(server, second)
    return time.monotonic() - began


async def kill_server(server: LiveServer, load: Load, _: random.Random) -> float:
    """The server itself is killed, and started again as an init system does. Its core must not stay."""
    core = _core_of(server)
    began = load.note_fault("kill_server")
    server.process.kill()
    server.process.wait()
    while core.is_running() and core.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() - began > GONE_S:
            raise Trouble("the core outlives its server")
        await asyncio.sleep(0.02)
    await server.start()
    ready_s = time.monotonic() - began
    await load.hold()  # What this one holds is compared with what it holds now.
    await warm_up(server)
    load.go_on()
    return ready_s


async def warm_up(server: LiveServer) -> None:
    """Have it open once what stays open, and remember what it holds."""
    await fetch(server.port, UPLOAD)
    await _delete_files(server)
    await server.metric("vllm:")
    server.baseline = await server.holdings()


async def fill_disk(server: LiveServer, load: Load, _: random.Random) -> float:
    """Nothing more can be written, neither files nor the log; then there is room again.

    A limit on the size of files stands for a full disk: no more can be written to any, without root.
    """
    process = psutil.Process(server.process.pid)
    if (status := (await fetch(server.port, UPLOAD)).status) != 200:
        raise Trouble(f"an upload before the disk is full: {status}")
    load.note_fault("fill_disk")
    process.rlimit(psutil.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        refused = await fetch(server.port, UPLOAD)
        if refused.status != 507 or b'"storage_failed"' not in refused.body():
            raise Trouble(f"an upload to a full disk: {refused.status} {refused.body()[:200]!r}")
        await asyncio.sleep(0.5)
        if not await server.is_ready():
            raise Trouble("not ready because a disk is full")
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, UNLIMITED)
    began = time.monotonic()
    if (status := (await fetch(server.port, UPLOAD)).status) != 200:
        raise Trouble(f"an upload when there is room again: {status}")
    await _delete_files(server)
    return time.monotonic() - began


FAULTS: dict[str, Fault] = {
    "kill": kill,
    "stop": stop,
    "kill_twice": kill_twice,
    "kill_server": kill_server,
    "fill_disk": fill_disk,
}
NUM_KILLS = {"kill": 1, "kill_twice": 2}
"""SIGKILLs of a core in each."""


def draw_faults(num_kills: int, rng: random.Random) -> list[str]:
    """So many kills of the core, and among them the others."""
    twice = num_kills // 20
    faults = ["kill_twice"] * twice + ["kill"] * (num_kills - 2 * twice)
    faults += ["stop"] * (num_kills // 8) + ["fill_disk"] * (num_kills // 16)
    faults += ["kill_server"] * (num_kills // 20)
    rng.shuffle(faults)
    return faults


async def _strike(server: LiveServer, load: Load, number: signal.Signals) -> float:
    core = _core_of(server)
    began = load.note_fault(number.name)
    core.send_signal(number)
    server.cores_lost += 1
    await _until_next_is_ready(server, core)
    return time.monotonic() - began


def _core_of(server: LiveServer) -> psutil.Process:
    core = server.core()
    if core is None:
        raise Trouble("ready, and there is no core")
    return core


async def _until_next_is_ready(server: LiveServer, core: psutil.Process) -> None:
    await server.other_core(core)
    await server.until_ready()


async def _delete_files(server: LiveServer) -> None:
    """So that the next time there is room."""
    reply = await fetch(server.port, get("/v1/files"))
    for entry in json.loads(reply.body())["data"]:
        head = f"DELETE /v1/files/{entry['id']} HTTP/1.1\r\nhost: x\r\n\r\n"
        await fetch(server.port, head.encode())
