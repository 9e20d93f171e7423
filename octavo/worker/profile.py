"""How much memory the largest step takes beside weights and cache: measured on a GPU, estimated on a CPU."""

from __future__ import annotations

import torch

from octavo.attention.contract import AttentionLayer
from octavo.layers.placement import Placement
from octavo.models.contract import Backbone, ModelInput, recurrent_layers
from octavo.worker.memory import estimated_step_bytes
from octavo.worker.purpose import Purpose
from octavo.worker.row_states import one_long_sequence


def step_peak_bytes(
    model: Backbone, purpose: Purpose, placement: Placement, *, max_tokens: int, max_seqs: int
) -> int:
    """Bytes that one step of so many tokens and sequences needs at its peak."""
    if placement.device.type != "cpu":
        return _measure(model, purpose, placement, max_tokens, max_seqs)
    return estimated_step_bytes(
        num_tokens=max_tokens,
        num_seqs=max_seqs,
        hidden_size=model.hidden_size,
        vocab_size=purpose.num_logits,
        dtype_bytes=4,
    )


@torch.inference_mode()
def _measure(model: Backbone, purpose: Purpose, placement: Placement, max_tokens: int, max_seqs: int) -> int:
    """Runs the largest step on zeros, without the buffers that attention's backends set aside once.

    Float32 copies of logits are added as the sampler may make them. The run also loads the libraries, whose
    memory is gone from what is free then.
    """
    device = placement.device
    zeros_T = torch.zeros(max_tokens, dtype=torch.int32, device=device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    recur = one_long_sequence(recurrent_layers(model), max_tokens, placement)
    hidden_TE = model.forward(
        ModelInput(token_ids_T=zeros_T, positions_T=zeros_T, attend=_no_attention, recur=recur)
    )
    logits_RV = purpose.logits(hidden_TE[:max_seqs])
    copies = 2 * max_seqs * purpose.num_logits * 4
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    del hidden_TE, logits_RV, zeros_T, recur
    torch.cuda.empty_cache()
    return peak + copies


def _no_attention(layer: AttentionLayer, qkv_TO: torch.Tensor) -> torch.Tensor:
    work_TO = qkv_TO.new_empty(len(qkv_TO), layer.work_width)
    out_TO = qkv_TO.new_zeros(len(qkv_TO), layer.out_width)
    del work_TO  # not earlier: attention holds both at once
    return out_TO
