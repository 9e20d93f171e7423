"""StepView: all that an attention backend gets to know about a step. T tokens, S sequences, R rows, M blocks.

Numbers and lists live on the host, tensors on the device; nothing has to be read back to plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class HostView:
    """What the host knows of a step's sequences. Shared by all KV groups."""

    query_starts: list[int]
    """S + 1 offsets into the step's tokens."""
    lengths: list[int]
    """Tokens of each sequence, this step's included."""
    num_paged: int
    """Sequences before the long prompts."""


@dataclass(frozen=True, kw_only=True)
class StepView:
    """One step for the layers of one KV group. No field is optional.

    Sequences that compute a single token come first, shortest first, so that backends can serve runs
    of them together: their index is their token's. Chunks follow, and last of all the long prompts, if
    the backend wants them apart: long chunks with nothing before them, whose keys are all at hand.
    """

    host: HostView | None
    """None while a graph is captured: what its replays bring is not known yet."""
    num_tokens: int
    num_seqs: int
    num_singles: int
    """The step's own numbers, or while a graph is captured the most that a replay may bring."""
    has_chunks: bool
    """Whether there are (or may be) sequences that are no singles."""
    shares_prefix: bool
    """All sequences are singles and begin with the same blocks."""
    counts: torch.Tensor
    """int32: the true numbers of singles, paged sequences, tokens, blocks that all share, and sequences."""
    rows_S: torch.Tensor
    starts_S1: torch.Tensor
    lengths_S: torch.Tensor
    positions_T: torch.Tensor
    slots_T: torch.Tensor
    """Where each token's key and value go: block * block_size + offset; negative: nowhere."""
    table_RM: torch.Tensor
    """Block table of every row. Entries past a sequence's end, or before its window, are not valid."""
