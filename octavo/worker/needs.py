"""Needs: what a worker takes on its device beside the weights and the KV cache, in bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from octavo.base.integers import ceil_div
from octavo.layers.placement import Placement
from octavo.models.contract import Backbone
from octavo.worker.graph_sizes import graph_sizes
from octavo.worker.held_model import HeldModel
from octavo.worker.memory import estimated_graph_bytes
from octavo.worker.profile import step_peak_bytes
from octavo.worker.purpose import Purpose
from octavo.worker.row_states import check_states_fit, row_state_bytes
from octavo.worker.rows import row_memory_bytes


@dataclass(frozen=True, kw_only=True)
class Needs:
    step: int
    """The largest step's tensors."""
    rows: int
    states: int
    """Of recurrent layers, for all rows."""
    graphs: int
    """Captured later; 0 if none are."""


def needs_of(
    held: HeldModel,
    purpose: Purpose,
    placement: Placement,
    *,
    max_model_len: int,
    max_seqs: int,
    max_tokens: int,
    block_size: int,
    captures_graphs: bool,
) -> Needs:
    """Asked once the weights are in place. Raises ConfigError if the states of so many rows do not fit."""
    step = step_peak_bytes(held.model, purpose, placement, max_tokens=max_tokens, max_seqs=max_seqs)
    check_states_fit(held.recurrent_layers, max_seqs, placement.device)
    return Needs(
        step=step,
        rows=row_memory_bytes(
            num_rows=max_seqs,
            max_model_len=max_model_len,
            block_size=block_size,
            num_groups=_num_groups(held.model),
        ),
        states=row_state_bytes(held.recurrent_layers, max_seqs),
        graphs=_graph_bytes(held, graph_sizes(max_seqs, max_tokens), placement) if captures_graphs else 0,
    )


def _num_groups(model: Backbone) -> int:
    """As the core will group layers: by the rarest kind's number of them."""
    counts = Counter(model.kv_layers()).values()
    return sum(ceil_div(count, min(counts)) for count in counts)


def _graph_bytes(held: HeldModel, sizes: list[int], placement: Placement) -> int:
    return estimated_graph_bytes(
        num_graphs=len(sizes),
        num_layers=len(held.kv_layers) + len(held.recurrent_layers),
        largest_tokens=max(sizes),
        hidden_size=held.model.hidden_size,
        dtype_bytes=placement.dtype.itemsize,
    )
