"""Named keys at the door: scopes, limits, walls between caches, the ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine, fake_config

from octavo.base.clock import monotonic
from octavo.base.errors import EngineError, ErrorCode
from octavo.server.app import create_app
from octavo.server.paths import QUEUED_PATHS
from octavo.server.tenants.accounts import Accounts
from octavo.server.tenants.bucket import Bucket

CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4})
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT[1],
    "/v1/messages": CHAT[1] | {"model": "fake"},
    "/api/chat": CHAT[1] | {"model": "fake"},
    "/generate": {"inputs": "hi", "parameters": {"max_new_tokens": 4}},
}


class Door:
    """A server whose key file holds `entries`, and clients with its keys."""

    def __init__(self, folder: Path, entries: dict[str, str], **options: Any) -> None:
        file = folder / "keys.toml"
        file.write_text(
            "".join(
                f"[[keys]]\nname = '{name}'\nkey = 'sk-{name}'\n{rest}\n" for name, rest in entries.items()
            )
        )
        config = fake_config(api_key_file=str(file), separate_prefix_caches=True, **options)
        self.engine = FakeEngine(config)
        self.app = create_app(self.engine, config.server, config.observe)

    def client(self, name: str) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer sk-{name}"}
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)

    async def chat(self, name: str, **fields: Any) -> httpx.Response:
        path, body = CHAT
        return await self.client(name).post(path, json=body | fields)


@pytest.mark.parametrize(
    ("scopes", "path", "status"),
    [
        ("['inference']", "/load", 200),
        ("['inference']", "/metrics", 403),
        ("['inference']", "/v1/usage", 200),
        ("['admin']", "/load", 403),
        ("['admin']", "/v1/models/fake", 403),
        ("['admin']", "/metrics", 200),
        ("['admin']", "/v1/usage", 200),
        ("['inference', 'admin']", "/metrics", 200),
    ],
)
async def test_scopes(tmp_path: Path, scopes: str, path: str, status: int) -> None:
    door = Door(tmp_path, {"a": f"scopes = {scopes}"})
    response = await door.client("a").get(path)
    assert response.status_code == status
    assert status == 200 or response.json()["error"]["code"] == "forbidden"


async def test_an_unknown_key_stays_out(tmp_path: Path) -> None:
    door = Door(tmp_path, {"a": ""})
    assert (await door.chat("b")).status_code == 401
    assert (await door.chat("a")).status_code == 200


@pytest.mark.parametrize("path", BODIES)
async def test_429_in_every_protocol(tmp_path: Path, path: str) -> None:
    door = Door(tmp_path, {"a": "requests_per_minute = 2", "b": "requests_per_minute = 2"})
    client = door.client("a")
    answers = [await client.post(path, json=BODIES[path]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 29 <= int(answers[2].headers["retry-after"]) <= 30
    assert "2 requests per minute" in answers[2].text
    assert (await door.client("b").post(path, json=BODIES[path])).status_code == 200


async def test_a_stream_is_refused_with_its_status(tmp_path: Path) -> None:
    door = Door(tmp_path, {"a": "requests_per_minute = 1"})
    await door.chat("a", stream=True)
    response = await door.chat("a", stream=True)
    assert response.status_code == 429 and response.json()["error"]["type"] == "rate_limit_error"


async def test_tokens_per_minute_are_paid_afterwards(tmp_path: Path) -> None:
    door = Door(tmp_path, {"a": "tokens_per_minute = 100"})
    assert (await door.chat("a", max_tokens=200)).status_code == 200
    response = await door.chat("a")
    assert response.status_code == 429 and int(response.headers["retry-after"]) > 60


async def test_concurrency(tmp_path: Path) -> None:
    door = Door(tmp_path, {"a": "concurrency = 2"})
    door.engine.stall_at = 1
    running = [asyncio.create_task(door.chat("a")) for _ in range(2)]
    while door.engine.num_open < 2:
        await asyncio.sleep(0.001)
    response = await door.chat("a")
    assert response.status_code == 429 and response.headers["retry-after"] == "1"
    door.engine.stall_at = None
    await asyncio.gather(*running)
    assert (await door.chat("a")).status_code == 200


RESPONSES = "/v1/responses"
LATER = {"input": "hi", "background": True}


async def until_ended(client: httpx.AsyncClient, response_id: str) -> None:
    while (await client.get(f"{RESPONSES}/{response_id}")).json()["status"] in ("queued", "in_progress"):
        await asyncio.sleep(0.005)


async def test_what_runs_in_the_background_counts_as_running(tmp_path: Path) -> None:
    """A key with one request at a time had as many as the whole server takes."""
    door = Door(tmp_path, {"search": "concurrency = 1"})
    client = door.client("search")
    door.engine.stall_at = 1
    begun = (await client.post(RESPONSES, json=LATER)).json()
    refused = await client.post(RESPONSES, json=LATER)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert (await door.chat("search")).status_code == 429
    door.engine.stall_at = None
    await until_ended(client, begun["id"])
    assert (await door.chat("search")).status_code == 200
    door.engine.stall_at = 1
    again = (await client.post(RESPONSES, json=LATER)).json()
    cancelled = await client.post(f"{RESPONSES}/{again['id']}/cancel")
    assert cancelled.json()["status"] == "cancelled", "to end work asks for none"
    door.engine.stall_at = None
    assert (await door.chat("search")).status_code == 200
    assert (await client.get("/v1/usage")).json()["data"][0]["usage"]["requests"] == 4


async def test_nobody_fills_the_background_for_all(tmp_path: Path) -> None:
    door = Door(tmp_path, {"search": "", "nightly": "", "third": ""}, max_background_responses=4)
    door.engine.stall_at = 1
    many, few, third = (door.client(name) for name in ("nightly", "search", "third"))

    async def status(client: httpx.AsyncClient) -> int:
        return (await client.post(RESPONSES, json=LATER)).status_code

    assert [await status(many) for _ in range(5)] == [200] * 4 + [503]
    assert [await status(few) for _ in range(3)] == [200, 200, 503]
    assert [await status(third) for _ in range(2)] == [200, 503]
    assert await status(many) == 503
    door.engine.stall_at = None


async def test_the_most_urgent_priority(tmp_path: Path) -> None:
    door = Door(tmp_path, {"a": "max_priority = 5"}, scheduling_policy="priority")
    assert (await door.chat("a", priority=5)).status_code == 200
    response = await door.chat("a", priority=4)
    assert response.status_code == 403 and response.json()["error"]["param"] == "priority"
    assert (await door.chat("a")).status_code == 403


async def test_tenants_never_share_a_cache(tmp_path: Path) -> None:
    door = Door(tmp_path, {"a": "", "b": "weight = 3"})
    for name, salt in (("a", None), ("b", None), ("a", "x"), ("b", "x"), ("a", None)):
        await door.chat(name, cache_salt=salt)
    salts = [seen[2]["cache_salt"] for seen in door.engine.seen]
    assert None not in salts and len(set(salts)) == 4 and salts[0] == salts[4]
    assert [(terms.tenant, terms.weight) for terms in door.engine.terms][:2] == [("a", 1.0), ("b", 3.0)]


async def test_the_ledger(tmp_path: Path) -> None:
    door = Door(tmp_path, {"a": "requests_per_minute = 2", "b": "", "ops": "scopes = ['admin']"})
    statuses = [(await door.chat("a")).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    await door.chat("b", stream=True)
    own = (await door.client("a").get("/v1/usage")).json()["data"]
    prompt = len("[user]hi[assistant]")
    assert own == [
        {
            "name": "a",
            "usage": {
                "requests": 2,
                "refused": 1,
                "prompt_tokens": 2 * prompt,
                "cached_tokens": 2 * (prompt // 2),
                "output_tokens": 8,
                "engine_seconds": 1.0,
                "block_seconds": 3.0,
            },
        }
    ]
    everybody = (await door.client("ops").get("/v1/usage")).json()["data"]
    assert {entry["name"]: entry["usage"]["output_tokens"] for entry in everybody} == {
        "a": 8,
        "b": 4,
        "ops": 0,
    }
    page = (await door.client("ops").get("/metrics")).text
    assert 'vllm:tenant_generation_tokens_total{engine="0",model_name="fake",tenant="a"} 8.0' in page
    assert 'vllm:tenant_block_seconds_total{engine="0",model_name="fake",tenant="a"} 3.0' in page
    assert "sk-" not in page


async def test_a_broken_off_answer_is_on_the_ledger(tmp_path: Path) -> None:
    door = Door(tmp_path, {"a": ""})
    door.engine.stall_at = 3
    task = asyncio.create_task(door.chat("a", stream=True))
    while not door.engine.num_open:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    door.engine.stall_at = None
    usage = (await door.client("a").get("/v1/usage")).json()["data"][0]["usage"]
    assert usage["output_tokens"] == 3 and usage["prompt_tokens"] > 0


async def test_a_server_without_keys_keeps_one_account(client: httpx.AsyncClient) -> None:
    path, body = CHAT
    await client.post(path, json=body)
    [entry] = (await client.get("/v1/usage")).json()["data"]
    assert entry["name"] == "anonymous" and entry["usage"]["requests"] == 1
    assert "tenant_" not in (await client.get("/metrics")).text


def test_bucket_refills_and_follows_a_changed_limit() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(60)
    assert bucket.wait_s(60, 1, 0.0) == 1.0 and bucket.wait_s(60, 1, 1.0) == 0.0
    assert bucket.wait_s(120, 1, 1.0) == 0.0  # Sixty more at once.
    bucket.take(100)
    assert bucket.wait_s(120, 1, 1.0) == pytest.approx(20.0)
    assert bucket.wait_s(6, 1, 1.0) == pytest.approx(400.0)


def test_accounts_without_limits_hold_no_buckets() -> None:
    from octavo.server.tenants.tenant import NOBODY

    accounts = Accounts(lambda: 0.0)
    accounts.enter(NOBODY)
    account = accounts._account(NOBODY.name)
    assert account.requests is None and account.tokens is None and account.num_running == 1
    accounts.leave(NOBODY)
    assert account.num_running == 0


@pytest.mark.parametrize(
    ("header", "field", "seconds"),
    [("2.5", None, 2.5), (None, 7, 7.0), ("9", 3.0, 3.0), ("3", 9, 3.0), (None, None, 20.0)],
)
async def test_the_time_a_caller_gives(
    tmp_path: Path, header: str | None, field: float | None, seconds: float
) -> None:
    door = Door(tmp_path, {"a": ""}, request_timeout=20.0)
    before = monotonic()
    headers = {} if header is None else {"x-request-timeout": header}
    path, body = CHAT
    response = await door.client("a").post(path, json=body | {"request_timeout": field}, headers=headers)
    assert response.status_code == 200
    deadline = door.engine.terms[0].deadline
    assert deadline is not None and before <= deadline - seconds <= monotonic()


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "nan", "inf", "21", "1, 2"])
async def test_times_that_cannot_be(tmp_path: Path, value: str) -> None:
    door = Door(tmp_path, {"a": ""}, request_timeout=20.0)
    path, body = CHAT
    response = await door.client("a").post(path, json=body, headers={"x-request-timeout": value})
    assert response.status_code == 400 and response.json()["error"]["param"] == "x-request-timeout"
    assert not door.engine.seen


async def test_a_timeout_field_beyond_the_servers(tmp_path: Path) -> None:
    door = Door(tmp_path, {"a": ""}, request_timeout=20.0)
    response = await door.chat("a", request_timeout=21)
    assert response.status_code == 400 and "at most 20" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", BODIES)
async def test_a_passed_deadline_in_every_protocol(tmp_path: Path, path: str) -> None:
    door = Door(tmp_path, {"a": ""})
    door.engine.refuse = EngineError("Too late.", code=ErrorCode.DEADLINE_EXCEEDED)
    assert (await door.client("a").post(path, json=BODIES[path])).status_code == 504


@pytest.mark.parametrize(("path", "status"), list(zip(BODIES, (503, 529, 503, 429), strict=True)))
async def test_an_overloaded_engine_says_when_to_come_again(tmp_path: Path, path: str, status: int) -> None:
    door = Door(tmp_path, {"a": ""})
    door.engine.refuse = EngineError("Full.", code=ErrorCode.OVERLOADED, retry_after_s=6.2)
    for stream in (False, True):
        response = await door.client("a").post(path, json=BODIES[path] | {"stream": stream})
        assert response.status_code == status and response.headers["retry-after"] == "7"


@pytest.mark.parametrize(("path", "status"), list(zip(BODIES, (503, 529, 503, 429), strict=True)))
async def test_a_full_engine_refuses_before_a_body_is_read(tmp_path: Path, path: str, status: int) -> None:
    door = Door(tmp_path, {"a": "requests_per_minute = 1"})
    door.engine.is_full = True
    for _ in range(3):
        response = await door.client("a").post(path, content=b"{ no JSON, and nobody looks")
        assert response.status_code == status and response.headers["retry-after"] == "7"
    assert (await door.client("b").post(path, json=BODIES[path])).status_code == 401
    # The one request of this minute is not used up, and what does not wait for the engine is answered.
    assert (await door.client("a").post("/tokenize", json={"prompt": "x"})).status_code == 200


async def test_every_path_that_waits_for_the_engine_is_one() -> None:
    listed = (Path(__file__).parent / "routes_and_keys.txt").read_text().split("\n")
    posts = {line.split()[2] for line in listed if line.startswith("clients POST")}
    assert posts >= QUEUED_PATHS
    not_queued = {"/tokenize", "/detokenize", "/v1/files", "/v1/batches", "/v1/messages/count_tokens"}
    others = {path for path in posts - QUEUED_PATHS if "{" not in path and not path.endswith("/render")}
    assert others - not_queued == {f"/api/{word}" for word in ("copy", "create", "pull", "push", "show")}
