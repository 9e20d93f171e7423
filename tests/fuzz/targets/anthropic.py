"""Bodies of Anthropic's routes."""

from __future__ import annotations

from tests.fuzz.doors import door_target

CHAT = [{"role": "user", "content": "hi"}]
TOOL = {"name": "now", "description": "the time", "input_schema": {"type": "object", "properties": {}}}

TARGET = door_target({
    "/v1/messages": [
        {"model": "fake", "messages": CHAT, "max_tokens": 4},
        {"model": "fake", "messages": CHAT, "max_tokens": 4, "stream": True, "system": "be brief"},
        {"model": "fake", "messages": CHAT, "max_tokens": 4, "system": [{"type": "text", "text": "a",
        "cache_control":
         {"type": "ephemeral", "ttl": "5m"}}], "stop_sequences": ["z"], "temperature": 0.5, "top_k": 3,
         "top_p": 0.9},
        {"model": "fake", "messages": CHAT, "max_tokens": 4, "tools": [TOOL],
        "tool_choice": {"type": "auto"}},
        {"model": "fake", "max_tokens": 2, "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "b", "signature": "c"},
                {"type": "tool_use", "id": "1", "name": "now", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "noon"}]},
        ], "metadata": {"user_id": "u"}},
    ],
    "/v1/messages/count_tokens": [{"model": "fake", "messages": CHAT, "tools": [TOOL]}],
})  # fmt: skip
