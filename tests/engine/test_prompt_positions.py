"""Log-probabilities of long prompts are made piece by piece, and others have their turn in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from octavo import SamplingParams
from octavo.engine import prompt_positions
from octavo.engine.prompt_positions import PromptPositions
from octavo.messages.params import RequestOutputKind
from octavo.messages.result import TokenLogprobs

TOLD = [TokenLogprobs([65 + n, 65, 66], [-2.0 - n, -0.5, -1.0], n + 1) for n in range(10)]


def test_pieces_say_the_same_as_all_at_once(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PromptPositions(tokenizer, TOLD).all()
    monkeypatch.setattr(prompt_positions, "PIECE", 7)
    pieces = PromptPositions(tokenizer, TOLD)
    num_pieces = 0
    while pieces.make_more():
        num_pieces += 1
    assert num_pieces == 5 and pieces.all() == whole
    assert whole[0] is None and len(whole) == 11
    assert [entry.rank for entry in whole[3].values()] == [3, 1, 2]  # type: ignore[union-attr]


def test_a_prompt_of_one_token_tells_nothing(tokenizer: Any) -> None:
    positions = PromptPositions(tokenizer, [])
    assert not positions.make_more() and positions.all() == [None]


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_others_have_their_turn_between_pieces(
    make_engine: Any, monkeypatch: pytest.MonkeyPatch, kind: RequestOutputKind
) -> None:
    engine = await make_engine()
    turns, seen = 0, []
    monkeypatch.setattr(prompt_positions, "PIECE", 40)
    make_more = PromptPositions.make_more

    def noted(positions: PromptPositions) -> bool:
        seen.append(turns)
        return make_more(positions)

    monkeypatch.setattr(PromptPositions, "make_more", noted)

    async def somebody() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(somebody())
    params = SamplingParams(max_tokens=2, temperature=0.0, prompt_logprobs=1, output_kind=kind)
    outputs = [output async for output in engine.generate([5] * 200, params)]
    other.cancel()
    told = [output.prompt_logprobs for output in outputs if output.prompt_logprobs is not None]
    assert len(told[0]) == 200 and (kind is not RequestOutputKind.DELTA or len(told) == 1)
    assert len(seen) >= 10 and len(set(seen[:10])) == 10, "a piece a turn"
    await engine.shutdown()
