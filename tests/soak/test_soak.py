"""The short form of `make soak`: seconds of mixed traffic, and how growing memory is judged."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tests.soak.soak import Result, growth, soak


async def test_mixed_traffic_leaves_nothing_behind(tmp_path: Path) -> None:
    result = await soak(12, clients=3, seed=3, round_s=4, folder=tmp_path)
    told = json.dumps(asdict(result))
    assert not result.wrong and not result.leaked and not result.restarts, told
    assert result.exit_status == 0 and result.requests > 20 and len(result.kinds) > 5, told
    assert len(result.server_mb) == len(result.core_mb) == result.rounds > 0, told


def test_growth_is_seen_and_warming_up_is_not() -> None:
    assert growth([10, 50, 100, *[100.0] * 20]) == 0
    assert growth([100 + step for step in range(40)]) > 15
    assert growth([*[100.0] * 20, 900.0, *[100.0] * 20]) == 0
    leaking = Result(seed=1, requests=9, prefix_hits=1, exit_status=0)
    leaking.server_mb, leaking.core_mb = [100.0 + 5 * step for step in range(30)], [200.0] * 30
    leaking.judge()
    assert not leaking.passed
    leaking.server_mb = [100.0] * 30
    leaking.judge()
    assert leaking.passed
