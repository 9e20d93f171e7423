"""Tokens that a worker appends as nothing else can follow: counts, stop rules and blocks keep right."""

from __future__ import annotations

import pytest

from octavo.base.errors import EngineError
from octavo.core.answer import check_answer
from octavo.core.in_flight import StepRecord
from octavo.executor.fake import expected_tokens
from octavo.messages.result import FinishReason, StepOutput
from tests.core.conftest import RecordingExecutor

PROMPTS = {"a": [1, 2, 3, 4, 5], "b": [6, 7], "c": list(range(10, 31)), "d": [1, 2, 3, 4, 9, 9]}


class Forcing(RecordingExecutor):
    """Knows what comes next, and says some of it at once."""

    def collect(self) -> StepOutput:
        output = super().collect()
        for row in output.rows[:: 1 + output.step % 2]:
            known = self._rows[row]
            more = expected_tokens(known.tokens, output.step % 5, key=known.key, vocab_size=self._vocab_size)
            known.tokens.extend(more)
            if more:
                output.forced[row] = more
        return output


@pytest.mark.parametrize("options", [{}, {"budget": 3}, {"blocks": 16}, {"seqs": 2}, {"caching": False}])
def test_the_same_tokens_in_fewer_steps(bench, request_for, options) -> None:
    found = {}
    for executor in (RecordingExecutor, Forcing):
        b = bench(executor=executor, **options)
        for name, prompt in PROMPTS.items():
            b.core.add(request_for(name, prompt, 12))
        b.run()
        found[executor] = b
        assert b.tokens == {
            name: expected_tokens(prompt, 12, key=5, vocab_size=1000) for name, prompt in PROMPTS.items()
        }
        assert b.core.stats().generation_tokens == 12 * len(PROMPTS)
        assert b.core.stats().num_free_blocks == b.core.stats().num_blocks
    assert len(found[Forcing].executor.steps) < len(found[RecordingExecutor].executor.steps)


class ForcingFirst(RecordingExecutor):
    """Forces all that comes next on the request whose prompt is token 0, and on nobody else."""

    def collect(self) -> StepOutput:
        output = super().collect()
        for row in output.rows:
            known = self._rows[row]
            if known.tokens[0] == 0 and len(known.tokens) == 2:
                output.forced[row] = expected_tokens(known.tokens, 4, key=5, vocab_size=self._vocab_size)
                known.tokens.extend(output.forced[row])
        return output


def test_they_come_in_pieces_where_prompts_may_not(bench, request_for) -> None:
    """Without chunked prefill, while all rows are taken: whole they would not fit beside a token for each."""
    whole = {"enable_chunked_prefill": False}
    b = bench(executor=ForcingFirst, max_len=8, budget=8, seqs=8, blocks=40, schedule=whole)
    for number in range(60):
        b.core.add(request_for(str(number), [number], 2 + number * 5 % 6 if number else 7))
    for _ in range(6):
        b.step()
    assert b.tokens["0"] == expected_tokens([0], 7, key=5, vocab_size=1000)


def test_a_stop_token_among_them_ends_the_answer(bench, request_for) -> None:
    expected = expected_tokens([1, 2, 3], 12, key=5, vocab_size=1000)
    for place in range(12):
        b = bench(executor=Forcing)
        b.core.add(request_for("a", [1, 2, 3], 12, stop_token_ids=[expected[place]]))
        b.run()
        assert b.tokens["a"] == expected[: place + 1]
        assert b.last["a"].finish_reason is FinishReason.STOP
        assert b.last["a"].stop_token_id == expected[place]


def test_only_sampled_rows_may_go_on() -> None:
    record = StepRecord(1)
    with pytest.raises(EngineError, match="appended"):
        check_answer(record, StepOutput(step=1, rows=[], token_ids=[], forced={3: [1]}))
