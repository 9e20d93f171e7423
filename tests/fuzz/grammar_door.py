"""Forms of answers as requests bring them: through the helper processes, then followed as a worker does.

What the helpers let in may not hurt the worker, which compiles it again beside everybody's streams.
"""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from octavo.base.errors import RequestError
from octavo.grammar.desk import GrammarDesk
from octavo.grammar.matchers import Matchers
from octavo.grammar.vocabulary import Words, vocabulary_of
from octavo.messages.structured import StructuredOutputsParams
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import load_tokenizer
from tests.fuzz.target import Mutate, Run, Target
from tests.grammar.follow import Follower
from tests.tiny import VOCAB_SIZE, save_tokenizer

MAX_TOKENS = 60
MEMORY_BYTES = 4 << 30
"""Grammars that are kept for other rows may be large, some 25 MB each."""


def grammar_target(field: str, seeds: Iterable[Any], mutate: Mutate, *, is_json: bool) -> Target:
    """A target whose inputs are values of one field of structured_outputs."""

    def opened(folder: Path) -> Run:
        save_tokenizer(folder)
        tokenizer = load_tokenizer(TokenizerSource(folder=folder))
        words = Words(tokenizer=tokenizer, eos_token_ids=tokenizer.eos_token_ids)
        loop = asyncio.new_event_loop()
        desk = GrammarDesk(lambda: vocabulary_of(words, VOCAB_SIZE))
        follower = Follower(tokenizer, Matchers(lambda: words, VOCAB_SIZE))

        def run(data: bytes) -> None:
            try:
                value = json.loads(data) if is_json else data.decode()
            except (ValueError, RecursionError):
                return
            with suppress(RequestError):
                wish = StructuredOutputsParams(**{field: value})
                canonical = loop.run_until_complete(desk.check(wish)).canonical
                assert canonical is not None
                follower.answer(canonical, seed=1, max_tokens=MAX_TOKENS)

        with suppress(RequestError):
            loop.run_until_complete(desk.check(StructuredOutputsParams(regex="a")))  # Starts the helpers.
        weakref.finalize(run, lambda: loop.run_until_complete(desk.close()))
        return run

    def encoded() -> Iterable[bytes]:
        return [json.dumps(seed).encode() if is_json else seed.encode() for seed in seeds]

    return Target(
        open=opened, seeds=encoded, mutate=mutate, max_bytes=4096, input_s=15, memory_bytes=MEMORY_BYTES
    )
