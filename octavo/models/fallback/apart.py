"""A check with real numbers: tokens of a step meet in attention and nowhere else.

Paged batches put tokens of many texts, and parts of texts, into one row. That is right only if everything
but attention computes a token from itself and its position alone. So attention is replaced by one that looks
at each token's own query, key and value; the tokens must then give the same numbers in any order. What
does not (convolutions, recurrent states, positions counted along the row) is refused.

T tokens, V vocabulary, O = (H + 2 K) * D for H query heads and K KV heads of width D.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from octavo.attention.contract import AttentionLayer
from octavo.base.errors import ModelFileError

ORDER = (2, 0, 3, 1)
POSITIONS = (0, 1, 4, 9)
TOLERANCE = 1e-3
HALF_TOLERANCE = 0.1
"""Of the largest number: what rounding to half precision may do in all layers together."""

Compute = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(token ids [T], positions [T]) -> logits [T, V], computed with `own_attention`."""


def check_tokens_stay_apart(
    name: str, compute: Compute, *, vocab_size: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Raise ModelFileError if a token's logits depend on the order of the tokens in a step."""
    generator = torch.Generator().manual_seed(1)
    ids_T = torch.randint(vocab_size, (len(ORDER),), generator=generator).to(device)
    positions_T, order_T = torch.tensor(POSITIONS, device=device), torch.tensor(ORDER, device=device)
    try:
        in_order_TV = compute(ids_T, positions_T).float()
        mixed_TV = compute(ids_T[order_T], positions_T[order_T]).float()
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelFileError(
            f"transformers' {name} cannot run on paged attention: its forward fails ({str(error)[:300]})."
        ) from error
    tolerance = TOLERANCE if dtype == torch.float32 else HALF_TOLERANCE
    difference = (mixed_TV - in_order_TV[order_T]).abs().max()
    if difference > tolerance * in_order_TV.abs().max():
        raise ModelFileError(
            f"transformers' {name} cannot run on paged attention: its tokens meet outside of attention too, "
            "or it counts positions along the batch."
        )


def own_attention(layer: AttentionLayer, qkv_TO: torch.Tensor) -> torch.Tensor:
    """[T, H * D]: each token's query, key and value added up; any rotation of them shows."""
    heads, kv_heads = layer.num_heads, layer.num_kv_heads
    heads_THD = qkv_TO.view(len(qkv_TO), -1, layer.head_dim)
    q_THD, k_TKD, v_TKD = torch.split(heads_THD, [heads, kv_heads, kv_heads], 1)
    return (q_THD + (k_TKD + v_TKD).repeat_interleave(heads // kv_heads, 1)).flatten(1)
