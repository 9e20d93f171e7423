"""Rows 2.9: what logs, metrics and errors say, and how much of it there can be."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.attacks.arena import CONTEXT, Arena
from tests.attacks.raw_requests import raw_reply
from tests.attacks.row import Row
from tests.attacks.send import (
    CHAT,
    COMPLETIONS,
    JSON,
    MESSAGES,
    PLAIN,
    PLAIN_CHAT,
    UNSPEAKABLE,
    USER,
    read_error,
)

MARK = "zebra-violet-harbour"
"""Stands in everything that nobody but the caller may see."""
GOLDEN_TEXTS = Path(__file__).with_name("error_texts.txt")

TOOL = {"type": "function", "function": {"name": "f", "description": MARK, "parameters": {"type": "object"}}}
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{MARK}"}}
SECRETS: tuple[tuple[str, Any], ...] = (
    (COMPLETIONS, {**PLAIN, "prompt": MARK}),
    (COMPLETIONS, {**PLAIN, "prompt": MARK * 1000}),
    (COMPLETIONS, {**PLAIN, "prompt": MARK, "temperature": MARK}),
    (COMPLETIONS, {**PLAIN, "prompt": {MARK: MARK}}),
    (COMPLETIONS, {**PLAIN, "stop": MARK, "user": MARK, "cache_salt": MARK}),
    (COMPLETIONS, {**PLAIN, "structured_outputs": {"regex": f"{MARK}("}}),
    (CHAT, {"messages": [{"role": "user", "content": MARK}], "max_tokens": 4}),
    (CHAT, {"messages": [{"role": MARK, "content": MARK}]}),
    (CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}),
    (CHAT, {**PLAIN_CHAT, "tools": [TOOL], "tool_choice": "required"}),
    (CHAT, {**PLAIN_CHAT, "chat_template": "{{ '" + MARK + "' }}"}),
    (CHAT, {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"arguments": MARK}}]}]}),
    (MESSAGES, {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": MARK}]}),
    ("/v1/responses", {"input": MARK, "max_output_tokens": 16, "instructions": MARK}),
    ("/api/generate", {"model": "tiny", "prompt": MARK, "options": {"num_predict": 4}}),
    ("/generate", {"inputs": MARK, "parameters": {"max_new_tokens": 4, "stop": [MARK]}}),
    ("/tokenize", {"prompt": MARK}),
    (f"/v1/{MARK}", {}),
    (f"/v1/models?key={MARK}", {}),
)


def nothing_leaks(arena: Arena) -> None:
    """Requests of every kind, good and bad, at the most talkative level: no word of them is in log or
    metrics."""
    before = arena.log.stat().st_size
    arena.admin.post("/log_level", json={"level": "DEBUG"})
    try:
        with arena.client() as client:
            for path, body in SECRETS:
                whole = json.dumps(body).encode()
                for content in (whole, whole[:-1], whole + b"\xff"):
                    client.post(path, content=content, headers={**JSON, "x-secret": MARK, "cookie": MARK})
            streamed = client.post(COMPLETIONS, json={**PLAIN, "prompt": MARK, "stream": True})
            assert streamed.status_code == 200
        raw_reply(arena, [b"GET /" + MARK.encode() * 5000], half_close=True)
        raw_reply(arena, [MARK.encode() + b" nonsense\r\n\r\n"], half_close=True)
        time.sleep(0.2)
        log = arena.log.read_bytes()[before:].decode(errors="replace")
        metrics = arena.public.get("/metrics").text
    finally:
        arena.admin.post("/log_level", json={"level": "INFO"})
    for text in (log, metrics):
        assert MARK not in text, text[max(0, text.find(MARK) - 200) :][:400]
    assert arena.setting.key not in log + metrics


def bounded_labels(arena: Arena) -> None:
    """Names, users and paths that are invented do not become labels."""
    with httpx.Client(base_url=arena.url, headers=arena.auth, timeout=60) as client:
        _invent(client, "first")
        _series(client)  # That page counts itself, too.
        before = _series(client)
        for number in range(arena.many(9_000, 150) // 3):
            _invent(client, str(number))
        after = _series(client)
    assert after <= before, f"new series: {sorted(after - before)[:5]}"


def _invent(client: httpx.Client, word: str) -> None:
    client.post(COMPLETIONS, json={"model": f"model-{word}", "prompt": "x"})
    client.get(f"/invented/{word}")
    client.post(COMPLETIONS, json={"prompt": 5, "user": f"user-{word}"})


def _series(client: httpx.Client) -> set[str]:
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")}


def quiet_log(arena: Arena) -> None:
    """Refused requests without end: a bounded log, which says how much it has left out."""
    count = arena.many(10_000, 1_500)
    before, began = arena.log.stat().st_size, time.monotonic()
    with httpx.Client(base_url=arena.url, timeout=60) as client:
        for _ in range(count):
            client.get("/v1/models")
        seconds = time.monotonic() - began
        time.sleep(1.1)
        client.get("/v1/models")
    time.sleep(0.2)
    text = arena.log.read_bytes()[before:].decode()
    most = 105 * (seconds + 3)
    assert text.count("status=401") <= most, f"{text.count('status=401')} lines in {seconds:.1f} s"
    if count > 2 * most:
        assert "like it were suppressed" in text


LATE = {"ignore_eos": True, "request_timeout": 1e-6}


def error_texts(arena: Arena) -> dict[str, tuple[int, str]]:
    """By code: status and text of every error that a client can bring about without breaking anything."""
    found: dict[str, tuple[int, str]] = {}

    def note(reply: httpx.Response) -> None:
        message, code, _ = read_error(reply)
        found[str(code)] = (reply.status_code, message)

    posts: tuple[tuple[str, bytes, dict[str, str]], ...] = (
        (COMPLETIONS, b"", JSON),
        (COMPLETIONS, b"{", JSON),
        (COMPLETIONS, b'{"prompt": "\xff"}', JSON),
        (COMPLETIONS, b'{"metadata": ' + b"[" * 100 + b"]" * 100 + b"}", JSON),
        (COMPLETIONS, b'{"prompt": "x", "n": 0}', JSON),
        (COMPLETIONS, b'{"prompt": "x", "suffix": "y"}', JSON),
        (COMPLETIONS, json.dumps({"prompt": [1] * CONTEXT, "max_tokens": 1}).encode(), JSON),
        (COMPLETIONS, b'{"prompt": "x", "model": "other"}', JSON),
        (COMPLETIONS, b"{}", {"content-type": "text/plain"}),
        (COMPLETIONS, b" " * (16 * 2**20 + 1), JSON),
        (COMPLETIONS, json.dumps({**PLAIN, "max_tokens": 500, **LATE}).encode(), JSON),
        ("/nothing", b"{}", JSON),
        ("/v1/models", b"{}", JSON),
    )
    with arena.client() as client:
        for path, content, headers in posts:
            note(client.post(path, content=content, headers=headers))
        note(client.get("/v1/models", headers={"authorization": ""}))
    note(arena.admin.get("/is_paused", headers={"origin": "http://evil"}))
    arena.admin.post("/pause")
    note(arena.public.post(COMPLETIONS, json=PLAIN))
    arena.admin.post("/resume")
    arena.admin.post("/sleep?level=1")
    note(arena.public.post(COMPLETIONS, json=PLAIN))
    arena.admin.post("/wake_up")
    long = b"a" * 70_000
    for data in (b"X\r\n\r\n", b"GET /" + long, b"GET / HTTP/1.1\r\nX: " + long, b"GET / HTTP/1.1\r\n"):
        answer = raw_reply(arena, [data])
        lines, _, body = answer.partition(b"\r\n\r\n")
        error = json.loads(body)["error"]
        found[error["code"]] = (int(lines[9:12]), error["message"])
    return found


def listed(found: dict[str, tuple[int, str]]) -> str:
    return "".join(f"{code}\t{status}\t{message}\n" for code, (status, message) in sorted(found.items()))


def golden_texts(arena: Arena) -> None:
    """They are as they were, and say nothing of our insides."""
    found = error_texts(arena)
    assert not [text for _, text in found.values() if UNSPEAKABLE.search(text)], found
    assert not [
        text for _, text in found.values() if re.search(r"\b0x[0-9a-f]{6,}|\w+(Error|Exception)\b", text)
    ]
    golden = GOLDEN_TEXTS.read_text()
    assert listed(found) == golden, (
        f"texts have changed; look at them, then: python {__file__}\n{listed(found)}"
    )


def row(id: str, name: str, attack: Any, expected: str, **more: Any) -> Row:
    return Row(id=id, name=name, expected=expected, attack=attack, **{"budget_ms": 20_000, **more})


ROWS: tuple[Row, ...] = (
    row("L02", "secrets in every request, at level DEBUG", nothing_leaks, "in no log line and no metric"),
    row("L03", "invented names, users and paths", bounded_labels, "no new label", budget_ms=300_000),
    row(
        "L04", "refusals without end", quiet_log, "a bounded log that says what is missing", budget_ms=60_000
    ),
    row("L05", "the text of each error", golden_texts, f"as in {GOLDEN_TEXTS.name}", budget_ms=20_000),
)


def main() -> None:
    """Write the golden texts anew."""
    import tempfile

    from tests.attacks.arena import Setting, arena

    with tempfile.TemporaryDirectory() as folder, arena(Path(folder), Setting()) as built:
        GOLDEN_TEXTS.write_text(listed(error_texts(built)))


if __name__ == "__main__":
    sys.exit(main())
