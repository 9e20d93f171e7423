"""What tests of the Responses API read: events of a stream, a response without what differs each time."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
from server_fakes import FakeEngine

from octavo.server.app import create_app

PATH = "/v1/responses"
ID = re.compile(r"\b(resp|msg|fc|fco|rs)_[0-9a-f]{32}")
TIMES = {"created_at", "completed_at"}


CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "42"}


def say(role: str, text: str, kind: str = "input_text") -> dict[str, Any]:
    """A message item."""
    return {"role": role, "content": [{"type": kind, "text": text}]}


def make_client(engine: FakeEngine, key: str | None = None) -> httpx.AsyncClient:
    app = create_app(engine, engine.config.server, engine.config.observe)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers)


async def respond(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post(PATH, json={"input": "hello", **body})
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


async def stream(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    return events_of(await client.post(PATH, json={"input": "hello", "stream": True, **body}))


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    """Events whose names agree with their data. Nothing follows the last one."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *frames, rest = response.text.split("\n\n")
    assert rest == ""
    events = []
    for frame in frames:
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def kinds_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def comparable(value: Any) -> Any:
    """Without ids and times."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return ID.sub("", value) if isinstance(value, str) else value
