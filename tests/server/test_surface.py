"""Keys, request ids, health, metrics, the OpenAPI page: everything around the answers."""

from __future__ import annotations

import logging
import threading
from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine, fake_config
from server_replies import check_error

from octavo.base.errors import ConfigError, EngineError, ErrorCode
from octavo.config.server import ServerConfig
from octavo.server.app import ERROR_SHAPES, create_app
from octavo.server.lifecycle import Lifecycle
from octavo.server.openapi import ApiPage
from octavo.server.tenants.key_book import configured_keys

KEY = "correct horse"
OPEN = {"/health", "/livez", "/readyz", "/ping"}
ROUTES = {
    "/docs",
    "/openapi.json",
    "/v1/models",
    "/v1/models/{model:path}",
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/responses/{response_id}",
    "/v1/responses/{response_id}/cancel",
    "/v1/responses/{response_id}/input_items",
    "/v1/files",
    "/v1/files/{file_id}",
    "/v1/files/{file_id}/content",
    "/v1/batches",
    "/v1/batches/{batch_id}",
    "/v1/batches/{batch_id}/cancel",
    "/v1/embeddings",
    "/embed",
    "/pooling",
    "/classify",
    "/v1/classify",
    "/score",
    "/v1/score",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/v1/usage",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/ping",
    "/invocations",
    "/",
    "/api/chat",
    "/api/generate",
    "/api/tags",
    "/api/ps",
    "/api/version",
    "/api/show",
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/blobs/{digest}",
    "/api/embed",
    "/api/embeddings",
    "/generate",
    "/generate_stream",
    "/info",
    "/v1/completions/render",
    "/v1/chat/completions/render",
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
    "/load",
    "/livez",
    "/readyz",
    "/health",
    "/version",
    "/metrics",
}


def make_client(lifecycle: Lifecycle | None = None, **options: Any) -> httpx.AsyncClient:
    config = fake_config(**options)
    app = create_app(FakeEngine(config), config.server, config.observe, lifecycle)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize("path", sorted(ROUTES))
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_u03_every_route_asks_for_the_key(path: str, method: str) -> None:
    client = make_client(api_key=[KEY])
    for headers in ({}, {"authorization": "Bearer wrong"}):
        response = await client.request(method, path.replace("{model:path}", "fake"), headers=headers)
        if path in OPEN:
            assert response.status_code in (200, 405)
        else:
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
            if not speaks_otherwise(path):
                check_error(response, 401, "invalid_api_key", None)


def speaks_otherwise(path: str) -> bool:
    """Errors on this path have another protocol's shape."""
    return any(path == key or (key.endswith("/") and path.startswith(key)) for key in ERROR_SHAPES)


def test_the_list_of_routes_is_the_live_one() -> None:
    config = fake_config()
    app = create_app(FakeEngine(config), config.server, config.observe)
    assert {route.path for route in app.routes} == ROUTES  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Bearer wrong")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer")],
        [("authorization", f"bearer {KEY}")],
        [("authorization", f"Basic {KEY}")],
        [("authorization", KEY)],
        [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")],
        [("authorization", f"Bearer {KEY} ")],
        [("authorization", f"Bearer {KEY[:-1]}")],
        [("authorization", b"Bearer \xff\xfe")],
        [("x-api-key", "wrong")],
        [("x-api-key", "")],
        [("x-api-key", f"Bearer {KEY}")],
        [("x-api-key", KEY), ("x-api-key", KEY)],
        [("x-api-key", KEY), ("authorization", f"Bearer {KEY}"), ("authorization", "Bearer wrong")],
    ],
)
async def test_u01_wrong_keys_get_one_answer(headers: Any) -> None:
    client = make_client(api_key=[KEY])
    response = await client.get("/v1/models?api_key=" + KEY, headers=headers)
    reference = await client.get("/v1/models")
    check_error(response, 401, "invalid_api_key", None)
    assert response.content == reference.content and KEY not in response.text


@pytest.mark.parametrize("key", [KEY, "second", "schlüssel"])
async def test_any_of_several_keys_opens(key: str) -> None:
    client = make_client(api_key=[KEY, "second", "schlüssel"])
    response = await client.get("/v1/models", headers={"authorization": f"Bearer {key}".encode()})
    assert response.status_code == 200
    response = await client.get("/v1/models", headers={"x-api-key": key.encode()})
    assert response.status_code == 200


