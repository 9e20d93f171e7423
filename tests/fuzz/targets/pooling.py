"""Bodies of routes for embeddings, scores and labels, in front of a tiny real engine that embeds."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.doors import Door
from tests.fuzz.mutate import json_mutator
from tests.fuzz.target import Run, Target

CALLS = {
    "/v1/embeddings": [
        {"input": "a", "model": "tiny"},
        {"input": ["a", "b c"], "encoding_format": "base64", "dimensions": 8, "truncate_prompt_tokens": 3},
        {"input": [[1, 2], [3]], "user": "u", "normalize": False},
    ],
    "/pooling": [{"input": "a", "task": "embed"}],
    "/score": [{"text_1": "a", "text_2": ["b", "c"]}],
    "/v1/rerank": [{"query": "a", "documents": ["b", "c"], "top_n": 1, "return_documents": True}],
    "/classify": [{"input": "a"}],
    "/embed": [{"inputs": ["a", "b"], "truncate": True, "normalize": True, "dimensions": 8}],
    "/api/embed": [{"model": "tiny", "input": ["a"], "truncate": False, "dimensions": 4}],
    "/tokenize": [{"prompt": "a"}],
    "/v1/chat/completions": [{"messages": [{"role": "user", "content": "a"}]}],
}
WORDS = ("input", "inputs", "text_1", "text_2", "query", "documents", "top_n", "dimensions",
         "encoding_format", "base64",
         "truncate_prompt_tokens", "normalize", "task", "embed", "priority", "prompt_name", "messages",
         "float",
         "add_special_tokens", "truncation_side", "activation", "softmax", "model", "tiny",
         "text")  # fmt: skip


def opened(folder: Path) -> Run:
    from octavo.config.root import EngineConfig
    from octavo.engine.async_llm import AsyncLLM
    from octavo.server.app import create_app
    from tests.conformance.pooled import save_modules, save_pooled

    model = save_pooled(folder / "embedder", "bert", max_position_embeddings=64)
    save_modules(model, "mean_tokens", max_seq_length=40, do_lower_case=True, prompts={"query": "find: "})
    config = EngineConfig.from_options({"model": str(model), "served_model_name": ["tiny"]})
    loop = asyncio.new_event_loop()
    engine = loop.run_until_complete(AsyncLLM.start(config, in_process=True))
    door = Door(create_app(engine, config.server, config.observe), list(CALLS), lambda: 0, loop)
    weakref.finalize(door, lambda: loop.run_until_complete(engine.shutdown()))
    return door


def seeds() -> Iterator[bytes]:
    for index, bodies in enumerate(CALLS.values()):
        for body in bodies:
            yield bytes([index]) + json.dumps(body).encode()


TARGET = Target(
    open=opened, seeds=seeds, mutate=json_mutator(WORDS, head=1), max_bytes=4096, memory_bytes=2 << 30
)
