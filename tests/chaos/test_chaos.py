"""The short form of `make chaos`."""

from __future__ import annotations

import json

import pytest

from tests.chaos import chaos
from tests.chaos.shards import run_shares


def test_kills_and_stops_under_load_cost_nobody_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "draw_faults", lambda _amount, _rng: ["kill", "fill_disk", "stop"])
    parts = run_shares(chaos.run_share, amount=1, servers=1, seed=7, max_seconds=600)
    result = chaos.judged(parts)
    assert result["is_right"], json.dumps(result)
    assert result["faults"] == {"kill": 1, "stop": 1, "kill_twice": 0, "kill_server": 0, "fill_disk": 1}
