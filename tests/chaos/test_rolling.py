"""The short form of `make rolling`."""

from __future__ import annotations

import json

from tests.chaos import rolling
from tests.chaos.shards import run_shares


def test_a_server_takes_over_under_load_and_no_request_fails() -> None:
    result = rolling.judged(run_shares(rolling.run_share, amount=1, servers=1, seed=7, max_seconds=600))
    assert result["passed"], json.dumps(result)
    assert result["restarts"] == 1
