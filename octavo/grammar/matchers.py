"""Matchers: compiled grammars in the process that samples, and what each row has said of its own.

Rows with the same grammar share what its lexer finds out while they follow it: states, each made when it is
first met. That makes masks quick, and grows: a hostile grammar of 60 letters takes 25 MB, and a harmless one
may reach the limit of its states over a thousand answers. So few grammars are kept when no row has them, and
a row that meets the limit begins again with a grammar of its own.

Compiling and filling masks let go of the interpreter's lock; both may run in other threads while a step
is computed. All of this is used by one thread at a time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from octavo.base.errors import EngineError, OctavoError
from octavo.base.memory import trim_heap
from octavo.grammar.limits import parser_limits
from octavo.grammar.vocabulary import Words, ll_tokenizer, vocabulary_of
from octavo.messages.structured import StructuredOutputsParams

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

KEPT = 32
"""Grammars that may stay for rows to come. Their texts say nothing of what following them took."""
STACK_BYTES = 16 * 2**20


@dataclass(kw_only=True)
class Compiled:
    """One grammar, and how many rows have begun to follow it."""

    matcher: Future[LLMatcher]
    """Stands at the beginning; rows copy it."""
    num_rows: int = 0


class Matchers:
    """Compiles each grammar once. Loads the tokenizer when the first one comes."""

    def __init__(self, words: Callable[[], Words], width: int) -> None:
        """width: of the logits."""
        self._words = words
        self._width = width
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[bytes, Compiled] = OrderedDict()
        """Last used last."""
        self._num_forgotten = 0
        self._threads: ThreadPoolExecutor | None = None

    def open(self, form: StructuredOutputsParams, output: Sequence[int]) -> RowGrammar:
        """The grammar of a row that has said `output` so far. Does not wait."""
        canonical = form.canonical
        assert canonical is not None, "the engine's front has compiled it"
        key = sha256(canonical.encode("utf-8", "surrogatepass")).digest()
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = self._compile(canonical)
            if len(self._compiled) > KEPT:
                self._forget_oldest()
        self._compiled.move_to_end(key)
        compiled.num_rows += 1
        return RowGrammar(compiled, form.begin_after, output, lambda: self._renewed(key, compiled, canonical))

    def _forget_oldest(self) -> None:
        """Now and then, what was freed goes back to the system: the C library would keep it."""
        self._compiled.popitem(last=False)
        self._num_forgotten += 1
        if self._num_forgotten % KEPT == 0 and self._threads is not None:
            self._threads.submit(trim_heap)

    def _renewed(self, key: bytes, used_up: Compiled, canonical: str) -> Compiled:
        """The same grammar, not shared with anybody; rows to come get a new one, too."""
        if self._compiled.get(key) is used_up:
            del self._compiled[key]
        return self._compile(canonical)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _compile(self, canonical: str) -> Compiled:
        self._threads = self._threads or _one_thread()
        return Compiled(matcher=self._threads.submit(self._compile_here, canonical))

    def _compile_here(self, canonical: str) -> LLMatcher:
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

    __slots__ = (
        "_begin_after",
        "_compiled",
        "_marker",
        "_matcher",
        "_output",
        "_renew",
        "_tail",
        "failure",
        "is_too_large",
    )

    def __init__(
        self,
        compiled: Compiled,
        begin_after: Sequence[int] | None,
        output: Sequence[int],
        renew: Callable[[], Compiled],
    ) -> None:
        self._compiled = compiled
        self._renew = renew
        self._begin_after = begin_after or ()
        self._marker = list(self._begin_after)
        """Tokens that are still waited for before the grammar begins; empty once they came."""
        self._tail: list[int] = []
        self._output = list(output)
        """All that the row has said."""
        self._matcher: LLMatcher | None = None
        """Caught up with the output, once there is one."""
        self.failure: str | None = None
        self.is_too_large = False
        """Why it failed: nobody could follow it within the limits."""

    def take(self, token: int) -> None:
        """The row has said this token."""
        self._output.append(token)
        if self._matcher is not None:
            self._take(self._matcher, token)

    def fill(self, bits_MW: NDArray[np.int32], index: int) -> bool:
        """Write the tokens that may come next into line `index`. False where nothing was written: the grammar
        has not begun, or cannot be followed. May wait to compile."""
        from llguidance.numpy import fill_next_token_bitmask

        while (matcher := self.ready()) is not None:
            fill_next_token_bitmask(matcher, bits_MW, index)
            self._check()
            if self._matcher is matcher:
                return self.failure is None
        return False

    def ready(self) -> LLMatcher | None:
        """The matcher, caught up with the row; None where the row may say anything. May wait to compile."""
        while self._matcher is None and self.failure is None:
            try:
                self._matcher = matcher = self._compiled.matcher.result().deep_copy()
            except Exception as error:  # Of this row alone, whatever it is.
                said = error.message if isinstance(error, OctavoError) else type(error).__name__
                self.failure = f"The grammar cannot be followed: {said}"
                return None
            self._marker, self._tail = list(self._begin_after), []
            for token in self._output:
                if self._matcher is matcher:
                    self._take(matcher, token)
        if self.failure is not None or self._marker:
            return None
        return self._matcher

    def jump(self) -> list[int]:
        """Tokens that can only come next. The grammar has taken them; the row has to say them."""
        matcher = self._matcher
        if matcher is None or self._marker or self.failure is not None or matcher.is_stopped():
            return []
        forced = matcher.compute_ff_tokens()
        said = forced[: matcher.try_consume_tokens(forced)] if forced else []
        self._output.extend(said)
        return said

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
            self._check()
            if self._matcher is matcher:
                self.failure = self.failure or _BROKEN

    def _check(self) -> None:
        """See to what went wrong while a mask was filled or a token was taken."""
        matcher = self._matcher
        if self.failure is not None or matcher is None or not matcher.is_error():
            return
        if self._compiled.num_rows > 1:  # Others may have used up what one needs.
            self._compiled, self._matcher = self._renew(), None
            return
        said = (matcher.get_error().splitlines() or [""])[0]
        self.is_too_large = True
        self.failure = (
            f"The form of this answer became too complex to follow ({said[:300]}). Make it smaller."
        )


_BROKEN = "The answer left its grammar; no more tokens can be chosen."
