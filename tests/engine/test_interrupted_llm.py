"""Ctrl-C in LLM.generate: it ends between two steps, and the next call finds an engine in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, SamplingParams

PROMPTS = [[1 + number, 2, 3, 4] * 4 for number in range(3)]
PARAMS = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)


@pytest.fixture(params=[False, True], ids=["one step", "steps overlap"])
def llm(request: pytest.FixtureRequest, bare_folder: Path) -> Iterator[LLM]:
    options: dict[str, Any] = {"async_scheduling": request.param, "max_num_seqs": 4, "num_blocks": 60}
    with LLM(str(bare_folder), skip_tokenizer_init=True, load_format="dummy", **options) as llm:
        yield llm


def answers(llm: LLM) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, PARAMS, use_tqdm=False)]


@pytest.mark.parametrize(
    "place", ["_core.executor.submit", "_core.executor.collect", "_core._scheduler.schedule"]
)
@pytest.mark.parametrize("when", [1, 3])
def test_the_next_call_is_answered_as_ever(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, place: str, when: int
) -> None:
    expected = answers(llm)
    owner, name = llm, place
    while "." in name:
        first, name = name.split(".", 1)
        owner = getattr(owner, first)
    real: Callable[..., Any] = getattr(owner, name)
    num_calls = 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == when:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        answers(llm)
    assert signal.getsignal(signal.SIGINT) is before
    for _ in range(2):
        assert answers(llm) == expected
    assert not llm._core.has_work()
    llm._core.check()
