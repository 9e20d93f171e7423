"""Fixtures of the benchmark harness's tests."""

from __future__ import annotations

import pytest

from benchmarks.gpu import workloads
from benchmarks.gpu.shapes import SHAPES, Shape
from tests.gpu_bench.tiny_shape import TINY, TINY_LENGTHS


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Shape:
    """The shape `tiny`, known by name, and the workloads cut down."""
    monkeypatch.setitem(SHAPES, TINY.name, TINY)
    monkeypatch.setattr(workloads, "lengths", TINY_LENGTHS.__getitem__)
    return TINY
