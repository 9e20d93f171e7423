"""Which of the many runs are for `make test-long` only."""

from __future__ import annotations

import pytest

from tests.conformance.families import ALIKE, VARIANTS

HARDEST = "preempting, chunked, no prefix cache"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Families that differ in their numbers alone are run in one mode, their variants in none."""
    for item in items:
        case = getattr(item, "callspec", None)
        if case is None:
            continue
        model, mode = case.params.get("model"), case.params.get("mode")
        if model in VARIANTS or (model in ALIKE and mode != HARDEST):
            item.add_marker(pytest.mark.slow)
