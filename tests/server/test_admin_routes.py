"""The administrative listener: what its routes do, who may call them, and that clients' listener has none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine, fake_config
from server_replies import check_error

from octavo.base.errors import ConfigError, EngineError
from octavo.config.decisions.known import Reason
from octavo.engine.rest import Rest
from octavo.messages.wire import Order, OrderDone, Sleep, WakeUp
from octavo.server.admin.abort import known_as
from octavo.server.admin.app import admin_keys, create_admin_app
from octavo.server.admin.profile import Profiles
from octavo.server.app import create_app
from octavo.server.lifecycle import Lifecycle

KEY, ADMIN_KEY = "client-key", "admin-key"

ROUTES = (
    ("POST", "/sleep"),
    ("POST", "/wake_up"),
    ("GET", "/is_sleeping"),
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("GET", "/is_paused"),
    ("POST", "/abort_requests"),
    ("POST", "/reset_prefix_cache"),
    ("POST", "/log_level"),
    ("POST", "/start_profile"),
    ("POST", "/stop_profile"),
    ("GET", "/server_info"),
    ("GET", "/accounting"),
)


@dataclass
class AdminEngine(FakeEngine):
    """A fake that can be administrated, and notes down what it was told."""

    reasons: list[Reason] = field(default_factory=list)
    orders: list[Any] = field(default_factory=list)
    open_ids: list[str] = field(default_factory=list)
    is_idle: asyncio.Event = field(default_factory=asyncio.Event)
    broken: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.is_idle.set()
        self.rest = Rest(self._order, self.is_idle.wait, self._abort_all)

    def check_welcome(self) -> None:
        self.rest.check_awake()

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        self.rest.check_awake()
        return super().generate(*args, **kwargs)

    async def _order(self, order: Order) -> OrderDone:
        if self.broken:
            raise EngineError(self.broken)
        self.orders.append(order)
        return OrderDone()

    def _abort_all(self) -> None:
        self.orders.append("abort all")
        self.is_idle.set()

    def open_request_ids(self) -> list[str]:
        return self.open_ids

    async def abort(self, request_id: str) -> None:
        self.orders.append(f"abort {request_id}")

    async def reset_prefix_cache(self) -> bool:
        self.orders.append("reset")
        return True

    async def set_log_level(self, level: str) -> None:
        self.orders.append(f"level {level}")

    async def start_profile(self) -> None:
        self.orders.append("start")

    async def stop_profile(self, folder: str) -> str:
        self.orders.append(f"stop {folder}")
        return "trace.json.gz"


def admin_client(engine: FakeEngine, url: str = "http://127.0.0.1:9000") -> httpx.AsyncClient:
    app = create_admin_app(engine, engine.config, Lifecycle())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url)


def public_client(engine: FakeEngine) -> httpx.AsyncClient:
    app = create_app(engine, engine.config.server, engine.config.observe)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
def operated() -> AdminEngine:
    return AdminEngine(fake_config(profile_dir="traces"))


@pytest.fixture
async def admin(operated: AdminEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with admin_client(operated) as client:
        yield client


async def test_clients_see_none_of_it(operated: AdminEngine) -> None:
    client = public_client(operated)
    for method, path in ROUTES:
        check_error(await client.request(method, path, json={}), 404, "not_found", None)
    page = str((await client.get("/openapi.json")).json()["paths"])
    assert not any(f"'{path}'" in page for _, path in ROUTES)


async def test_the_page_lists_exactly_these_routes(admin: httpx.AsyncClient) -> None:
    paths = (await admin.get("/openapi.json")).json()["paths"]
    assert sorted((m.upper(), path) for path, item in paths.items() for m in item) == sorted(ROUTES)


async def test_sleep_and_wake(admin: httpx.AsyncClient, operated: AdminEngine) -> None:
    assert (await admin.get("/is_sleeping")).json() == {"is_sleeping": False, "level": 0}
    assert (await admin.post("/sleep")).json() == {"is_sleeping": True, "level": 1}
    assert (await admin.post("/sleep?level=2")).json()["level"] == 2
    assert (await admin.post("/sleep?level=1")).json()["level"] == 2
    client = public_client(operated)
    response = await client.post("/v1/completions", json={"prompt": "x"})
    error = check_error(response, 503, "asleep", None)
    assert "POST /wake_up" in error["message"] and response.headers["retry-after"]
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/health")).status_code == 200
    assert (await admin.post("/wake_up")).json() == {"is_sleeping": False, "level": 0}
    assert (await admin.post("/wake_up")).status_code == 200
    assert operated.orders == [Sleep(level=1), Sleep(level=2), WakeUp()]
    assert (await client.post("/v1/completions", json={"prompt": "x"})).status_code == 200


@pytest.mark.parametrize("query", ["level=3", "level=0", "level=x", "level=", "level=1.0", "mode=now"])
async def test_bad_wishes(admin: httpx.AsyncClient, operated: AdminEngine, query: str) -> None:
    check_error(await admin.post(f"/sleep?{query}"), 400, "invalid_value", query.partition("=")[0])
    assert not operated.orders and not operated.rest.sleep_level


async def test_a_failed_sleep_says_why_and_changes_nothing(
    admin: httpx.AsyncClient, operated: AdminEngine
) -> None:
    operated.broken = "The device is gone."
    assert "device is gone" in check_error(await admin.post("/sleep"), 500, "engine_failed", None)["message"]
    operated.rest.check_awake()
    operated.broken = None
    await admin.post("/sleep")
    operated.broken = "No memory."
    check_error(await admin.post("/wake_up"), 500, "engine_failed", None)
    assert (await admin.get("/is_sleeping")).json()["is_sleeping"]


async def test_sleep_waits_for_running_requests_unless_told_otherwise(
    admin: httpx.AsyncClient, operated: AdminEngine
) -> None:
    operated.is_idle.clear()
    patient = asyncio.create_task(admin.post("/sleep"))
    await asyncio.sleep(0.02)
    assert not patient.done() and not operated.orders
    with pytest.raises(EngineError, match="sleeps"):
        operated.rest.check_awake()
    impatient = await admin.post("/sleep?mode=abort")
    assert (await patient).status_code == impatient.status_code == 200
    assert operated.orders[0] == "abort all" and operated.orders.count(Sleep(level=1)) == 1


async def test_pause_and_resume(admin: httpx.AsyncClient, operated: AdminEngine) -> None:
    assert (await admin.post("/pause")).json() == {"is_paused": True}
    client = public_client(operated)
    body = {"messages": [{"role": "user", "content": "x"}]}
    response = await client.post("/v1/chat/completions", json=body)
    check_error(response, 503, "paused", None)
    assert (await client.post("/tokenize", json={"prompt": "x"})).status_code == 200
    assert (await admin.get("/is_paused")).json() == {"is_paused": True}
    assert (await admin.post("/resume")).json() == {"is_paused": False}
    assert (await client.post("/v1/completions", json={"prompt": "x"})).status_code == 200


async def test_abort_by_the_ids_a_client_got(admin: httpx.AsyncClient, operated: AdminEngine) -> None:
    operated.open_ids = ["chatcmpl-aa-0", "cmpl-bb-0", "cmpl-bb-1", "resp_cc-0"]
    wanted = ["chatcmpl-aa", "bb", "resp_cc", "nobody", "bb", "a", "chatcmpl", "0"]
    reply = (await admin.post("/abort_requests", json={"request_ids": wanted})).json()
    assert reply == {"aborted": ["chatcmpl-aa", "bb", "resp_cc"], "unknown": ["nobody", "a", "chatcmpl", "0"]}
    assert operated.orders == [
        "abort chatcmpl-aa-0",
        "abort cmpl-bb-0",
        "abort cmpl-bb-1",
        "abort resp_cc-0",
    ]
    for bad in ({}, {"request_ids": []}, {"request_ids": "x"}, {"request_ids": ["x"] * 5000}):
        check_error(await admin.post("/abort_requests", json=bad), 400, "invalid_value", "request_ids")
    assert "" not in known_as("x")


async def test_log_level_and_cache(admin: httpx.AsyncClient, operated: AdminEngine) -> None:
    assert (await admin.post("/log_level", json={"level": "DEBUG"})).json() == {"status": "ok"}
    check_error(await admin.post("/log_level", json={"level": "LOUD"}), 400, "invalid_value", "level")
    assert (await admin.post("/reset_prefix_cache")).json() == {"status": "ok"}
    assert operated.orders == ["level DEBUG", "reset"]


async def test_profiles(admin: httpx.AsyncClient, operated: AdminEngine) -> None:
    assert (await admin.post("/start_profile")).status_code == 200
    assert (await admin.post("/stop_profile")).json() == {"file": "trace.json.gz"}
    assert operated.orders == ["start", "stop traces"]
    nowhere = admin_client(AdminEngine(fake_config()))
    error = check_error(await nowhere.post("/start_profile"), 400, "unsupported_value", None)
    assert "--profile-dir" in error["message"]


async def test_a_forgotten_profile_ends_by_itself(
    operated: AdminEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.server.admin.profile.LONGEST_S", 0.01)
    await Profiles(operated, "traces").start()
    await asyncio.sleep(0.05)
    assert operated.orders == ["start", "stop traces"]


async def test_server_info_says_why_and_no_secret() -> None:
    config = fake_config(api_key=[KEY], admin_api_key=[ADMIN_KEY], max_num_seqs=7)
    engine = AdminEngine(config, reasons=[Reason("dtype", "auto", "it is exact")])
    client = admin_client(engine)
    response = await client.get("/server_info", headers={"authorization": f"Bearer {ADMIN_KEY}"})
    info = response.json()
    options = {row["option"]: row for row in info["options"]}
    assert options["max_num_seqs"]["value"] == 7
    assert options["dtype"]["reason"] == "it is exact"
    assert options["api_key"]["value"] == options["admin_api_key"]["value"] == "1 set"
    assert KEY not in response.text and ADMIN_KEY not in response.text
    assert info["models"] == ["fake", "alias"] and info["kv_blocks"] == 64


async def test_its_key_is_not_the_clients_key() -> None:
    engine = AdminEngine(fake_config(api_key=[KEY], admin_api_key=[ADMIN_KEY]))
    client, public = admin_client(engine, "http://ops.example"), public_client(engine)
    for method, path in ROUTES:
        for headers in ({}, {"authorization": f"Bearer {KEY}"}):
            check_error(await client.request(method, path, headers=headers), 401, "invalid_api_key", None)
    ours = {"authorization": f"Bearer {ADMIN_KEY}"}
    assert (await client.get("/is_sleeping", headers=ours)).status_code == 200
    assert (await public.get("/v1/models", headers=ours)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost.evil.example:9000"},
        {"host": "192.168.0.7"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9000"},
    ],
)
async def test_web_pages_get_nothing(
    admin: httpx.AsyncClient, operated: AdminEngine, headers: dict[str, str]
) -> None:
    check_error(await admin.post("/sleep", headers=headers), 403, "forbidden", None)
    assert not operated.orders


async def test_a_host_that_is_none_gets_nothing(admin: httpx.AsyncClient, operated: AdminEngine) -> None:
    reply = await admin.post("/sleep", headers={"host": "127.0.0.1@evil.example"})
    check_error(reply, 400, "http_invalid", None)
    assert not operated.orders


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9000", "localhost:9000", "LOCALHOST", "[::1]:9000"])
async def test_programs_on_this_machine_get_through(admin: httpx.AsyncClient, host: str) -> None:
    assert (await admin.get("/is_sleeping", headers={"host": host})).status_code == 200


def test_other_machines_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCTAVO_ADMIN_API_KEY", raising=False)
    for host in ("0.0.0.0", "::", "10.1.2.3", "ops.example", ""):
        with pytest.raises(ConfigError, match="admin-api-key"):
            admin_keys(fake_config(admin_host=host).admin)
    for host in ("127.0.0.1", "127.3.2.1", "::1", "localhost"):
        assert admin_keys(fake_config(admin_host=host).admin) == []
    monkeypatch.setenv("OCTAVO_ADMIN_API_KEY", ADMIN_KEY)
    assert admin_keys(fake_config(admin_host="0.0.0.0").admin) == [ADMIN_KEY]
    with pytest.raises(ConfigError, match="empty"):
        admin_keys(fake_config(admin_api_key=[" "]).admin)


def test_log_level_reaches_our_loggers() -> None:
    from octavo.observe.log import set_log_level

    before = logging.getLogger("octavo").level
    try:
        set_log_level("debug")
        assert logging.getLogger("octavo").level == logging.DEBUG
        assert logging.getLogger("uvicorn").level == logging.WARNING
        with pytest.raises(ConfigError):
            set_log_level("loud")
    finally:
        logging.getLogger("octavo").setLevel(before)


async def test_a_profile_folder_is_only_ever_the_operators(operated: AdminEngine, tmp_path: Path) -> None:
    """No request names a path."""
    client = admin_client(operated)
    await client.post("/start_profile", json={"folder": str(tmp_path)})
    await client.post("/stop_profile", json={"folder": str(tmp_path)})
    assert operated.orders == ["start", "stop traces"]
