"""Bodies of OpenAI's routes, and of those beside them that take the same."""

from __future__ import annotations

from tests.fuzz.doors import door_target

CHAT = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}

TARGET = door_target({
    "/v1/chat/completions": [
        {"model": "fake", "messages": CHAT, "max_tokens": 4},
        {"messages": CHAT, "stream": True, "stream_options": {"include_usage": True}, "n": 2,
        "max_tokens": 3},
        {"messages": CHAT, "logprobs": True, "top_logprobs": 2, "max_tokens": 2, "stop": ["z"], "seed": 1},
        {"messages": CHAT, "tools": [TOOL], "tool_choice": "auto", "max_tokens": 2,
        "parallel_tool_calls": False},
        {"messages": CHAT, "response_format": {"type": "json_object"}, "max_tokens": 2},
        {"messages": CHAT, "temperature": 0.5, "top_p": 0.9, "min_p": 0.1, "top_k": 5,
        "logit_bias": {"65": 2}},
        {"messages": CHAT, "chat_template": "{{ messages[0].content }}", "chat_template_kwargs": {"a": 1}},
        {
            "messages": [
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "noon"},
            ],
            "max_completion_tokens": 2, "reasoning_effort": "low", "priority": 1, "cache_salt": "a",
        },
    ],
    "/v1/completions": [
        {"model": "fake", "prompt": "hi", "max_tokens": 3, "echo": True, "logprobs": 1},
        {"prompt": ["a", "b"], "stream": True, "max_tokens": 2, "suffix": None},
        {"prompt": [1, 2, 3], "max_tokens": 1, "best_of": 1, "min_tokens": 1, "ignore_eos": True},
        {"prompt": "a", "use_beam_search": True, "n": 2, "max_tokens": 2},
        {"prompt": "a", "structured_outputs": {"choice": ["a", "b"]}, "bad_words": ["x"],
        "prompt_logprobs": 1},
    ],
    "/v1/responses": [
        {"model": "fake", "input": "hi", "max_output_tokens": 3},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}], "stream": True,
        "store": False},
        {"input": "a", "tools": [{"type": "function", "name": "now", "parameters": {}}], "instructions": "b"},
        {"input": "a", "previous_response_id": "resp_1", "reasoning": {"effort": "low"},
        "truncation": "auto"},
        {"input": "a", "text": {"format": {"type": "json_object"}}, "include": [], "metadata": {"a": "b"}},
        {"input": [{"type": "function_call_output", "call_id": "1", "output": "2"}], "background": False},
    ],
    "/v1/chat/completions/render": [{"messages": CHAT}],
    "/v1/completions/render": [{"prompt": "a"}],
    "/tokenize": [{"prompt": "hi", "add_special_tokens": True}, {"messages": CHAT}],
    "/detokenize": [{"tokens": [65, 66]}],
    "/v1/embeddings": [{"input": "a"}],
    "/invocations": [{"prompt": "a", "max_tokens": 1}, {"messages": CHAT, "max_tokens": 1}],
    "/v1/batches": [{"input_file_id": "file-1", "endpoint": "/v1/chat/completions",
    "completion_window": "24h"}],
})  # fmt: skip
