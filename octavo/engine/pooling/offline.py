"""PoolingCalls: what LLM offers on models that answer with numbers. Names and shapes are vLLM's."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from operator import mul
from typing import Any

from octavo.base.errors import RequestError
from octavo.engine.pooling.outputs import (
    ClassificationOutput,
    ClassificationRequestOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    PoolingRequestOutput,
    RerankResult,
    ScoringOutput,
    ScoringRequestOutput,
    common,
    floats_of,
)
from octavo.engine.pooling.prepare import Input, PoolingPreparer
from octavo.engine.pooling.refuse import cannot_pool, cannot_task
from octavo.engine.pooling.state import PreparedPooling
from octavo.messages.pooling import PoolingParams, PoolingTask

Prompts = Any
"""A text, a list of token ids, {"prompt": ...}, {"prompt_token_ids": ...}, or a sequence of these."""


class PoolingCalls(ABC):
    """Mixed into LLM."""

    _pooling: PoolingPreparer | None
    """None: the model writes."""

    @abstractmethod
    def _run_pooling(self, prepared: list[PreparedPooling], use_tqdm: bool) -> list[PoolingRequestOutput]:
        """Run them, and give outputs in their order."""

    def encode(
        self,
        prompts: Prompts,
        pooling_params: PoolingParams | None = None,
        *,
        use_tqdm: bool = True,
        pooling_task: PoolingTask | None = None,
        truncate_prompt_tokens: int | None = None,
        prompt_name: str | None = None,
    ) -> list[PoolingRequestOutput]:
        """The model's numbers as they are: of each text, or with the tasks token_... of each token."""
        if self._pooling is None:
            raise cannot_pool("encode")
        params = PoolingParams() if pooling_params is None else pooling_params.clone()
        params.task = pooling_task or params.task
        if truncate_prompt_tokens is not None:
            params.truncate_prompt_tokens = truncate_prompt_tokens
        prepared = self._pooling.prepare(inputs_of(prompts), params, prompt_name=prompt_name)
        return self._run_pooling(prepared, use_tqdm)

    def embed(
        self,
        prompts: Prompts,
        *,
        use_tqdm: bool = True,
        pooling_params: PoolingParams | None = None,
        truncate_prompt_tokens: int | None = None,
        prompt_name: str | None = None,
    ) -> list[EmbeddingRequestOutput]:
        """One embedding for each text. prompt_name: one of the model's own prompts, put before the text."""
        self._check_task("embed", "embed")
        outputs = self.encode(
            prompts,
            pooling_params,
            use_tqdm=use_tqdm,
            pooling_task="embed",
            truncate_prompt_tokens=truncate_prompt_tokens,
            prompt_name=prompt_name,
        )
        return [
            EmbeddingRequestOutput(outputs=EmbeddingOutput(floats_of(one.outputs.numbers)), **common(one))
            for one in outputs
        ]

    def classify(
        self,
        prompts: Prompts,
        *,
        use_tqdm: bool = True,
        pooling_params: PoolingParams | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[ClassificationRequestOutput]:
        """A score for each of the model's labels."""
        self._check_task("classify", "classify")
        outputs = self.encode(
            prompts, pooling_params, use_tqdm=use_tqdm, truncate_prompt_tokens=truncate_prompt_tokens
        )
        return [
            ClassificationRequestOutput(
                outputs=ClassificationOutput(floats_of(one.outputs.numbers)), **common(one)
            )
            for one in outputs
        ]

    def reward(
        self,
        prompts: Prompts,
        /,
        *,
        use_tqdm: bool = True,
        pooling_params: PoolingParams | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[PoolingRequestOutput]:
        """What a reward model says, as its head says it: without sigmoid or softmax."""
        self._check_task("reward", "classify")
        params = PoolingParams() if pooling_params is None else pooling_params.clone()
        params.use_activation = bool(params.use_activation)
        return self.encode(prompts, params, use_tqdm=use_tqdm, truncate_prompt_tokens=truncate_prompt_tokens)

    def score(
        self,
        data_1: str | Sequence[str],
        data_2: str | Sequence[str],
        /,
        *,
        use_tqdm: bool = True,
        pooling_params: PoolingParams | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[ScoringRequestOutput]:
        """How well texts fit: one to many, or pair by pair.

        A cross-encoder reads both. Of a model that embeds it is the cosine of the two embeddings.
        """
        if self._pooling is None:
            raise cannot_pool("score")
        pairs = pairs_of(data_1, data_2)
        params = PoolingParams() if pooling_params is None else pooling_params
        if self._pooling.facts.can_embed:
            texts = list(dict.fromkeys(text for pair in pairs for text in pair))
            outputs = self.encode(
                texts, params, use_tqdm=use_tqdm, truncate_prompt_tokens=truncate_prompt_tokens
            )
            by_text = dict(zip(texts, outputs, strict=True))
            return [_cosine(by_text[first], by_text[second]) for first, second in pairs]
        check_scores_pairs(self._pooling.facts.num_outputs)
        outputs = self.encode(pairs, params, use_tqdm=use_tqdm, truncate_prompt_tokens=truncate_prompt_tokens)
        return [
            ScoringRequestOutput(outputs=ScoringOutput(floats_of(one.outputs.numbers)[0]), **common(one))
            for one in outputs
        ]

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        /,
        *,
        top_n: int | None = None,
        use_tqdm: bool = True,
        truncate_prompt_tokens: int | None = None,
    ) -> list[RerankResult]:
        """The documents that answer the query best, best first."""
        outputs = self.score(
            query, list(documents), use_tqdm=use_tqdm, truncate_prompt_tokens=truncate_prompt_tokens
        )
        results = [
            RerankResult(index=index, document=documents[index], relevance_score=one.outputs.score)
            for index, one in enumerate(outputs)
        ]
        results.sort(key=lambda result: -result.relevance_score)
        return results if top_n is None else results[:top_n]

    def _check_task(self, call: str, task: str) -> None:
        if self._pooling is None:
            raise cannot_pool(call)
        if self._pooling.facts.task != task:
            raise cannot_task(call, self._pooling.facts)


def inputs_of(prompts: Prompts) -> list[Input]:
    """Each prompt as the preparer takes it."""
    if isinstance(prompts, str | Mapping) or _is_ids(prompts):
        prompts = [prompts]
    return [_input_of(prompt) for prompt in prompts]


def _is_ids(prompt: object) -> bool:
    return isinstance(prompt, list) and bool(prompt) and all(isinstance(item, int) for item in prompt)


def _input_of(prompt: object) -> Input:
    if isinstance(prompt, Mapping):
        prompt = prompt.get("prompt_token_ids", prompt.get("prompt"))
    if isinstance(prompt, str | list):
        return prompt
    if isinstance(prompt, tuple) and len(prompt) == 2 and all(isinstance(part, str) for part in prompt):
        return prompt
    raise RequestError(
        'A prompt is a text, a list of token ids, {"prompt": text} or {"prompt_token_ids": ids}.',
        param="prompts",
    )


def pairs_of(
    data_1: str | Sequence[str], data_2: str | Sequence[str], param: str = "data_2"
) -> list[tuple[str, str]]:
    """One to many, or pair by pair. RequestError, of this parameter, if the numbers do not fit."""
    firsts = [data_1] if isinstance(data_1, str) else list(data_1)
    seconds = [data_2] if isinstance(data_2, str) else list(data_2)
    if not firsts or not seconds:
        raise RequestError("There is nothing to score; give at least one text on each side.", param=param)
    if len(firsts) == 1:
        firsts *= len(seconds)
    if len(firsts) != len(seconds):
        raise RequestError(
            f"{len(firsts)} texts cannot be scored with {len(seconds)}: give one, or equally many.",
            param=param,
        )
    return list(zip(firsts, seconds, strict=True))


def check_scores_pairs(num_labels: int) -> None:
    """A score of two texts is one number."""
    if num_labels != 1:
        raise RequestError(
            f"This model has {num_labels} labels; only a model with one label scores pairs. Use classify.",
            param="model",
        )


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """From -1 to 1: what rounding adds is taken away."""
    length = math.hypot(*first) * math.hypot(*second)
    return max(min(sum(map(mul, first, second)) / length, 1.0), -1.0) if length else 0.0


def _cosine(first: PoolingRequestOutput, second: PoolingRequestOutput) -> ScoringRequestOutput:
    score = cosine(floats_of(first.outputs.numbers), floats_of(second.outputs.numbers))
    both = {**common(first), "prompt_token_ids": first.prompt_token_ids + second.prompt_token_ids}
    return ScoringRequestOutput(outputs=ScoringOutput(score), **both)
