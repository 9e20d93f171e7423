"""The short form of `make disconnects`."""

from __future__ import annotations

import json
from functools import partial

from tests.chaos import disconnects
from tests.chaos.shards import run_shares


def test_clients_that_leave_leave_nothing_behind() -> None:
    work = partial(disconnects.run_share, model=None)
    result = disconnects.judged(run_shares(work, amount=300, servers=1, seed=7, max_seconds=600))
    assert result["is_right"], json.dumps(result)
    assert result["left_share"] > 0.2 and len(result["left"]) == len(disconnects.MOMENTS)
