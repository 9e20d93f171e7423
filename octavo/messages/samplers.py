"""Parameters of the rarer samplers that are more than a number, and the check of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from octavo.base.errors import RequestError
from octavo.messages.checks import check_int, check_range, check_tokens

if TYPE_CHECKING:
    from octavo.messages.params import SamplingParams

DRY_BREAKERS = ("\n", ":", '"', "*")
"""llama.cpp's: where a repetition may not reach across."""
MAX_BREAKERS = 16
MAX_BREAKER_LENGTH = 40
MAX_PATTERN = 1024
MAX_REPEATS = 1024
MAX_LOGPROB_IDS = 128
MAX_MARK_TOKENS = 16
MAX_HISTORY = 2**31 - 1


class DryBreakers(msgspec.Struct, frozen=True):
    """DRY's sequence breakers as token ids.

    A breaker is met where a head token is followed by all of the tail. Tail 0 is empty: its heads hold
    a whole breaker. The others hold the beginning of one, and the tail is its rest.
    """

    head_ids: list[int]
    head_tails: list[int]
    """Parallel to head_ids: bit t says that this head goes with tails[t]."""
    tails: list[list[int]]


class ThinkingBudget(msgspec.Struct, frozen=True, kw_only=True):
    """After `budget` tokens of reasoning the end tokens are forced, whatever the model would say.

    Reasoning runs from the end of start_token_ids to end_token_ids in the answer; with is_open the
    prompt has begun it already. Without start tokens it can only begin there. Each piece of reasoning
    has the whole budget.
    """

    end_token_ids: list[int]
    budget: int
    start_token_ids: list[int] = []
    is_open: bool = False


REPETITION_DETECTED = "repetition_detected"
"""The stop reason, vLLM's word."""


class RepetitionDetectionParams(msgspec.Struct, kw_only=True):
    """Ends an answer that goes round in circles. vLLM's names and meaning.

    The answer ends with finish reason stop and stop reason "repetition_detected" once its last tokens
    are `min_count` times the same pattern of min_pattern_size to max_pattern_size tokens. Size 0 of
    the largest pattern is off, of the smallest means 1.
    """

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0

    @property
    def is_on(self) -> bool:
        return self.max_pattern_size > 0


def prompt_opens_reasoning(
    prompt_token_ids: list[int], start_token_ids: list[int], end_token_ids: list[int]
) -> bool:
    """Whether reasoning has begun in the prompt and not ended there: what ThinkingBudget.is_open wants."""
    start = _last_place(prompt_token_ids, start_token_ids)
    return start >= 0 and start > _last_place(prompt_token_ids, end_token_ids)


def _last_place(token_ids: list[int], mark: list[int]) -> int:
    """Where `mark` stands for the last time; -1 if it does not."""
    if not mark:
        return -1
    for place in range(len(token_ids) - len(mark), -1, -1):
        if token_ids[place] == mark[0] and token_ids[place : place + len(mark)] == mark:
            return place
    return -1


def check_samplers(params: SamplingParams, vocab_size: int) -> None:
    """Raise RequestError naming the parameter unless all of these can be used."""
    check_range("typical_p", params.typical_p, 0.0, 1.0, low_open=True)
    check_range("top_n_sigma", params.top_n_sigma, -1.0, 100.0)
    check_range("xtc_probability", params.xtc_probability, 0.0, 1.0)
    check_range("xtc_threshold", params.xtc_threshold, 0.0, 1.0)
    check_int("repeat_last_n", params.repeat_last_n, -1, MAX_HISTORY)
    _check_dry(params)
    check_tokens("logprob_token_ids", params.logprob_token_ids, vocab_size, MAX_LOGPROB_IDS)
    if params.truncation_side not in ("left", "right"):
        raise RequestError("truncation_side must be 'left' or 'right'.", param="truncation_side")
    if params.repetition_detection is not None:
        _check_repetition(params.repetition_detection)
    if params.thinking_budget is not None:
        _check_thinking(params.thinking_budget, vocab_size)


def _check_dry(params: SamplingParams) -> None:
    check_range("dry_multiplier", params.dry_multiplier, 0.0, 100.0)
    check_range("dry_base", params.dry_base, 1.0, 100.0)
    check_int("dry_allowed_length", params.dry_allowed_length, 0, 128)
    check_int("dry_penalty_last_n", params.dry_penalty_last_n, -1, MAX_HISTORY)
    breakers = params.dry_sequence_breakers
    if breakers is None:
        return
    name = "dry_sequence_breakers"
    if len(breakers) > MAX_BREAKERS:
        raise RequestError(f"{name} has {len(breakers)} entries; at most {MAX_BREAKERS}.", param=name)
    if any(
        not breaker or len(breaker.encode("utf-8", "replace")) > MAX_BREAKER_LENGTH for breaker in breakers
    ):
        raise RequestError(
            f"{name} holds a string that is empty or over {MAX_BREAKER_LENGTH} bytes.", param=name
        )


def _check_repetition(detection: RepetitionDetectionParams) -> None:
    name = "repetition_detection"
    largest, smallest = detection.max_pattern_size, detection.min_pattern_size
    check_int(f"{name}.max_pattern_size", largest, 0, MAX_PATTERN)
    check_int(f"{name}.min_pattern_size", smallest, 0, MAX_PATTERN)
    if smallest > largest:
        raise RequestError(
            f"{name}.min_pattern_size is {smallest}, more than max_pattern_size {largest}.",
            param=f"{name}.min_pattern_size",
        )
    check_int(f"{name}.min_count", detection.min_count, 2 if detection.is_on else 0, MAX_REPEATS)


def _check_thinking(thinking: ThinkingBudget, vocab_size: int) -> None:
    name = "thinking_budget"
    check_int(f"{name}.budget", thinking.budget, 0, MAX_HISTORY)
    check_tokens(f"{name}.start_token_ids", thinking.start_token_ids, vocab_size, MAX_MARK_TOKENS)
    check_tokens(f"{name}.end_token_ids", thinking.end_token_ids, vocab_size, MAX_MARK_TOKENS)
    if not thinking.end_token_ids:
        raise RequestError(f"{name}.end_token_ids is empty: nothing could end the reasoning.", param=name)
