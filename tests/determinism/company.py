"""One request, alone and in company: every answer must be the same in every bit.

A comparison is a request whose tokens and log-probabilities in a mode are held against those it had alone, in
an engine of its own settings: no prefix cache, whole prompts, one thread.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from octavo import LLM, SamplingParams

MAX_MODEL_LEN = 192
ALONE: dict[str, Any] = {"enable_prefix_caching": False, "cpu_threads": 1}
MODES: dict[str, dict[str, Any]] = {
    "in batches of 8": {"enable_prefix_caching": False, "max_num_seqs": 8},
    "all at once": {"cpu_threads": 2},
    "prompts in chunks": {"enable_prefix_caching": False, "max_num_batched_tokens": 24},
    "preempted": {"enable_prefix_caching": False, "num_gpu_blocks_override": 14, "max_num_seqs": 24},
    "preempted, in chunks": {"num_gpu_blocks_override": 14, "max_num_batched_tokens": 40},
    "the second time": {"max_num_seqs": 5},
    "in another order": {"max_num_seqs": 6, "max_num_batched_tokens": 100},
}
"""Options of an engine. The second time: what was asked before is asked again, so that prefixes are there."""

Answer = tuple[tuple[int, ...], tuple[tuple[tuple[int, float], ...], ...], tuple[float, ...]]
"""Tokens, log-probabilities of the likeliest at each, log-probabilities of the prompt."""


@dataclass
class Report:
    """What was compared, and what differed."""

    comparisons: int = 0
    mismatches: int = 0
    preemptions: int = 0
    cached_tokens: int = 0
    examples: list[str] = field(default_factory=list)
    """The first few that differed."""

    def add(self, other: Report) -> None:
        self.comparisons += other.comparisons
        self.mismatches += other.mismatches
        self.preemptions += other.preemptions
        self.cached_tokens += other.cached_tokens
        self.examples = [*self.examples, *other.examples][:10]


@dataclass(frozen=True)
class Requests:
    """Prompts with what is asked of each."""

    prompts: list[list[int]]
    params: list[SamplingParams]

    def ordered(self, order: Sequence[int]) -> Requests:
        return Requests([self.prompts[i] for i in order], [self.params[i] for i in order])


def draw_requests(source: random.Random, count: int, vocab_size: int, longest: int = 150) -> Requests:
    """Prompts of all lengths, some with one beginning; greedy and drawn answers, some with the prompt's own
    log-probabilities.
    """

    def words(length: int) -> list[int]:
        return [source.randrange(vocab_size) for _ in range(length)]

    shared = words(longest * 2 // 3)
    prompts, params = [], []
    for index in range(count):
        beginning = shared[: source.randrange(len(shared))] if index % 3 == 0 else []
        prompts.append(beginning + words(source.randint(1, longest - len(beginning))))
        params.append(
            SamplingParams(
                temperature=0.0 if index % 2 else 0.9,
                seed=None if index % 2 else index,
                top_p=0.95 if index % 4 == 0 else 1.0,
                max_tokens=source.randint(2, 14),
                ignore_eos=True,
                logprobs=2,
                prompt_logprobs=0 if index % 5 == 4 else None,
            )
        )
    return Requests(prompts, params)


def compare(
    model: Path, requests: Requests, modes: Sequence[str], *, kv_groups: int = 1, **options: Any
) -> Report:
    """All requests in each mode against each alone. kv_groups: of the model's layers; each has its blocks."""
    options = {"max_model_len": MAX_MODEL_LEN, **options}
    with LLM(str(model), **options, **ALONE) as llm:
        pairs = zip(requests.prompts, requests.params, strict=True)
        alone = [_answer(llm.generate(prompt, params, use_tqdm=False)[0]) for prompt, params in pairs]
    report = Report()
    for mode in modes:
        with LLM(str(model), **options, **_scaled(MODES[mode], kv_groups)) as llm:
            order = list(range(len(alone)))
            if mode == "in another order":
                random.Random(len(alone)).shuffle(order)
            asked = requests.ordered(order)
            for _ in range(2 if mode == "the second time" else 1):
                outputs = llm.generate(asked.prompts, asked.params, use_tqdm=False)
            stats = llm.stats()
        found = [_answer(output) for output in outputs]
        wrong = [i for i, answer in zip(order, found, strict=True) if answer != alone[i]]
        report.add(
            Report(
                comparisons=len(found),
                mismatches=len(wrong),
                preemptions=stats.num_preemptions,
                cached_tokens=stats.prefix_hits_tokens,
                examples=[f"{model.name}, {options}, {mode}: request {i}" for i in wrong[:2]],
            )
        )
    return report


def _scaled(mode: dict[str, Any], kv_groups: int) -> dict[str, Any]:
    blocks = mode.get("num_gpu_blocks_override")
    return mode if blocks is None else {**mode, "num_gpu_blocks_override": blocks * kv_groups}


def _answer(output: Any) -> Answer:
    sample = output.outputs[0]
    likeliest = tuple(
        tuple(sorted((token, entry.logprob) for token, entry in position.items()))
        for position in sample.logprobs
    )
    prompt = tuple(
        entry.logprob for position in output.prompt_logprobs or [] if position for entry in position.values()
    )
    return tuple(sample.token_ids), likeliest, prompt
