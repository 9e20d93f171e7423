"""EngineCore.sleep: only without requests and steps in flight; nothing is believed to be cached after."""

from __future__ import annotations

import pytest

from octavo.base.errors import EngineError
from octavo.executor.fake import expected_tokens
from octavo.messages.request import PrefixPin


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("has_pin", [False, True])
def test_awake_again_everything_is_computed_anew(bench, request_for, depth: int, has_pin: bool) -> None:
    b = bench(depth=depth)
    pins = {"pins": [PrefixPin(num_tokens=8, ttl_s=300.0)]} if has_pin else {}
    b.core.add(request_for("first", range(9), 6, **pins))
    while "first" not in b.last or b.last["first"].finish_reason is None:
        b.step()
    b.core.sleep(1)
    assert not b.core.has_work()
    stats = b.core.stats()
    assert stats.num_cached_blocks == 0 and stats.kv_usage == 0.0
    assert b.executor.num_rows == 0
    b.core.wake_up()
    b.core.check()
    b.core.add(request_for("again", range(9), 6))
    b.run()
    assert b.last["again"].num_cached_tokens == 0
    assert b.tokens["again"] == b.tokens["first"] == expected_tokens(range(9), 6, key=5, vocab_size=1000)


def test_not_while_requests_run(bench, request_for) -> None:
    b = bench()
    b.core.add(request_for("a", [1, 2], 4))
    b.step()
    with pytest.raises(EngineError, match="1 requests still run"):
        b.core.sleep(1)
    b.run()
    assert len(b.tokens["a"]) == 4
