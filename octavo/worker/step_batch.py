"""StepBatch: one step as the host sees it, put in order. Plain lists; nothing on the device. Hot path.

Sequences stand in the StepView's order: single tokens (shortest sequence first), chunks, long prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from octavo.attention.step_view import HostView
from octavo.messages.step import SchedulerOutput
from octavo.worker.graph_sizes import SHARING_SEQS
from octavo.worker.rows import TokenRows

SHARING_TOKENS = 256
"""From so many common tokens (and SHARING_SEQS sequences) on attention reads them once for all."""

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """Lists are parallel, one entry per sequence, unless they say otherwise."""

    rows: list[int]
    num_tokens: list[int]
    first_positions: list[int]
    view: HostView
    num_singles: int
    num_shared_blocks: int
    """Blocks that all sequences begin with, if all are singles and sharing pays; else 0."""
    sampling: list[int]
    """Indices of sequences whose last known token is in this step: each gets one more."""
    sample_rows: list[int]
    """Their rows."""

    @property
    def query_starts(self) -> list[int]:
        return self.view.query_starts

    @property
    def total_tokens(self) -> int:
        return self.view.query_starts[-1]

    @property
    def samples_everywhere(self) -> bool:
        """Every token of the step is a last one, in order."""
        return len(self.sampling) == self.total_tokens


def order_step(rows: TokenRows, step: SchedulerOutput, long_prompt: int | None) -> StepBatch:
    """The step, whose changes `rows` has taken in. Whole prompts from `long_prompt` tokens on come last."""
    row_S = np.array(step.rows, dtype=np.int32)
    count_S = np.array(step.num_tokens, dtype=np.int32)
    first_S = rows.num_computed[row_S]
    kind_S = (count_S > 1).astype(np.int32)
    if long_prompt is not None:
        kind_S += (first_S == 0) & (count_S >= long_prompt)
    order = np.lexsort((first_S + count_S, kind_S))
    row_S, count_S, first_S, kind_S = row_S[order], count_S[order], first_S[order], kind_S[order]
    end_S = first_S + count_S
    known_S = rows.num_known[row_S]
    assert (end_S <= known_S).all(), "a step computes known tokens only"
    num_singles = int(np.count_nonzero(kind_S == 0))
    sampling_R = np.flatnonzero(end_S == known_S)
    return StepBatch(
        rows=row_S.tolist(),
        num_tokens=count_S.tolist(),
        first_positions=first_S.tolist(),
        view=HostView(
            query_starts=[0, *np.cumsum(count_S).tolist()],
            lengths=end_S.tolist(),
            num_paged=int(np.count_nonzero(kind_S < 2)),
        ),
        num_singles=num_singles,
        num_shared_blocks=_shared_blocks(rows, row_S, end_S) if num_singles == len(row_S) else 0,
        sampling=sampling_R.tolist(),
        sample_rows=row_S[sampling_R].tolist(),
    )


def _shared_blocks(rows: TokenRows, row_S: IntArray, end_S: IntArray) -> int:
    """How many blocks all these sequences begin with; 0 where reading them once for all does not pay.

    Most steps end at the first comparison. Lengths are ascending, so the first sequence bounds the rest.
    """
    if len(row_S) < SHARING_SEQS or len(rows.host_tables) != 1:
        return 0
    table_RM = rows.host_tables[0]
    most = (int(end_S[0]) - 1) // rows.block_size
    found, step = 0, 1
    while found < most:
        end = min(found + step, most)
        columns_SN = table_RM[row_S, found:end]
        is_same_N = (columns_SN == columns_SN[0]).all(0)
        if not is_same_N.all():
            found += int(is_same_N.argmin())
            break
        found, step = end, 2 * step
    return found if found * rows.block_size >= SHARING_TOKENS else 0
