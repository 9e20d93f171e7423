"""Placing on a CPU (adopt, copy) and on a device (one upload), and what is said about broken numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from octavo.layers.slot import WeightSlot
from octavo.models import load
from octavo.models.load import load_weights, place_on_cpu, place_on_device


class Tensors:
    """A checkpoint in memory."""

    format = "safetensors"
    stored_dtype = "float32"

    def __init__(self, **tensors: torch.Tensor) -> None:
        self.tensors = tensors
        self.uploads = 0

    def tensor_names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def load(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self.tensors[name].to(dtype or torch.float32)

    def upload(
        self, targets: Sequence[tuple[str, torch.Tensor]], on_progress: Callable[[int, int], None]
    ) -> None:
        self.uploads += 1
        for done, (name, target) in enumerate(targets, 1):
            target.copy_(self.tensors[name])
            on_progress(done * 10**9, len(targets) * 10**9)


class Model:
    def __init__(self, slots: list[WeightSlot]) -> None:
        self.slots = slots

    def weight_slots(self) -> list[WeightSlot]:
        return self.slots


def slots_for(tensors: dict[str, torch.Tensor], **options: Any) -> list[WeightSlot]:
    return [
        WeightSlot(name=name, target=torch.zeros(tensor.shape, **options)) for name, tensor in tensors.items()
    ]


def test_a_device_gets_everything_in_one_upload(caplog: pytest.LogCaptureFixture) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(5)}
    slots, checkpoint = slots_for(tensors, dtype=torch.bfloat16), Tensors(**tensors)
    with caplog.at_level(logging.INFO):
        placed = place_on_device(slots, checkpoint)  # type: ignore[arg-type]
    assert checkpoint.uploads == 1
    assert [torch.equal(slot.target, tensors[slot.name].bfloat16()) for slot in slots] == [True, True]
    assert (placed.num_bytes, placed.broken) == (2 * 17, [])
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("Weights: 2.00 GB in ")


def test_a_slow_load_says_how_far_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "REPORT_EVERY_S", 0.0)
    tensors = {name: torch.zeros(1) for name in "abcd"}
    with caplog.at_level(logging.INFO):
        place_on_device(slots_for(tensors), Tensors(**tensors))  # type: ignore[arg-type]
    assert caplog.records[1].getMessage() == "Weights: 2.0 of 4.0 GB (50 %)."


@pytest.mark.parametrize("place", [place_on_cpu, place_on_device])
def test_broken_tensors_are_found(place: Callable[..., Any]) -> None:
    tensors = {"a": torch.tensor([1.0, float("nan")]), "b": torch.ones(2), "c": torch.tensor([float("-inf")])}
    assert place(slots_for(tensors), Tensors(**tensors)).broken == ["a", "c"]


def test_overflow_of_the_narrower_type_is_found_on_a_device() -> None:
    tensors = {"a": torch.tensor([70000.0])}
    placed = place_on_device(slots_for(tensors, dtype=torch.float16), Tensors(**tensors))  # type: ignore[arg-type]
    assert placed.broken == ["a"]


def test_targets_elsewhere_are_uploaded() -> None:
    """The meta device stands for any that is not the CPU; it holds no numbers to be read back."""
    tensors = {"a": torch.ones(2)}
    checkpoint = Tensors(**tensors)
    with pytest.raises((NotImplementedError, RuntimeError)):
        load_weights(Model(slots_for(tensors, device="meta")), checkpoint)  # type: ignore[arg-type]
    assert checkpoint.uploads == 1
    load_weights(Model(slots_for(tensors)), checkpoint)  # type: ignore[arg-type]
    assert checkpoint.uploads == 1
