"""Which device an engine takes when nobody says."""

from __future__ import annotations

import pytest

from octavo.base.gpus import GPU
from octavo.config import facts
from octavo.config.facts import local_device

H100 = GPU(name="H100", memory_bytes=80 << 30, capability=(9, 0), multiprocessors=132)
T4 = GPU(name="T4", memory_bytes=16 << 30, capability=(7, 5), multiprocessors=40)


def with_machine(monkeypatch: pytest.MonkeyPatch, gpus: tuple[GPU, ...], torch: str) -> None:
    monkeypatch.setattr(facts, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(facts.metadata, "version", lambda package: torch)


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_machine(monkeypatch, (), "2.11.0")
    assert (local_device().kind, local_device().why) == ("cpu", "no GPU was found")


def test_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with_machine(monkeypatch, (T4, H100), "2.11.0")
    assert (local_device().kind, local_device().name, local_device().has_fast_bfloat16) == (
        "cuda",
        "T4",
        False,
    )
    with_machine(monkeypatch, (H100,), "2.11.0+cu130")
    assert local_device().has_fast_bfloat16


def test_a_gpu_that_torch_was_not_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with_machine(monkeypatch, (H100,), "2.13.0+cpu")
    assert local_device().kind == "cpu"
    assert local_device().why == "the H100 needs a torch built for CUDA; this one is not"
