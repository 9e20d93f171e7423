"""LLM.generate with the next step handed over before this one is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, SamplingParams


@pytest.fixture(scope="module")
def answers(bare_folder: Path) -> dict[bool, list[Any]]:
    """By whether steps overlap: outputs of two calls, with ends that come as a surprise."""
    found = {}
    for overlaps in (False, True):
        options: dict[str, Any] = {"async_scheduling": overlaps, "max_num_seqs": 4, "num_blocks": 60}
        with LLM(str(bare_folder), skip_tokenizer_init=True, load_format="dummy", **options) as llm:
            found[overlaps] = []
            for _ in range(2):
                params = [SamplingParams(temperature=1.0, seed=s, max_tokens=3 + 5 * s) for s in range(7)]
                for number in (1, 4):
                    params[number].stop_token_ids = list(range(0, 250, 9))
                prompts = [[1 + number, 2, 3, 4] * (1 + number) for number in range(7)]
                found[overlaps] += llm.generate(prompts, params, use_tqdm=False)
                stats = llm.stats()
                assert (stats.num_running, stats.num_waiting) == (0, 0)
                assert stats.num_free_blocks == stats.num_blocks
                assert not llm._core.has_work(), "nothing is in flight when a call returns"
    return found


def test_the_answers_are_the_same(answers: dict[bool, list[Any]]) -> None:
    for plain, overlapping in zip(answers[False], answers[True], strict=True):
        assert plain.outputs[0].token_ids == overlapping.outputs[0].token_ids
        assert plain.outputs[0].finish_reason == overlapping.outputs[0].finish_reason


def test_the_load_has_both_kinds_of_ends(answers: dict[bool, list[Any]]) -> None:
    assert {output.outputs[0].finish_reason for output in answers[True]} == {"stop", "length"}
