"""Penalties on tokens that were already said: repetition, then frequency, then presence.

Repetition (Hugging Face's) counts prompt and output, or the last repeat_last_n tokens of them, and divides
positive logits, multiplies negative ones. Frequency and presence (OpenAI's) count the output only and are
subtracted. Counts are made anew from the token table each step, so preemption and reuse of rows need no
upkeep, and only entries of tokens in the history are touched: the work grows with the history, not with
the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.worker.sampling.history import History
from octavo.worker.sampling.rows import SamplingRows
from octavo.worker.upload import upload

_ROWS_AT_ONCE = 16


def apply_penalties(logits_SV: Tensor, places: list[int], history: History, settings: SamplingRows) -> None:
    """Change the logits (float32) of these places in place."""
    for start in range(0, len(places), _ROWS_AT_ONCE):
        _apply(logits_SV, places[start : start + _ROWS_AT_ONCE], history, settings)


def _apply(logits_SV: Tensor, places: list[int], history: History, settings: SamplingRows) -> None:
    place_R = upload(places, torch.int64, logits_SV.device)
    rows_R = history.rows_S[place_R]
    lengths_R1 = history.lengths_S[place_R].unsqueeze(1)
    width = int(history.lengths[places].max())
    position_L = torch.arange(width, device=logits_SV.device)
    is_known_RL = position_L < lengths_R1
    is_output_RL = is_known_RL & (position_L >= history.prompt_lengths_S[place_R].unsqueeze(1))
    tokens_RL = history.table[rows_R, :width]
    # Past the end of a row the table holds anything: its first token again does no harm.
    tokens_RL = torch.where(is_known_RL, tokens_RL, tokens_RL[:, :1]).to(torch.int64)

    counts_RV = logits_SV.new_zeros(len(places), logits_SV.shape[1])
    counts_RV.scatter_add_(1, tokens_RL, is_output_RL.float())
    counts_RL = counts_RV.gather(1, tokens_RL)
    repetition_R1, presence_R1, frequency_R1, window_R1 = settings.penalties(rows_R)
    place_R1 = place_R.unsqueeze(1)
    logits_RL = logits_SV[place_R1, tokens_RL]
    if not settings.windowed.isdisjoint(history.rows[place] for place in places):
        is_near_RL = is_known_RL & (position_L >= lengths_R1 - window_R1)
        near_RV = torch.zeros_like(counts_RV).scatter_add_(1, tokens_RL, is_near_RL.float())
        is_far_RL = near_RV.gather(1, tokens_RL) == 0
        repetition_R1 = repetition_R1.expand_as(is_far_RL).masked_fill(is_far_RL, 1.0)
    logits_RL = torch.where(logits_RL > 0, logits_RL / repetition_R1, logits_RL * repetition_R1)
    logits_RL -= frequency_R1 * counts_RL
    logits_RL -= presence_R1 * (counts_RL > 0)
    # A token said twice is written twice with the same value.
    logits_SV[place_R1, tokens_RL] = logits_RL
