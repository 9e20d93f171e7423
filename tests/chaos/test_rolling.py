"""The short form of `make rolling`."""

from __future__ import annotations

import json
from functools import partial

from tests.chaos import rolling
from tests.chaos.shards import run_shares


def test_a_server_takes_over_under_load_and_no_request_fails() -> None:
    work = partial(rolling.run_share, is_real=False)
    result = rolling.judged(run_shares(work, amount=2, servers=1, seed=7, max_seconds=600))
    assert result["passed"], json.dumps(result)
    assert result["restarts"] == 2
