"""From what a caller says to requests the core accepts. Everything is checked here, before any is sent."""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from octavo.base.clock import Clock, monotonic
from octavo.base.errors import ErrorCode, RequestError
from octavo.config.model import ModelConfig
from octavo.engine.callers_words import CallersWords
from octavo.engine.prompt_vectors import (
    check_vectors,
    check_without_tokens,
    load_numpy,
    refuse_prompt_vectors,
)
from octavo.engine.request_state import PreparedRequest
from octavo.grammar.desk import GrammarDesk
from octavo.grammar.vocabulary import Words
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.messages.prompt_vectors import PromptVectors
from octavo.messages.request import PLAIN_TERMS, EngineRequest, PrefixPin, Samples, Terms
from octavo.messages.start import CoreReady

MAX_SALT_LENGTH = 256
PRIORITY_RANGE = 2**31
MAX_PINS = 4
MAX_PIN_TTL_S = 86_400.0

PLACEHOLDER = 0
"""Stands in the core for each token of a prompt of vectors: an id that every model has."""

EnginePrompt = str | list[int] | PromptVectors

RandomKeys = Callable[[], int]
"""Gives a fresh 64-bit key for each request without a seed."""


def fresh_keys() -> int:
    return secrets.randbits(64)


def repeatable_keys(seed: int) -> RandomKeys:
    """The same series of keys for the same engine seed: offline runs can be repeated."""
    source = random.Random(seed)
    return lambda: source.getrandbits(64)


@dataclass(frozen=True, kw_only=True)
class VectorLimits:
    """What prompts of vectors have to be like."""

    width: int
    dtype: str
    """The model's: what it computes in."""


def vector_limits(model: ModelConfig, ready: CoreReady) -> VectorLimits | None:
    """None: such prompts are refused."""
    if not model.enable_prompt_embeds:
        return None
    return VectorLimits(width=ready.hidden_size, dtype=model.dtype)


