"""What the outside knows of one request to a simulated engine."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.engine.outputs import LogprobsOnePosition, RequestOutput
from octavo.engine.prepare import derive_key
from octavo.executor.fake import FULL, expected_tokens
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.messages.request import Terms
from tests.simulation.scenario import VOCAB


@dataclass
class Client:
    """Asks, reads, and knows what is right."""

    prompt: list[int]
    params: SamplingParams
    terms: Terms
    arrives_at: float
    leaves_after_s: float | None
    reads_slowly: bool
    tokens: list[list[int]]
    """Of each of its samples."""
    prompt_logprobs: list[LogprobsOnePosition | None] | None = None
    end: str = ""

    def take(self, output: RequestOutput) -> None:
        """Read the next output of its stream."""
        params = self.params
        for sample in output.outputs:
            if params.output_kind is RequestOutputKind.DELTA:
                self.tokens[sample.index] += sample.token_ids
            else:
                self.tokens[sample.index] = sample.token_ids
            first_ids = [next(iter(position)) for position in sample.logprobs or []]
            assert first_ids == ([] if params.logprobs is None else sample.token_ids)
        if output.prompt_logprobs is not None:
            self.prompt_logprobs = output.prompt_logprobs
        if output.finished:
            assert output.metrics is not None
            assert output.metrics.num_output_tokens == sum(map(len, self.tokens)), "counted wrongly"

    def check(self) -> None:
        """What it has read is right, as far as it goes."""
        count, seed = self.params.max_tokens, self.params.seed
        assert count is not None and seed is not None
        for index, tokens in enumerate(self.tokens):
            key = derive_key(seed, index)
            right = expected_tokens(self.prompt, count, key=key, vocab_size=VOCAB, layers=[FULL, FULL])
            assert tokens == right[: len(tokens)], (self, right)
        if self.prompt_logprobs is not None:
            assert self.params.prompt_logprobs is not None, "nobody asked for them"
            asked, reported = self.prompt[1:], self.prompt_logprobs[1:]
            assert [next(iter(position or {})) for position in reported] == asked
