"""Orders of rows in which checkpoints depart from ours: `WeightSlot.order_R`. D head width."""

from __future__ import annotations

import torch


def halves_of_pairs(num_rows: int, head_dim: int, rotated: int) -> torch.Tensor:
    """For queries or keys whose rotated pairs are neighbours; ours are half the rotated width apart.

    Scores are the same. `rotated` is how many values of a head are rotated.
    """
    row_D = torch.arange(head_dim)
    order_D = torch.cat((row_D[:rotated:2], row_D[1:rotated:2], row_D[rotated:]))
    return (torch.arange(0, num_rows, head_dim)[:, None] + order_D).flatten()


def queries_keys_values(num_heads: int, num_kv_heads: int, head_dim: int) -> torch.Tensor:
    """For matrices that hold, KV head by KV head, its queries, its key and its value; ours come by kind."""
    queries = num_heads // num_kv_heads
    rows = torch.arange((num_heads + 2 * num_kv_heads) * head_dim).view(num_kv_heads, queries + 2, head_dim)
    return torch.cat((rows[:, :queries].flatten(), rows[:, queries].flatten(), rows[:, -1].flatten()))
