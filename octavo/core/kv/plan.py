"""From the KV specs of a model's layers to groups, page sizes and a number of blocks.

Pure arithmetic, done once at start. Also answers how long a request may be so that it fits alone.
"""

from __future__ import annotations

from octavo.base.errors import ConfigError
from octavo.base.integers import ceil_div
from octavo.messages.kv import KVGroup, KVPlan, KVSpec


def plan_kv(
    layers: list[KVSpec], *, block_size: int, num_blocks: int | None, available_bytes: int, useful_tokens: int
) -> KVPlan:
    """Lay out the cache. Block 0 is the null block and holds nothing, so one block more is planned.

    num_blocks None takes what memory allows, but not more than `useful_tokens` can fill. Raises
    ConfigError when not even one block for each group fits.
    """
    if not layers:
        # A model that keeps nothing. Admission asks for a free block, which nobody takes here.
        return KVPlan(block_size=block_size, num_blocks=2, groups=[], page_bytes=0)
    page_bytes = _page_bytes(layers, block_size)
    groups = _group_layers(layers)
    block_bytes = page_bytes * max(len(group.layers) for group in groups)
    fewest = 1 + len(groups)
    if num_blocks is None:
        useful = 1 + len(groups) * ceil_div(useful_tokens, block_size)
        num_blocks = min(available_bytes // block_bytes, max(useful, fewest))
        if num_blocks < fewest:
            raise ConfigError(
                f"The KV cache may take {available_bytes} bytes; it needs at least {fewest} blocks "
                f"of {block_bytes} bytes. Free memory, raise kv_cache_memory_bytes or memory_utilization, or "
                "lower max_num_seqs or max_num_batched_tokens: steps take memory beside it.",
                param="kv_cache_memory_bytes",
            )
    elif num_blocks < fewest:
        raise ConfigError(
            f"num_blocks is {num_blocks}; this model needs at least {fewest} (one is never handed out).",
            param="num_blocks",
        )
    return KVPlan(block_size=block_size, num_blocks=num_blocks, groups=groups, page_bytes=page_bytes)


def max_request_tokens(plan: KVPlan, *, max_model_len: int, max_step_tokens: int | None) -> int:
    """The most tokens one request can hold when it has the cache to itself.

    max_step_tokens: the most tokens of one request in one step (None: a whole prompt). A sliding
    window keeps, beside its window, what one step writes.
    """
    usable = plan.num_blocks - 1
    low, high = 0, max_model_len
    while low < high:
        middle = (low + high + 1) // 2
        if _blocks_for(plan, middle, max_step_tokens) <= usable:
            low = middle
        else:
            high = middle - 1
    return low


def _blocks_for(plan: KVPlan, num_tokens: int, max_step_tokens: int | None) -> int:
    """Upper bound of the blocks that one request of `num_tokens` ever holds at once."""
    whole = ceil_div(num_tokens, plan.block_size)
    total = 0
    for group in plan.groups:
        window = group.spec.window
        if window is None or max_step_tokens is None:
            total += whole
        else:
            total += min(whole, ceil_div(window - 1 + max_step_tokens, plan.block_size) + 1)
    return total


def _page_bytes(layers: list[KVSpec], block_size: int) -> int:
    sizes = sorted({spec.bytes_per_token for spec in layers})
    if len(sizes) > 1:
        raise ConfigError(
            f"Attention layers keep {sizes[0]} to {sizes[-1]} bytes per token; all layers must keep "
            "equally many to share one pool of blocks. This model is not supported yet."
        )
    return sizes[0] * block_size


def _group_layers(layers: list[KVSpec]) -> list[KVGroup]:
    """Equal specs together; several specs are cut into groups of equal length so that pages line up.

    The length is that of the rarest spec: 22 sliding and 4 full layers become groups of 4, 4, 4, 4, 4,
    2 and 4, and a block of any of them takes one page in each of 4 tensors.
    """
    by_spec: dict[KVSpec, list[int]] = {}
    for index, spec in enumerate(layers):
        by_spec.setdefault(spec, []).append(index)
    size = min(len(indices) for indices in by_spec.values())
    return [
        KVGroup(spec=spec, layers=indices[start : start + size])
        for spec, indices in by_spec.items()
        for start in range(0, len(indices), size)
    ]
