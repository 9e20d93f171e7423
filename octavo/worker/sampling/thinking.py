"""Thinking budgets: where a piece of reasoning has used up its tokens, the tokens that end it are forced.

Nothing is counted from step to step: the output in the token table says where reasoning began, whether
it ended, and how much of a forced end has been written already. So this holds with steps in flight, after
preemption, and in any batch. A row is looked at only once its output is as long as its budget.

S rows of the step, R rows looked at, L tokens of output, K tokens of a mark.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.messages.params import SamplingParams
from octavo.messages.samplers import ThinkingBudget
from octavo.worker.sampling.history import History
from octavo.worker.upload import upload

_ANY, _NOTHING = -1, -2
"""Fill marks up to equal length, and outputs."""
_NOWHERE = 2**40
"""Further on than any token."""


class ThinkingBudgets:
    """Budgets by row."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rows: dict[int, ThinkingBudget] = {}

    def add_row(self, row: int, params: SamplingParams) -> None:
        if params.thinking_budget is not None:
            self._rows[row] = params.thinking_budget

    def remove_row(self, row: int) -> None:
        self._rows.pop(row, None)

    def places(self, history: History) -> list[int]:
        """Places whose budget may be used up by now."""
        if not self._rows:
            return []
        lengths = (history.lengths - history.prompt_lengths).tolist()
        return [
            place
            for place, row in enumerate(history.rows)
            if row in self._rows and lengths[place] >= self._rows[row].budget
        ]

    def apply(self, logits_SV: Tensor, places: list[int], history: History) -> None:
        """Change the logits of these places in place: where an end is due, no other token is possible."""
        if not places:
            return
        budgets = [self._rows[history.rows[place]] for place in places]
        place_R = upload(places, torch.int64, self._device)
        output_RL = _outputs(place_R, places, history)
        end_RK = _marks([budget.end_token_ids for budget in budgets], self._device)
        step_R = _used(output_RL, history.num_outputs_S[place_R], budgets, end_RK) - upload(
            [budget.budget for budget in budgets], torch.int64, self._device
        )
        is_due_R1 = (step_R >= 0).unsqueeze(1)
        first_R = (end_RK == _ANY).sum(-1)
        token_R1 = end_RK.gather(
            1, (first_R + step_R.clamp(min=0)).clamp_(max=end_RK.shape[1] - 1).unsqueeze(1)
        )
        logits_RV = logits_SV[place_R].masked_fill(is_due_R1, -torch.inf)
        forced_R1 = logits_RV.gather(1, token_R1).masked_fill_(is_due_R1, 0.0)
        logits_SV[place_R] = logits_RV.scatter(1, token_R1, forced_R1)


def _used(output_RL: Tensor, length_R: Tensor, budgets: Sequence[ThinkingBudget], end_RK: Tensor) -> Tensor:
    """Tokens since the open piece of reasoning began, int64 [R]; less than any budget where none is open."""
    device, width = output_RL.device, output_RL.shape[1]
    behind_L = torch.arange(1, width + 1, device=device)
    ended_R1 = (_ends_here(output_RL, end_RK) * behind_L).amax(-1, keepdim=True)
    start_RK = _marks([budget.start_token_ids for budget in budgets], device)
    is_start_RL = _ends_here(output_RL, start_RK) & (behind_L > ended_R1)
    began_R = behind_L.expand_as(is_start_RL).masked_fill(~is_start_RL, _NOWHERE).amin(-1)
    is_open_R = upload([budget.is_open for budget in budgets], torch.bool, device)
    began_R.masked_fill_(is_open_R & (ended_R1.squeeze(1) == 0), 0)
    return length_R - began_R


def _outputs(place_R: Tensor, places: list[int], history: History) -> Tensor:
    """Outputs from their first token on, int64 [R, L], filled up with what no mark holds."""
    width = max(1, int((history.lengths - history.prompt_lengths)[places].max()))
    place_R1 = place_R.unsqueeze(1)
    offset_L = torch.arange(width, device=place_R.device)
    is_known_RL = offset_L < history.num_outputs_S[place_R1]
    position_RL = (history.prompt_lengths_S[place_R1] + offset_L).masked_fill_(~is_known_RL, 0)
    tokens_RL = history.table[history.rows_S[place_R1], position_RL].to(torch.int64)
    return tokens_RL.masked_fill_(~is_known_RL, _NOTHING)


def _ends_here(output_RL: Tensor, mark_RK: Tensor) -> Tensor:
    """Whether a mark is complete with each token, bool [R, L]. Never where it is empty."""
    count = mark_RK.shape[1]
    padded_RP = torch.nn.functional.pad(output_RL, (count - 1, 0), value=_NOTHING)
    views_RLK = padded_RP.unfold(1, count, 1)
    mark_R1K = mark_RK.unsqueeze(1)
    is_met_RL = ((views_RLK == mark_R1K) | (mark_R1K == _ANY)).all(-1)
    return is_met_RL & (mark_RK != _ANY).any(-1, keepdim=True)


def _marks(marks: Sequence[list[int]], device: torch.device) -> Tensor:
    """Of equal length, int64 [R, K]: shorter ones filled up in front."""
    width = max(1, *(len(mark) for mark in marks))
    return upload([[_ANY] * (width - len(mark)) + mark for mark in marks], torch.int64, device)
