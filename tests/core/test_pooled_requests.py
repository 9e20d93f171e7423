"""Requests that are answered with numbers, in the core over the fake executor."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import pytest

from octavo.executor.fake import FULL, expected_tokens, sliding
from octavo.messages.pooling import PoolingParams
from octavo.messages.request import EngineRequest
from octavo.messages.result import FinishReason


def pooled(request_for: Callable[..., EngineRequest], name: str, prompt: list[int], **fields: Any) -> Any:
    import msgspec

    plain = request_for(name, prompt, 1)
    return msgspec.structs.replace(plain, max_tokens=0, pooling=PoolingParams(task="embed"), **fields)


@pytest.mark.parametrize("layers", [(FULL,), (sliding(5), sliding(5)), ()])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"budget": 8}, {"seqs": 1}, {"caching": False}])
def test_it_ends_with_its_prompt(
    bench: Any, request_for: Any, layers: Any, depth: int, options: dict[str, Any]
) -> None:
    """Without layers, where nothing is kept, whole prompts fit: the fake reads nothing back then."""
    b = bench(layers=layers, depth=depth, **options)
    prompts = {"a": [1, 2, 3, 4, 5], "b": [6], "c": list(range(10, 17)), "d": [1, 2, 3, 4, 9, 9]}
    for name, prompt in prompts.items():
        b.core.add(pooled(request_for, name, prompt))
    b.run()
    for name, prompt in prompts.items():
        last = b.last[name]
        assert b.tokens[name] == [] and last.finish_reason is FinishReason.LENGTH
        assert last.numbers is not None and last.numbers.shape == [1]
        if layers:
            [wanted] = expected_tokens(prompt, 1, key=5, vocab_size=1000, layers=layers)
            assert array("f", last.numbers.data).tolist() == [float(wanted)]
    stats = b.core.stats()
    assert (stats.prompt_tokens, stats.generation_tokens) == (sum(map(len, prompts.values())), 0)
    assert stats.num_free_blocks == stats.num_blocks and b.executor.num_rows == 0


def test_who_needs_every_state_takes_nothing_from_the_cache(bench: Any, request_for: Any) -> None:
    b = bench()
    prompt = list(range(20))
    for name, reads in (("first", True), ("hit", True), ("whole", False)):
        b.core.add(pooled(request_for, name, prompt, reads_prefix_cache=reads))
        b.run()
    assert b.last["hit"].num_cached_tokens > 0
    assert b.last["whole"].num_cached_tokens == b.last["first"].num_cached_tokens == 0
    assert b.last["whole"].numbers == b.last["hit"].numbers == b.last["first"].numbers


def test_it_may_fill_the_context_and_not_more(bench: Any, request_for: Any) -> None:
    from octavo.base.errors import RequestError

    b = bench(blocks=6)
    b.core.add(pooled(request_for, "a", [1] * b.core.max_request_tokens))
    b.run()
    assert b.last["a"].numbers is not None
    with pytest.raises(RequestError, match="at most"):
        b.core.add(pooled(request_for, "b", [1] * (b.core.max_request_tokens + 1)))
