"""Kernels are interpreted here."""

from __future__ import annotations

import pytest

from tests.interpreted_triton import mend_interpreter


@pytest.fixture(scope="session", autouse=True)
def _mended_interpreter() -> None:
    mend_interpreter()
