"""SchedulerOutput: one step's decision, sent to every worker. Only changes travel.

A worker keeps one row per running request: its known tokens, block tables, sampling state and the
count of computed tokens. Each step the worker (1) clears `ended_rows`, (2) fills `new_rows`,
(3) appends `new_blocks`, (4) computes `num_tokens[i]` tokens of row `rows[i]`, starting at that row's
computed count, and advances the count. When the step reaches a row's last known token, the worker
samples one token, appends it to the row itself, and reports it: the next step may already run on it.
Where no step overlaps, it may append tokens behind it that can only follow, and reports those too.
A row that fails, or that answers with numbers instead of tokens, takes a placeholder token instead, so that
all counts follow from this protocol alone.
Ending a row that holds nothing is harmless: after a lost step the core says it again.
"""

from __future__ import annotations

import msgspec

from octavo.messages.params import SamplingParams
from octavo.messages.pooling import PoolingParams
from octavo.messages.prompt_vectors import PromptVectors


class NewRow(msgspec.Struct, frozen=True, kw_only=True):
    """A request enters (or, after preemption, re-enters) the workers.

    token_ids: all tokens known so far, prompt then output. num_computed_tokens of them already have
    their KV in `block_ids` (prefix-cache hit). block_ids[g]: block table of group g.
    """

    row: int
    request_id: str
    token_ids: list[int]
    num_prompt_tokens: int
    num_computed_tokens: int
    block_ids: list[list[int]]
    params: SamplingParams
    random_key: int
    eos_token_ids: list[int]
    """For min_tokens: these and stop_token_ids are masked until then."""
    prompt_vectors: PromptVectors | None = None
    """What the model reads instead of the prompt's tokens, which are placeholders then."""
    pooling: PoolingParams | None = None
    """What the row answers with, instead of tokens."""


class SchedulerOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What every worker does in one step. rows, num_tokens and new_blocks are parallel."""

    step: int
    ended_rows: list[int]
    new_rows: list[NewRow]
    rows: list[int]
    num_tokens: list[int]
    new_blocks: list[list[list[int]]]
    """new_blocks[i][g]: block ids appended to group g's table of rows[i] (empty for new rows)."""
