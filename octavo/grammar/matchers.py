"""Matchers: compiled grammars in the process that samples, and what each row has said of its own.

Compiling and filling masks let go of the interpreter's lock; both may run in other threads while a step
is computed. A row's grammar is used by one thread at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING

from octavo.base.errors import EngineError, OctavoError
from octavo.grammar.cache import ByteCache
from octavo.grammar.limits import parser_limits
from octavo.grammar.vocabulary import Words, ll_tokenizer, vocabulary_of
from octavo.messages.structured import StructuredOutputsParams

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

CACHE_BYTES = 128 * 2**20
COMPILED_BYTES = 32 * 1024
"""A small compiled grammar takes about this, a larger one in proportion to its text."""
BYTES_PER_CHAR = 40
STACK_BYTES = 16 * 2**20


class Matchers:
    """Compiles each grammar once. Loads the tokenizer when the first one comes."""

    def __init__(self, words: Callable[[], Words], width: int) -> None:
        """width: of the logits."""
        self._words = words
        self._width = width
        self._tokenizer: LLTokenizer | None = None
        self._compiled: ByteCache[bytes, Future[LLMatcher]] = ByteCache(CACHE_BYTES)
        self._threads: ThreadPoolExecutor | None = None

    def open(self, form: StructuredOutputsParams, output: Sequence[int]) -> RowGrammar:
        """The grammar of a row that has said `output` so far. Does not wait."""
        canonical = form.canonical
        assert canonical is not None, "the engine's front has compiled it"
        key = sha256(canonical.encode("utf-8", "surrogatepass")).digest()
        compiled = self._compiled.get(key)
        if compiled is None:
            self._threads = self._threads or _one_thread()
            compiled = self._threads.submit(self._compile, canonical)
            self._compiled.put(key, compiled, COMPILED_BYTES + BYTES_PER_CHAR * len(canonical))
        return RowGrammar(compiled, form.begin_after, output)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _compile(self, canonical: str) -> LLMatcher:
        from llguidance import LLMatcher

        if self._tokenizer is None:
            words = self._words()
            self._tokenizer = ll_tokenizer(vocabulary_of(words, self._width), words.tokenizer.encode_plain)
        matcher = LLMatcher(self._tokenizer, canonical, log_level=0, limits=parser_limits())
        if matcher.is_error():
            raise EngineError(f"The grammar could not be compiled: {matcher.get_error()[:300]}")
        return matcher


def _one_thread() -> ThreadPoolExecutor:
    """With a deep stack: regular expressions recurse."""
    threading.stack_size(STACK_BYTES)
    try:
        threads = ThreadPoolExecutor(1, thread_name_prefix="octavo-grammar")
        threads.submit(lambda: None).result()
        return threads
    finally:
        threading.stack_size(0)


class RowGrammar:
    """Where one row stands in its grammar."""

    __slots__ = ("_compiled", "_marker", "_matcher", "_tail", "_to_replay", "failure")

    def __init__(
        self, compiled: Future[LLMatcher], begin_after: Sequence[int] | None, output: Sequence[int]
    ) -> None:
        self._compiled = compiled
        self._matcher: LLMatcher | None = None
        self._marker = list(begin_after or ())
        """Tokens that are still waited for before the grammar begins; empty once they came."""
        self._tail: list[int] = []
        self._to_replay = list(output)
        self.failure: str | None = None

    def take(self, token: int) -> None:
        """The row has said this token."""
        if self._matcher is None:
            self._to_replay.append(token)
        else:
            self._take(self._matcher, token)

    def ready(self) -> LLMatcher | None:
        """The matcher, caught up with the row; None where the row may say anything. May wait to compile."""
        if self._matcher is None and self.failure is None:
            try:
                self._matcher = self._compiled.result().deep_copy()
            except Exception as error:  # Of this row alone, whatever it is.
                said = error.message if isinstance(error, OctavoError) else type(error).__name__
                self.failure = f"The grammar cannot be followed: {said}"
                return None
            for token in self._to_replay:
                self._take(self._matcher, token)
            self._to_replay.clear()
        if self.failure is not None or self._marker:
            return None
        return self._matcher

    def jump(self) -> list[int]:
        """Tokens that can only come next. The grammar has taken them; the row has to say them."""
        matcher = self._matcher
        if matcher is None or self._marker or self.failure is not None or matcher.is_stopped():
            return []
        forced = matcher.compute_ff_tokens()
        taken = matcher.try_consume_tokens(forced) if forced else 0
        return forced[:taken]

    @property
    def waits(self) -> bool:
        """The grammar has not begun: anything but the end may come."""
        return bool(self._marker) and self.failure is None

    def _take(self, matcher: LLMatcher, token: int) -> None:
        if self._marker:
            self._tail = [*self._tail, token][-len(self._marker) :]
            if self._tail == self._marker:
                self._marker.clear()
        elif self.failure is None and not matcher.is_stopped() and not matcher.consume_token(token):
            self.check()
            self.failure = self.failure or _BROKEN

    def check(self) -> None:
        """Note what went wrong while a mask was filled or a token was taken."""
        matcher = self._matcher
        if self.failure is None and matcher is not None and matcher.is_error():
            said = (matcher.get_error().splitlines() or [""])[0]
            self.failure = f"The grammar became too complex to follow: {said[:300]}"


_BROKEN = "The answer left its grammar; no more tokens can be chosen."
