"""SamplingParams: how to choose tokens and when to stop. Names and meanings are vLLM's and OpenAI's.

`check()` is the one validator for every front door (LLM, AsyncLLM, HTTP): a request that passed it
cannot make the sampler or the scheduler fail.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Literal

import msgspec

from octavo.base.errors import RequestError
from octavo.messages.checks import MAX_TOKEN_LIST, check_int, check_range, check_tokens
from octavo.messages.samplers import (
    DryBreakers,
    RepetitionDetectionParams,
    ThinkingBudget,
    check_samplers,
)
from octavo.messages.structured import StructuredOutputsParams

MAX_N = 128
MAX_LOGPROBS = 64
MAX_STOP_STRINGS = 64
MAX_STOP_LENGTH = 1024
MAX_BAD_WORD_CHARS = 65_536
"""Of all bad words together: each is made tokens of, and compared at each step."""
MAX_LOGIT_BIAS = 4096
MAX_SEED = 2**64


class RequestOutputKind(IntEnum):
    """What each yielded RequestOutput holds."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


class SamplingParams(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How to choose tokens and when to stop.

    temperature 0 is greedy. top_k 0 or -1 means all tokens. max_tokens None means up to the model's
    length. logprobs None means none, -1 the whole vocabulary (offline only), else that many best ones.
    logits_processors are callables `(output_token_ids, logits_V) -> logits_V` and work only where the
    worker shares the caller's process.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    repeat_last_n: int = -1
    """Over how many of the last tokens repetition_penalty looks: -1 all, 0 none."""
    typical_p: float = 1.0
    top_n_sigma: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: list[str] | None = None
    """None is llama.cpp's own: newline, colon, quotation mark, asterisk."""
    dry_breakers: DryBreakers | None = None
    """Filled in by the engine from `dry_sequence_breakers`; the worker reads only this."""
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    """Log-probabilities of these tokens at each position, instead of the best ones."""
    prompt_logprobs: int | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    bad_words_token_ids: list[list[int]] | None = None
    """Filled in by the engine from `bad_words`; the worker reads only this."""
    detokenize: bool = True
    skip_special_tokens: bool = True
    shown_special_token_ids: list[int] | None = None
    """Filled in by the server: shown although skip_special_tokens hides the others."""
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    truncation_side: Literal["left", "right"] = "left"
    """Which end of a long prompt is cut off."""
    thinking_budget: ThinkingBudget | None = None
    repetition_detection: RepetitionDetectionParams | None = None
    structured_outputs: StructuredOutputsParams | None = None
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    logits_processors: list[Callable[[list[int], Any], Any]] | None = None

    def clone(self) -> SamplingParams:
        return msgspec.structs.replace(self)

    @property
    def stop_strings(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else list(self.stop)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0

    def check(self, vocab_size: int, max_logprobs: int = MAX_LOGPROBS) -> None:
        """Raise RequestError naming the parameter unless every value is usable.

        vocab_size: rows of the embedding table (not the tokenizer's length).
        """
        check_range("temperature", self.temperature, 0.0, 100.0)
        check_range("top_p", self.top_p, 0.0, 1.0, low_open=True)
        check_range("min_p", self.min_p, 0.0, 1.0)
        check_range("presence_penalty", self.presence_penalty, -2.0, 2.0)
        check_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        check_range("repetition_penalty", self.repetition_penalty, 0.0, 100.0, low_open=True)
        check_int("n", self.n, 1, MAX_N)
        check_int("top_k", self.top_k, -1, None)
        check_int("min_tokens", self.min_tokens, 0, None)
        if self.max_tokens is not None:
            check_int("max_tokens", self.max_tokens, 1, None)
            if self.min_tokens > self.max_tokens:
                raise RequestError(
                    f"min_tokens is {self.min_tokens}, more than max_tokens {self.max_tokens}.",
                    param="min_tokens",
                )
        if self.seed is not None:
            check_int("seed", self.seed, -(2**63), MAX_SEED - 1)
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            if count is not None:
                check_int(name, count, -1, None)
                wanted = vocab_size if count == -1 else count
                if wanted > max_logprobs:
                    raise RequestError(
                        f"{name} is {count}; this server returns at most {max_logprobs}.", param=name
                    )
        if self.truncate_prompt_tokens is not None:
            check_int("truncate_prompt_tokens", self.truncate_prompt_tokens, -1, None)
            if self.truncate_prompt_tokens == 0:
                raise RequestError(
                    "truncate_prompt_tokens must be -1 or at least 1.", param="truncate_prompt_tokens"
                )
        check_samplers(self, vocab_size)
        self._check_lists(vocab_size)
        if self.structured_outputs is not None:
            self._check_form(self.structured_outputs)

    def _check_form(self, form: StructuredOutputsParams) -> None:
        """A form ends the answer itself: nothing else may say when it must not end."""
        form.check()
        if self.ignore_eos:
            raise RequestError(
                "ignore_eos contradicts structured_outputs, whose end is the end of the text.",
                param="ignore_eos",
            )
        if self.min_tokens > 0:
            raise RequestError(
                "min_tokens contradicts structured_outputs; ask for the length in the schema or grammar.",
                param="min_tokens",
            )

    def _check_lists(self, vocab_size: int) -> None:
        stops = self.stop_strings
        if len(stops) > MAX_STOP_STRINGS:
            raise RequestError(f"stop has {len(stops)} strings; at most {MAX_STOP_STRINGS}.", param="stop")
        if any(not stop for stop in stops):
            raise RequestError("stop holds an empty string; leave it out.", param="stop")
        if any(len(stop) > MAX_STOP_LENGTH for stop in stops):
            raise RequestError(f"a stop string is over {MAX_STOP_LENGTH} characters.", param="stop")
        if stops and not self.detokenize:
            raise RequestError("stop strings need detokenize; use stop_token_ids instead.", param="stop")
        check_tokens("stop_token_ids", self.stop_token_ids, vocab_size)
        check_tokens("shown_special_token_ids", self.shown_special_token_ids, vocab_size)
        check_tokens("allowed_token_ids", self.allowed_token_ids, vocab_size, limit=vocab_size)
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise RequestError(
                "allowed_token_ids is empty: no token could be chosen.", param="allowed_token_ids"
            )
        if self.logit_bias is not None:
            if len(self.logit_bias) > MAX_LOGIT_BIAS:
                raise RequestError(
                    f"logit_bias has {len(self.logit_bias)} entries; at most {MAX_LOGIT_BIAS}.",
                    param="logit_bias",
                )
            check_tokens("logit_bias", list(self.logit_bias), vocab_size)
            for token, bias in self.logit_bias.items():
                check_range(f"logit_bias[{token}]", bias, -100.0, 100.0, param="logit_bias")
        if self.bad_words is not None:
            if len(self.bad_words) > MAX_TOKEN_LIST:
                raise RequestError(
                    f"bad_words has {len(self.bad_words)} entries; at most {MAX_TOKEN_LIST}.",
                    param="bad_words",
                )
            if any(not word for word in self.bad_words):
                raise RequestError("bad_words holds an empty string; leave it out.", param="bad_words")
            num_chars = sum(map(len, self.bad_words))
            if num_chars > MAX_BAD_WORD_CHARS:
                raise RequestError(
                    f"bad_words has {num_chars} characters in all; at most {MAX_BAD_WORD_CHARS}.",
                    param="bad_words",
                )
        for sequence in self.bad_words_token_ids or []:
            check_tokens("bad_words", sequence, vocab_size)