class RequestPreparer:
    """Tokenizes, applies defaults and limits, splits n samples. Raises RequestError naming the parameter."""

    def __init__(  # noqa: PLR0913
        self,
        *,
        words: Words,
        vocab_size: int,
        max_model_len: int,
        max_request_tokens: int,
        max_logprobs: int,
        random_keys: RandomKeys,
        is_same_process: bool,
        grammars: GrammarDesk,
        vectors: VectorLimits | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._tokenizer = words.tokenizer
        self.words = CallersWords(words.tokenizer)
        self._grammars = grammars
        self._vectors = vectors
        if vectors is not None:
            load_numpy()
        self._eos_token_ids = list(words.eos_token_ids)
        self.vocab_size = vocab_size
        self._max_model_len = max_model_len
        self._max_request_tokens = max_request_tokens
        self._max_logprobs = max_logprobs
        self._random_keys = random_keys
        self._is_same_process = is_same_process
        self._clock = clock

    def prepare(
        self,
        prompt: EnginePrompt,
        params: SamplingParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
        pins: Sequence[PrefixPin] = (),
        terms: Terms = PLAIN_TERMS,
        max_logprobs: int | None = None,
    ) -> PreparedRequest:
        """Check and complete one request. `params` is not changed.

        max_logprobs: instead of the bound for callers, where the engine itself asks.
        """
        arrival_time = self._clock()
        params.check(self.vocab_size, self._max_logprobs if max_logprobs is None else max_logprobs)
        if params.logits_processors and not self._is_same_process:
            raise RequestError(
                "logits_processors are Python functions and work only with LLM or an in-process AsyncLLM.",
                param="logits_processors",
            )
        _check_extras(priority, cache_salt)
        _check_pins(pins)
        if not self._tokenizer.has_text:
            _check_without_text(params)
        prompt_token_ids = (
            self._placeholders(prompt, params)
            if isinstance(prompt, PromptVectors)
            else self._tokenize(prompt, params)
        )
        max_tokens = self._max_tokens(len(prompt_token_ids), params)
        core_params = self._for_core(params)
        own_id = secrets.token_hex(16)
        first_key, *keys = self._keys(params)
        first = EngineRequest(
            request_id=f"{own_id}-0",
            prompt_token_ids=prompt_token_ids,
            params=core_params,
            max_tokens=max_tokens,
            eos_token_ids=self._eos_token_ids,
            random_key=first_key,
            arrival_time=arrival_time,
            priority=priority,
            cache_salt=cache_salt,
            pins=list(pins),
            terms=terms,
            prompt_vectors=prompt if isinstance(prompt, PromptVectors) else None,
        )
        others = [(f"{own_id}-{index}", key) for index, key in enumerate(keys, start=1)]
        return PreparedRequest(
            request_id=request_id or own_id,
            prompt=prompt if isinstance(prompt, str) else None,
            prompt_token_ids=prompt_token_ids,
            params=params,
            samples=Samples(first, others).apart(),
            stops=self.words.stops(params.stop_strings),
        )

    def _placeholders(self, prompt: PromptVectors, params: SamplingParams) -> list[int]:
        if self._vectors is None:
            raise refuse_prompt_vectors()
        check_without_tokens(params)
        check_vectors(prompt, width=self._vectors.width, dtype=self._vectors.dtype)
        return [PLACEHOLDER] * prompt.num_tokens

    def _tokenize(self, prompt: str | list[int], params: SamplingParams) -> list[int]:
        if isinstance(prompt, str):
            token_ids = self._tokenizer.encode(prompt)
        else:
            token_ids = list(prompt)
            # Whole passes in C: prompts may have a hundred thousand tokens.
            if token_ids and (
                set(map(type, token_ids)) != {int} or min(token_ids) < 0 or max(token_ids) >= self.vocab_size
            ):
                raise RequestError(
                    f"The prompt holds a token id outside 0..{self.vocab_size - 1}.", param="prompt"
                )
        keep = params.truncate_prompt_tokens
        if keep is not None:
            keep = self._max_model_len - 1 if keep == -1 else keep
            token_ids = token_ids[-keep:] if params.truncation_side == "left" else token_ids[:keep]
        if not token_ids:
            raise RequestError("The prompt is empty; give at least one token.", param="prompt")
        return token_ids

    def _max_tokens(self, num_prompt_tokens: int, params: SamplingParams) -> int:
        room = self._max_request_tokens - num_prompt_tokens
        wanted = params.max_tokens
        if room < 1 or (wanted is not None and wanted > room):
            asked = f"{num_prompt_tokens} prompt tokens" + (f" and max_tokens {wanted}" if wanted else "")
            what = (
                "this model's context"
                if self._max_request_tokens == self._max_model_len
                else "what the KV cache holds for one request"
            )
            raise RequestError(
                f"{asked} are more than {what}: {self._max_request_tokens} tokens, at least one of them for "
                "the answer. Shorten the prompt or lower max_tokens.",
                code=ErrorCode.CONTEXT_LENGTH,
                param="prompt" if room < 1 else "max_tokens",
            )
        if params.min_tokens > room:
            raise RequestError(
                f"min_tokens is {params.min_tokens}, but only {room} tokens are left after the prompt.",
                param="min_tokens",
            )
        return wanted if wanted is not None else room

    def _for_core(self, params: SamplingParams) -> SamplingParams:
        """A private copy with words turned into ids; what only text needs is left out."""
        core_params = params.clone()
        core_params.n = 1
        core_params.stop = None
        core_params.output_kind = RequestOutputKind.CUMULATIVE
        if params.bad_words:
            core_params.bad_words_token_ids = self.words.spellings(params.bad_words)
            core_params.bad_words = None
        core_params.dry_breakers = self.words.breakers(params)
        core_params.dry_sequence_breakers = None
        if params.structured_outputs is not None:
            core_params.structured_outputs = self._grammars.check_here(params.structured_outputs)
        return core_params

    def _keys(self, params: SamplingParams) -> list[int]:
        """One key per sample: the same seed and index always give the same key."""
        seed = self._random_keys() if params.seed is None else params.seed
        return [derive_key(seed, index) for index in range(params.n)]


def derive_key(seed: int, index: int) -> int:
    """64-bit key of sample `index` of a request with this seed."""
    material = f"{seed % 2**64}/{index}".encode()
    return int.from_bytes(hashlib.sha256(material).digest()[:8], "little")


def _check_without_text(params: SamplingParams) -> None:
    """Without a tokenizer, what speaks of text cannot be kept."""
    for name, instead in (
        ("stop", "stop_token_ids"),
        ("bad_words", "logit_bias"),
        ("dry_sequence_breakers", "dry_multiplier without them"),
    ):
        if getattr(params, name):
            raise RequestError(
                f"{name} needs text, and this engine runs without a tokenizer (skip_tokenizer_init); "
                f"use {instead} instead.",
                param=name,
            )


def _check_pins(pins: Sequence[PrefixPin]) -> None:
    if len(pins) > MAX_PINS or any(not 0 < pin.ttl_s <= MAX_PIN_TTL_S for pin in pins):
        raise RequestError(
            f"pins may be {MAX_PINS} at most, each for more than 0 and at most {MAX_PIN_TTL_S:.0f} s.",
            param="pins",
        )


def _check_extras(priority: int, cache_salt: str | None) -> None:
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) >= PRIORITY_RANGE:
        raise RequestError(f"priority must be an integer within ±{PRIORITY_RANGE - 1}.", param="priority")
    if cache_salt is None:
        return
    if not isinstance(cache_salt, str) or not cache_salt or len(cache_salt) > MAX_SALT_LENGTH:
        raise RequestError(
            f"cache_salt must be a string of 1 to {MAX_SALT_LENGTH} characters.", param="cache_salt"
        )
    if any("\ud800" <= char <= "\udfff" for char in cache_salt):
        raise RequestError("cache_salt holds half a surrogate pair; use plain Unicode.", param="cache_salt")
