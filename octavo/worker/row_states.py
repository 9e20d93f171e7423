"""RowStates: what recurrent layers remember of each row.

A row that changes hands is not cleared: ops start from zero at a sequence's first token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from octavo.base.errors import ConfigError
from octavo.layers.placement import Placement
from octavo.layers.recurrent import RecurrentStep
from octavo.messages.kv import StatePart, StateSpec
from octavo.ops.step import SEQUENCES
from octavo.ops.step_rows import StepRows
from octavo.worker.memory import free_device_bytes, gib


def row_state_bytes(specs: Sequence[StateSpec], num_rows: int) -> int:
    """What RowStates of these sizes take on the device."""
    return num_rows * sum(spec.bytes_per_row for spec in specs)


class RowStates:
    """Not initialised: on a CPU memory is only reserved, and taken as rows come into use."""

    def __init__(self, specs: Sequence[StateSpec], *, num_rows: int, placement: Placement) -> None:
        def make(part: StatePart) -> torch.Tensor:
            dtype = torch.float32 if part.dtype_bytes == 4 else placement.dtype
            assert dtype.itemsize == part.dtype_bytes, "a state is float32 or in the model's type"
            return torch.empty(num_rows, *part.shape, dtype=dtype, device=placement.device)

        self.by_layer = [[make(part) for part in spec.parts] for spec in specs]


def check_states_fit(specs: Sequence[StateSpec], num_rows: int, device: torch.device) -> None:
    """Raise ConfigError, with how many would fit, before a GPU is asked for more than it has."""
    if device.type == "cpu" or not specs:
        return
    each, free = row_state_bytes(specs, 1), free_device_bytes(device)
    if num_rows * each > free:
        raise ConfigError(
            f"The recurrent state of {num_rows} requests takes {gib(num_rows * each)}, but {gib(free)} are "
            f"free on the GPU beside the weights. Lower max_num_seqs, to {free // each} at the most.",
            param="max_num_seqs",
        )


def one_long_sequence(specs: Sequence[StateSpec], num_tokens: int, placement: Placement) -> RecurrentStep:
    """A step of one prompt, to measure with."""

    def ints(*values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=placement.device)

    counts = torch.zeros(8, dtype=torch.int32, device=placement.device)
    counts[SEQUENCES] = 1
    rows = StepRows(
        rows_S=ints(0),
        starts_S1=ints(0, num_tokens),
        lengths_S=ints(num_tokens),
        counts=counts,
        num_seqs=1,
        num_singles=0,
        has_chunks=True,
    )
    return RecurrentStep(rows=rows, states=RowStates(specs, num_rows=1, placement=placement).by_layer)
