"""What is made of a caller's words, once: bad words as token ids, stop strings as automata, DRY's breakers.

Where there are many each takes up to a tenth of a second, and all prompts of a body ask for the same. So who
serves others has them made beside the event loop first (`make`), and what was made is kept for a while.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TypeVar

from octavo.engine.dry_breakers import BreakerFinder
from octavo.grammar.cache import ByteCache
from octavo.messages.params import SamplingParams
from octavo.messages.samplers import DRY_BREAKERS, DryBreakers
from octavo.tokens.stop_strings import StopAutomaton
from octavo.tokens.tokenizer import Tokenizer

CACHE_BYTES = 32 * 2**20
FEW_CHARS = 256
"""So short words are quicker made than handed to another thread."""
BYTES_PER_WORD, BYTES_PER_TOKEN = 256, 36
"""Of spellings: lists, and the numbers in them."""
BYTES_PER_STATE = 100
"""Of an automaton, which has one for each character."""

Spellings = list[list[int]]
T = TypeVar("T")


class CallersWords:
    """For one tokenizer. May be asked from any thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._breakers = BreakerFinder(tokenizer)
        self._spellings: ByteCache[tuple[str, ...], Spellings] = ByteCache(CACHE_BYTES)
        self._stops: ByteCache[tuple[str, ...], StopAutomaton] = ByteCache(CACHE_BYTES)
        self._lock = threading.Lock()

    def takes_long(self, params: SamplingParams) -> bool:
        """Whether `make` is worth a thread."""
        num_chars = sum(map(len, (*params.stop_strings, *(params.bad_words or ()))))
        return self._wants_breakers(params) or _finds_repetitions(params) or num_chars > FEW_CHARS

    def make(self, params: SamplingParams) -> None:
        """Make all that these parameters need. Raises RequestError as `breakers` does."""
        self.breakers(params)
        self.spellings(params.bad_words or ())
        self.stops(params.stop_strings)
        if _finds_repetitions(params):
            # NumPy comes with the first that needs it: 15 MB, and 30 ms and more of whoever imports it.
            import_module("octavo.engine.repetition")

    def breakers(self, params: SamplingParams) -> DryBreakers | None:
        """Raises RequestError if they split into too many kinds of tails."""
        if not self._wants_breakers(params):
            return None
        breakers = params.dry_sequence_breakers
        return self._breakers.find(DRY_BREAKERS if breakers is None else breakers)

    def spellings(self, words: Sequence[str]) -> Spellings:
        """Token sequences of words: at the start of a text, and after a space."""
        key = tuple(words)
        return self._kept(self._spellings, key, lambda: self._spell(key), _bytes_of_spellings)

    def stops(self, strings: Sequence[str]) -> StopAutomaton | None:
        """None where there are no strings."""
        key = tuple(strings)
        if not key:
            return None
        return self._kept(self._stops, key, lambda: StopAutomaton(key), _bytes_of_automaton)

    def _kept(
        self,
        cache: ByteCache[tuple[str, ...], T],
        key: tuple[str, ...],
        make: Callable[[], T],
        bytes_of: Callable[[T], int],
    ) -> T:
        with self._lock:
            found = cache.get(key)
        if found is None:
            found = make()  # Without the lock: who knows its words already does not wait.
            with self._lock:
                cache.put(key, found, bytes_of(found))
        return found

    def _wants_breakers(self, params: SamplingParams) -> bool:
        return params.dry_multiplier > 0.0 and self._tokenizer.has_text

    def _spell(self, words: Sequence[str]) -> Spellings:
        return [ids for word in words for ids in self._spellings_of(word)]

    def _spellings_of(self, word: str) -> Spellings:
        """Of white space, itself."""
        stripped = word.lstrip()
        if not stripped:
            return [self._tokenizer.encode(word, add_special_tokens=False)]
        bare = self._tokenizer.encode(stripped, add_special_tokens=False)
        spaced = self._tokenizer.encode(" " + stripped, add_special_tokens=False)
        # Where the space is a token of its own, the word behind it is the same.
        return [bare] if spaced[-len(bare) :] == bare else [bare, spaced]


def _finds_repetitions(params: SamplingParams) -> bool:
    detection = params.repetition_detection
    return detection is not None and detection.is_on


def _bytes_of_spellings(spellings: Spellings) -> int:
    return sum(BYTES_PER_WORD + BYTES_PER_TOKEN * len(token_ids) for token_ids in spellings)


def _bytes_of_automaton(automaton: StopAutomaton) -> int:
    return BYTES_PER_STATE * len(automaton.characters)
