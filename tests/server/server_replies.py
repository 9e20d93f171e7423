"""What tests read out of replies: errors in the one shape, events of a stream."""

from __future__ import annotations

import json
from typing import Any

import httpx


def check_error(response: httpx.Response, status: int, code: str, param: str | None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert len(response.headers["x-request-id"]) == 32
    assert list(response.json()) == ["error"]
    error: dict[str, Any] = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["code"], error["param"]) == (code, param), error
    assert error["message"].endswith(".") and len(error["message"]) < 500
    for secret in ("Traceback", "object at 0x", "octavo.", "/work", "pydantic", "msgspec", "Error("):
        assert secret not in error["message"]
    return error


def events(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    frames = response.text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
