"""A step that fails while masks are still being filled: the next one is not told of it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from octavo.grammar.compiler import GrammarCompiler
from octavo.grammar.matchers import Matchers
from octavo.messages.params import SamplingParams
from octavo.messages.structured import StructuredOutputsParams as Wish
from octavo.worker.extras.grammar_masks import GrammarMasks
from octavo.worker.sampling.token_masks import TokenMasks
from tests.tiny import VOCAB_SIZE

WIDTH = VOCAB_SIZE + 5
CPU = torch.device("cpu")


def step(params: SamplingParams, *rows: int, ended: tuple[int, ...] = ()) -> Any:
    new = [
        SimpleNamespace(row=row, params=params, token_ids=[1], num_prompt_tokens=1, eos_token_ids=[258])
        for row in rows
    ]
    return SimpleNamespace(ended_rows=list(ended), new_rows=new)


def batch(*rows: int) -> Any:
    return SimpleNamespace(sample_rows=list(rows))


def test_a_request_that_is_tried_alone_meets_nothing_of_the_step_before(
    compiler: GrammarCompiler, matchers: Matchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_free, compile_now = threading.Event(), matchers._compile_here

    def compile_slowly(canonical: str) -> Any:
        is_free.wait(20)
        return compile_now(canonical)

    monkeypatch.setattr(matchers, "_compile_here", compile_slowly)
    masks = TokenMasks(WIDTH, CPU)
    rows: Any = SimpleNamespace(device=CPU)
    extra = GrammarMasks(matchers, masks, rows, vocab_size=WIDTH, is_overlapping=False)
    form = SamplingParams(structured_outputs=Wish(canonical=compiler.compile(Wish(choice=["a"]))))
    extra.requests_changed(step(form, 0, 1))
    extra.before_forward(batch(0, 1))
    # Here the forward raises. One of the two is tried alone, while the step before waits for the compiler.
    threading.Timer(0.05, is_free.set).start()
    extra.requests_changed(step(form, 0, ended=(0, 1)))
    is_free.wait(20)
    extra.before_forward(batch(0))
    extra.before_sample(batch(0), torch.zeros(1, WIDTH))
    logits = torch.zeros(1, WIDTH)
    masks.apply(logits)
    assert logits.isfinite().sum() == 1, "only one letter is allowed"