async def test_both_headers_may_come_and_one_right_key_is_enough() -> None:
    client = make_client(api_key=[KEY])
    for one, other in ((KEY, "wrong"), ("wrong", KEY), (KEY, KEY)):
        headers = {"authorization": f"Bearer {one}", "x-api-key": other}
        assert (await client.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/pause", "/v1/nothing", "//health", "/health/", "/HEALTH", "/health;x"])
async def test_unknown_paths_are_guarded_too(path: str) -> None:
    client = make_client(api_key=[KEY])
    assert (await client.get(f"http://test{path}")).status_code == 401


@pytest.mark.parametrize("host", ["evil/?", "evil#", "a@b", "x" * 1000])
async def test_h11_host_does_not_open_doors(host: str) -> None:
    client = make_client(api_key=[KEY])
    assert (await client.get("/v1/models", headers={"host": host})).status_code == 400


async def test_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_API_KEY", "from outside")
    assert configured_keys(ServerConfig()).find([b"from outside"]) is not None
    given = configured_keys(ServerConfig(api_key=["given"]))
    assert given.find([b"given"]) is not None and given.find([b"from outside"]) is None
    assert (await make_client().get("/v1/models")).status_code == 401


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        configured_keys(ServerConfig(api_key=["good", " "]))


async def test_request_ids_are_ours(client: httpx.AsyncClient) -> None:
    first = await client.get("/version", headers={"x-request-id": "theirs"})
    second = await client.get("/version", headers={"x-request-id": "theirs"})
    ids = {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert len(ids) == 2 and "theirs" not in ids


async def test_access_line_holds_no_content(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "octavo")
    await client.post(
        "/v1/completions?secret=1",
        json={"prompt": "secret"},
        headers={"x-request-id": "caller-7", "authorization": "Bearer secret"},
    )
    await client.get("/version", headers={"x-request-id": "x" * 1000})
    fields = [record.octavo_fields for record in caplog.records if record.name == "octavo.access"]  # type: ignore[attr-defined]
    assert fields[0]["handler"] == "/v1/completions" and fields[0]["caller_request_id"] == "caller-7"
    assert "caller_request_id" not in fields[-1]
    assert "secret" not in repr(fields)


async def test_models(client: httpx.AsyncClient) -> None:
    reply = (await client.get("/v1/models")).json()
    assert [card["id"] for card in reply["data"]] == ["fake", "alias"]
    assert reply["data"][0]["max_model_len"] == 512
    assert (await client.get("/v1/models/alias")).json()["id"] == "alias"


async def test_model_names_may_hold_slashes() -> None:
    client = make_client(served_model_name=["org/name"])
    assert (await client.get("/v1/models/org/name")).json()["id"] == "org/name"


async def test_tokenize_and_back(client: httpx.AsyncClient) -> None:
    reply = (await client.post("/tokenize", json={"prompt": "hi", "return_token_strs": True})).json()
    assert reply == {
        "count": 3,
        "max_model_len": 512,
        "tokens": [256, 104, 105],
        "token_strs": ["<256>", "h", "i"],
    }
    assert (await client.post("/detokenize", json={"tokens": [104, 105]})).json() == {"prompt": "hi"}
    plain = await client.post("/tokenize", json={"prompt": "hi", "add_special_tokens": False})
    assert plain.json()["tokens"] == [104, 105]
    chat = await client.post("/tokenize", json={"messages": [{"role": "user", "content": "x"}]})
    assert chat.json()["tokens"] == [*b"[user]x[assistant]"]
    assert (await client.post("/detokenize", json={"tokens": []})).json() == {"prompt": ""}


async def test_health_follows_the_engine(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    for path in sorted(OPEN):
        assert (await client.get(path)).status_code == 200
    engine.health = EngineError("The engine is stuck.")
    for path in ("/health", "/readyz"):
        response = await client.get(path)
        check_error(response, 503, "not_ready", None)
        assert response.headers["retry-after"] == "1"
    assert (await client.get("/livez")).status_code == 200


async def test_draining_refuses_new_requests() -> None:
    lifecycle = Lifecycle()
    client = make_client(lifecycle)
    lifecycle.begin_drain()
    for path in ("/readyz", "/v1/models"):
        response = await client.get(path)
        check_error(response, 503, "shutting_down", None)
        assert response.headers["retry-after"] == "1"
    for path in ("/livez", "/health", "/metrics"):
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_overload_is_503_for_streams_too(
    client: httpx.AsyncClient, engine: FakeEngine, stream: bool
) -> None:
    engine.refuse = EngineError("Too many requests wait.", code=ErrorCode.OVERLOADED)
    body = {"messages": [{"role": "user", "content": "x"}], "stream": stream}
    response = await client.post("/v1/chat/completions", json=body)
    check_error(response, 503, "overloaded", None)
    assert response.headers["retry-after"] == "1"
    page = (await client.get("/metrics")).text
    assert 'vllm:admission_rejections_total{engine="0",model_name="fake",reason="overloaded"} 1.0' in page


async def test_metrics_page(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post("/v1/completions", json={"prompt": "hi", "max_tokens": 5, "n": 2, "stream": True})
    await client.get("/nowhere")
    engine.listeners[0](engine.stats())
    page = (await client.get("/metrics")).text
    labels = 'engine="0",model_name="fake"'
    for line in (
        f"vllm:num_requests_running{{{labels}}} 0.0",
        f"vllm:kv_cache_usage_perc{{{labels}}} 0.25",
        f"vllm:prompt_tokens_total{{{labels}}} 7.0",
        f"vllm:generation_tokens_total{{{labels}}} 9.0",
        'vllm:request_success_total{engine="0",finished_reason="length",model_name="fake"} 2.0',
        f"vllm:request_generation_tokens_sum{{{labels}}} 10.0",
        f"vllm:request_params_n_sum{{{labels}}} 2.0",
        f"vllm:request_params_max_tokens_sum{{{labels}}} 5.0",
        f"vllm:inter_token_latency_seconds_count{{{labels}}} 8.0",
        f"vllm:time_to_first_token_seconds_count{{{labels}}} 1.0",
        f"vllm:e2e_request_latency_seconds_count{{{labels}}} 1.0",
        f"vllm:prompt_tokens_cached_total{{{labels}}} 1.0",
        f"vllm:iteration_tokens_total_count{{{labels}}} 1.0",
        'http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 1.0',
        'http_requests_total{handler="other",method="GET",status="4xx"} 1.0',
    ):
        assert line in page, line
    assert 'vllm:cache_config_info{block_size="16"' in page


async def test_metrics_prefix_and_switch() -> None:
    page = (await make_client(metrics_prefix="octavo:").get("/metrics")).text
    assert "octavo:num_requests_running" in page and "vllm:" not in page
    assert (await make_client(disable_metrics=True).get("/metrics")).status_code == 404
    assert (
        await make_client(disable_metrics=True).post("/tokenize", json={"prompt": "x"})
    ).status_code == 200


async def test_openapi_page_has_real_schemas(client: httpx.AsyncClient) -> None:
    page = (await client.get("/openapi.json")).json()
    schemas = page["components"]["schemas"]
    assert "temperature" in schemas["CompletionBody"]["properties"]
    assert "messages" in schemas["ChatBody"]["required"]
    assert "choices" in schemas["ChatReply"]["properties"]
    operation = page["paths"]["/v1/chat/completions"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/ChatBody")
    assert set(operation["responses"]) == {"200", "4XX", "5XX"}
    for target in references(page):
        assert target.removeprefix("#/components/schemas/") in schemas, target
    assert "x-octavo" not in str(page)
    assert (await client.get("/docs")).status_code == 200


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for item in value for found in references(item)]
    if not isinstance(value, dict):
        return []
    here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return here + [found for item in value.values() for found in references(item)]


async def test_the_openapi_page_is_made_once_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    makers: list[int] = []
    make = ApiPage._make

    def noted(page: ApiPage, app: Any) -> dict[str, Any]:
        makers.append(threading.get_ident())
        return make(page, app)

    monkeypatch.setattr(ApiPage, "_make", noted)
    client = make_client()
    first, second = [(await client.get("/openapi.json")).content for _ in range(2)]
    assert first == second and len(makers) == 1 and makers[0] != threading.get_ident()


async def test_docs_can_be_switched_off() -> None:
    client = make_client(enable_docs=False)
    assert (await client.get("/docs")).status_code == (await client.get("/openapi.json")).status_code == 404


async def test_cors_only_where_allowed() -> None:
    headers = {"origin": "http://a.example", "access-control-request-method": "POST"}
    allowed = await make_client(allowed_origins=["http://a.example"]).options("/v1/models", headers=headers)
    assert allowed.headers["access-control-allow-origin"] == "http://a.example"
    head = {**headers, "access-control-request-method": "HEAD"}
    asked = await make_client(allowed_origins=["http://a.example"]).options("/v1/models", headers=head)
    assert asked.status_code == 200, "with a key browsers ask even for HEAD"
    refused = await make_client().options("/v1/models", headers=headers)
    assert refused.status_code == 405 and "access-control-allow-origin" not in refused.headers


async def test_clients_in_a_browser_may_send_their_headers() -> None:
    """Those of OpenAI's and Anthropic's libraries for JavaScript."""
    sent = "authorization,content-type,x-api-key,anthropic-version,x-request-timeout,idempotency-key"
    about = ",".join(
        f"x-stainless-{name}" for name in ("lang", "os", "arch", "runtime", "retry-count", "timeout")
    )
    headers = {
        "origin": "http://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": f"{sent},{about}",
    }
    client = make_client(allowed_origins=["http://a.example"])
    response = await client.options("/v1/chat/completions", headers=headers)
    assert response.status_code == 200
    allowed = {name.strip() for name in response.headers["access-control-allow-headers"].split(",")}
    assert {*sent.split(","), *about.split(",")} <= allowed
    elsewhere = {**headers, "origin": "http://b.example"}
    refused = await client.options("/v1/chat/completions", headers=elsewhere)
    assert "access-control-allow-origin" not in refused.headers


async def test_a_bug_says_nothing_of_itself(
    client: httpx.AsyncClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.crash_at = 0
    response = await client.post("/v1/completions", json={"prompt": "x"})
    error = check_error(response, 500, "internal_error", None)
    assert "secret" not in error["message"]
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_prefix_of_a_proxy_is_not_part_of_the_path() -> None:
    config = fake_config(api_key=[KEY])
    app = create_app(FakeEngine(config), config.server, config.observe)
    transport = httpx.ASGITransport(app, root_path="/api")
    client = httpx.AsyncClient(transport=transport, base_url="http://test")
    assert (await client.get("/api/health")).status_code == 200
    assert (await client.get("/api/v1/models")).status_code == 401
    headers = {"authorization": f"Bearer {KEY}"}
    assert (await client.get("/api/v1/models", headers=headers)).status_code == 200
