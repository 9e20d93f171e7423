"""Bodies of Ollama's routes."""

from __future__ import annotations

from tests.fuzz.doors import door_target

CHAT = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}

TARGET = door_target({
    "/api/chat": [
        {"model": "fake", "messages": CHAT, "options": {"num_predict": 3, "seed": 1, "temperature": 0}},
        {"model": "fake", "messages": CHAT, "stream": False, "options": {"num_predict": 2}, "tools": [TOOL]},
        {"model": "fake", "messages": [*CHAT, {"role": "assistant", "content": "", "tool_calls": [{"function":
         {"name": "now", "arguments": {}}}]}, {"role": "tool", "content": "noon", "tool_name": "now"}],
         "think": True},
        {"model": "fake", "messages": CHAT, "format": "json", "keep_alive": "5m",
        "options": {"num_predict": 2}},
    ],
    "/api/generate": [
        {"model": "fake", "prompt": "hi", "options": {"num_predict": 3, "stop": ["z"], "num_ctx": 64}},
        {"model": "fake", "prompt": "hi", "stream": False, "raw": True, "options": {"num_predict": 2}},
        {"model": "fake", "prompt": "hi", "system": "a", "template": "{{ .Prompt }}", "context": [1],
        "suffix": "b"},
        {"model": "fake", "prompt": "", "keep_alive": 0},
    ],
    "/api/embed": [{"model": "fake", "input": ["a", "b"], "truncate": True}],
    "/api/embeddings": [{"model": "fake", "prompt": "a"}],
    "/api/show": [{"model": "fake", "verbose": True}],
    "/api/pull": [{"model": "fake", "stream": False}],
    "/api/copy": [{"source": "fake", "destination": "other"}],
    "/api/create": [{"model": "new", "from": "fake"}],
    "/api/push": [{"model": "fake"}],
})  # fmt: skip
