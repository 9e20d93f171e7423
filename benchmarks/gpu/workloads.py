"""Workloads W1 to W6: which prompts, how many tokens. No engine is known here.

Prompts are token ids; every engine must give exactly `output_len` tokens, greedily. `rep` changes the
ids but not the lengths: repetitions do the same work, and no prefix cache can answer from the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WORKLOADS = {
    "W1": "offline throughput: 1000 requests of lognormal lengths, all at once",
    "W2": "single stream: 1 request, input 128, output 256",
    "W3": "prefill: 16 requests, input 8192, output 1",
    "W4": "shared prefix: 256 requests, 2048 shared + 64 own input, output 64, prefix cache on",
    "W5": "decode batch: 256 requests, input 256, output 256",
    "W6": "HTTP server: the first 512 requests of W1, 64 in flight, streamed",
}

WARM_UP_REP = 999
SHARED_PREFIX = 2048
"""Tokens that all prompts of W4 begin with."""

_SPECIAL_BELOW, _SPECIAL_ABOVE = 1000, 2000  # ids near either end of a vocabulary are left alone


class Request(NamedTuple):
    prompt_token_ids: list[int]
    output_len: int


class Lengths(NamedTuple):
    input: int
    output: int


def lengths(name: str) -> list[Lengths]:
    """Input and output length of every request."""
    if name in ("W1", "W6"):
        return _mixed_lengths()[: 1000 if name == "W1" else 512]
    count, size = {
        "W2": (1, Lengths(128, 256)),
        "W3": (16, Lengths(8192, 1)),
        "W4": (256, Lengths(SHARED_PREFIX + 64, 64)),
        "W5": (256, Lengths(256, 256)),
    }[name]
    return [size] * count


def requests(name: str, vocab_size: int, rep: int) -> list[Request]:
    """The requests of repetition `rep`. The draws are part of the definition: others make the same ids."""
    generator = np.random.default_rng([int(name[1:]), rep])
    shared = SHARED_PREFIX if name == "W4" else 0
    prefix = _token_ids(generator, shared, vocab_size) if shared else []
    return [
        Request(prefix + _token_ids(generator, size.input - shared, vocab_size), size.output)
        for size in lengths(name)
    ]


def same_length_requests(count: int, input_len: int, output_len: int, vocab_size: int) -> list[Request]:
    """`count` equal requests beside the workloads, for profiles."""
    generator = np.random.default_rng(7)
    return [Request(_token_ids(generator, input_len, vocab_size), output_len) for _ in range(count)]


def counts(batch: Sequence[Request]) -> dict[str, int]:
    return {
        "requests": len(batch),
        "input_tokens": sum(len(request.prompt_token_ids) for request in batch),
        "output_tokens": sum(request.output_len for request in batch),
    }


def _mixed_lengths(count: int = 1000) -> list[Lengths]:
    generator = np.random.default_rng(0)
    inputs = np.clip(generator.lognormal(5.0, 0.9, count), 16, 1024).astype(int)
    outputs = np.clip(generator.lognormal(5.0, 0.7, count), 16, 768).astype(int)
    return [Lengths(int(i), int(o)) for i, o in zip(inputs, outputs, strict=True)]


def _token_ids(generator: np.random.Generator, count: int, vocab_size: int) -> list[int]:
    ids: list[int] = generator.integers(_SPECIAL_BELOW, vocab_size - _SPECIAL_ABOVE, size=count).tolist()
    return ids
