"""From texts, pairs and token ids to requests that the core accepts, all of a call together."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from octavo.base.clock import Clock, monotonic
from octavo.base.errors import ErrorCode, RequestError
from octavo.config.facts import CheckpointFacts
from octavo.config.pooling import PoolingFacts, PoolingType
from octavo.engine.pooling.state import PreparedPooling
from octavo.messages.params import SamplingParams
from octavo.messages.pooling import TOKEN_TASKS, PoolingParams, PoolingTask
from octavo.messages.request import PLAIN_TERMS, EngineRequest, Terms
from octavo.messages.start import CoreReady
from octavo.tokens.for_pooling import PoolingEncoder
from octavo.tokens.pair_template import Encoded, pair_template
from octavo.tokens.tokenizer import Tokenizer

Input = str | tuple[str, str] | list[int]
"""A text, a pair of texts, or token ids as they are."""

_NO_TOKENS = SamplingParams(max_tokens=None, ignore_eos=True, detokenize=False)
TASKS: dict[str, tuple[PoolingTask, PoolingTask]] = {
    "embed": ("embed", "token_embed"),
    "classify": ("classify", "token_classify"),
}
"""By what a model was made for: what may be asked of it."""


class PoolingPreparer:
    """Raises RequestError naming the parameter."""

    def __init__(
        self,
        facts: PoolingFacts,
        tokenizer: Tokenizer,
        *,
        vocab_size: int,
        max_tokens: int,
        clock: Clock = monotonic,
    ) -> None:
        """max_tokens: of one text."""
        self.facts = facts
        self.max_tokens = max_tokens
        self._encoder = PoolingEncoder(
            tokenizer,
            lowercases=facts.lowercases,
            pairs=None if facts.is_encoder else pair_template(tokenizer, self._prompt(None)),
        )
        self._vocab_size = vocab_size
        self._clock = clock

    def prepare(
        self,
        inputs: Sequence[Input],
        params: PoolingParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
        terms: Terms = PLAIN_TERMS,
        prompt_name: str | None = None,
    ) -> list[PreparedPooling]:
        """All inputs of a call: texts are tokenized together. request_id: of an only input.

        prompt_name: which of the model's prompts comes before a text; None is its default.
        """
        arrival = self._clock()
        task = self._check(params)
        prompt = self._prompt(prompt_name)
        encoded = self._encode([_with_prompt(given, prompt) for given in inputs], params)
        reads_cache = task not in TOKEN_TASKS and self.facts.pooling is not PoolingType.MEAN
        prepared = []
        for one in encoded:
            own_id = secrets.token_hex(16)
            own_params = PoolingParams(
                task=task,
                dimensions=params.dimensions,
                use_activation=params.use_activation,
                second_from=one.second_from,
            )
            sample = EngineRequest(
                request_id=own_id,
                prompt_token_ids=one.token_ids,
                params=_NO_TOKENS,
                max_tokens=0,
                eos_token_ids=[],
                random_key=0,
                arrival_time=arrival,
                priority=priority,
                cache_salt=cache_salt,
                terms=terms,
                pooling=own_params,
                reads_prefix_cache=reads_cache,
            )
            prepared.append(
                PreparedPooling(
                    request_id=request_id or own_id, prompt_token_ids=one.token_ids, samples=[sample]
                )
            )
        return prepared

    def _check(self, params: PoolingParams) -> PoolingTask:
        params.check()
        facts = self.facts
        possible = TASKS[facts.task]
        task = params.task or possible[0]
        if task not in possible:
            raise RequestError(
                f"task is {task}, but this model was made to {facts.task}. Possible: {', '.join(possible)}.",
                param="task",
            )
        if params.dimensions is not None:
            self._check_dimensions(params.dimensions)
        return task

    def _check_dimensions(self, wish: int) -> None:
        facts = self.facts
        if facts.task != "embed":
            raise RequestError(
                "dimensions is for embeddings, and this model scores labels.", param="dimensions"
            )
        if wish > facts.num_outputs:
            raise RequestError(
                f"dimensions is {wish}; this model's embeddings have {facts.num_outputs}.", param="dimensions"
            )
        if facts.dimensions is not None and wish not in facts.dimensions:
            raise RequestError(
                f"dimensions is {wish}; this model was made for {', '.join(map(str, facts.dimensions))}.",
                param="dimensions",
            )

    def _prompt(self, name: str | None) -> str:
        prompts = self.facts.prompts
        name = self.facts.default_prompt_name if name is None else name
        if name is None:
            return ""
        if name not in prompts:
            known = ", ".join(prompts) or "none"
            raise RequestError(f"This model has no prompt {name!r}; it has {known}.", param="prompt_name")
        return prompts[name]

    def _encode(self, inputs: list[Input], params: PoolingParams) -> list[Encoded]:
        keep = params.truncate_prompt_tokens
        if keep == -1 or (keep is not None and keep > self.max_tokens):
            keep = self.max_tokens
        texts = [given for given in inputs if not isinstance(given, list)]
        encoded = iter(self._encoder.encode(texts, self.max_tokens, keep, params.truncation_side))
        found = [
            self._check_ids(given, keep, params) if isinstance(given, list) else next(encoded)
            for given in inputs
        ]
        for one in found:
            self._check_length(len(one.token_ids))
        return found

    def _check_ids(self, token_ids: list[int], keep: int | None, params: PoolingParams) -> Encoded:
        if token_ids and (
            set(map(type, token_ids)) != {int} or min(token_ids) < 0 or max(token_ids) >= self._vocab_size
        ):
            raise RequestError(
                f"The input holds a token id outside 0..{self._vocab_size - 1}.", param="input"
            )
        if keep is not None:
            token_ids = token_ids[:keep] if params.truncation_side == "right" else token_ids[-keep:]
        return Encoded(list(token_ids))

    def _check_length(self, num_tokens: int) -> None:
        if num_tokens == 0:
            raise RequestError("The input is empty; give at least one token.", param="input")
        if num_tokens > self.max_tokens:
            raise RequestError(
                f"The input has {num_tokens} tokens; this model takes {self.max_tokens}. Shorten it, or set "
                "truncate_prompt_tokens to -1 to have it cut.",
                code=ErrorCode.CONTEXT_LENGTH,
                param="input",
            )


def pooling_preparer(
    facts: CheckpointFacts, tokenizer: Tokenizer, ready: CoreReady
) -> PoolingPreparer | None:
    """None: the model writes."""
    if facts.pooling is None:
        return None
    return PoolingPreparer(
        facts.pooling, tokenizer, vocab_size=ready.vocab_size, max_tokens=ready.max_request_tokens
    )


def _with_prompt(given: Input, prompt: str) -> Input:
    return prompt + given if prompt and isinstance(given, str) else given
