"""Counts tokens of a request while its outputs arrive."""

from __future__ import annotations

from msgspec import UNSET

from octavo.engine.outputs import RequestOutput
from octavo.server.openai.schema.generation import CompletionTokensDetails, PromptTokensDetails, Usage


class UsageCount:
    """Prompts count once each, answers by what was generated for them."""

    def __init__(self) -> None:
        self._prompts: dict[int, int] = {}
        self._cached: dict[int, int] = {}
        self._num_generated = 0
        self._num_reasoning: int | None = None

    def add(self, index: int, output: RequestOutput) -> None:
        """Take an output of prompt `index` whose token ids have not been counted."""
        if index not in self._prompts or output.finished:
            self._prompts[index] = len(output.prompt_token_ids)
            self._cached[index] = output.num_cached_tokens
        for part in output.outputs:
            self._num_generated += len(part.token_ids)

    def add_reasoning(self, num_tokens: int) -> None:
        """Of the tokens counted, so many are reasoning."""
        self._num_reasoning = (self._num_reasoning or 0) + num_tokens

    def usage(self, *, is_answer_dropped: bool = False) -> Usage:
        """What is counted so far."""
        num_prompt = sum(self._prompts.values())
        num_generated = 0 if is_answer_dropped else self._num_generated
        return Usage(
            num_prompt,
            num_generated,
            num_prompt + num_generated,
            PromptTokensDetails(sum(self._cached.values())),
            # Counted from its text, which may be cut into tokens in more ways than one.
            UNSET
            if self._num_reasoning is None
            else CompletionTokensDetails(min(self._num_reasoning, num_generated)),
        )
