"""Attention over paged KV in plain torch, planned for CPUs. Hot path: `plan` per step, `run` per layer.

Sequences that compute one token are served in batches of similar length: their keys and values are
gathered row by row into one padded array, and the query heads that share a KV head ride in the place
of query positions, so nothing is repeated. Longer chunks are served one by one.

Pages hold garbage until written, and 0 * NaN is NaN, so masking is not enough: padding reads the
sequence's own last token again, and nothing past its end or before its window is touched.

T tokens, H query heads, K KV heads, G = H / K, D head width, B sequences of a batch, L keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from octavo.attention.contract import AttentionLayer, Capability, PageLayout, Pages, StepLimits, StepPlan
from octavo.attention.heads import Heads
from octavo.attention.score_terms import Positions, attend_with_terms
from octavo.attention.step_view import HostView, StepView
from octavo.base.integers import ceil_div
from octavo.ops.paged_plain import AttentionTerms

SHORT = 64
"""Sequences up to this long share a batch whatever their lengths."""
GATHERED_BYTES = 4 << 20
"""Keys and values gathered at a time: they are read again before they leave the processor's cache.

32 sequences of 512 tokens, 3 KV heads of 64, float32, ms per layer on two cores: all at once 12.7,
6 MB at a time 3.6, 3 MB 3.1, 0.8 MB 4.9.
"""


class CpuAttention:
    """The backend."""

    capabilities = frozenset(Capability) - {Capability.CUDA, Capability.LATENT, Capability.OTHER_KV_DTYPE}
    is_head_major = False
    turns_keys = False
    long_prompt = None

    def __init__(self, layout: PageLayout, limits: StepLimits) -> None:  # noqa: ARG002
        self.layout = layout
        self._heads = Heads(layout.device)
        row_bytes = layout.num_kv_heads * layout.head_dim * layout.dtype.itemsize
        self._most_keys = GATHERED_BYTES // ((1 if layout.value_dim else 2) * row_bytes)

    def plan(self, view: StepView) -> StepPlan:
        batches, chunks = self.plan_sequences(view)
        return CpuPlan(layout=self.layout, heads=self._heads, view=view, batches=batches, chunks=chunks)

    def plan_sequences(self, view: StepView) -> tuple[list[Batch], list[Chunk]]:
        """Which sequences are served together, and which rows they read."""
        host = view.host
        assert host is not None, "nothing is captured on a CPU"
        tables_SM = view.table_RM[view.rows_S, : ceil_div(max(host.lengths), self.layout.block_size)]
        seen = self._seen(host.lengths[: view.num_singles])
        batches = [
            self._plan_batch(view.positions_T, tables_SM, start, end, seen)
            for start, end in runs(seen, self._most_keys)
        ]
        chunks = [self._plan_chunk(host, tables_SM, i) for i in range(view.num_singles, view.num_seqs)]
        return batches, chunks

    def _seen(self, lengths: list[int]) -> list[int]:
        """How many keys the last token of a sequence sees."""
        window = self.layout.window
        return lengths if window is None else [min(length, window) for length in lengths]

    def _plan_batch(
        self, positions_T: torch.Tensor, tables_SM: torch.Tensor, start: int, end: int, seen: list[int]
    ) -> Batch:
        window = self.layout.window
        fewest, most = seen[start], seen[end - 1]
        last_B1 = positions_T[start:end, None].long()
        keys_BL = torch.arange(most, device=self.layout.device).expand(end - start, -1)
        if window is not None:
            keys_BL = keys_BL + (last_B1 - window + 1).clamp_(min=0)
        mask = None
        if fewest != most:
            # Padding comes behind, so that a key's place does not depend on the batch.
            padding_BL = keys_BL > last_B1
            keys_BL = torch.where(padding_BL, last_B1, keys_BL)
            mask = self._bias(padding_BL)[:, None, None, :]
        blocks_BL = tables_SM[start:end].gather(1, keys_BL // self.layout.block_size)
        rows = self._key_and_value_rows(blocks_BL, keys_BL)
        return Batch(start=start, end=end, rows=rows, mask=mask, keys_BL=keys_BL)

    def _plan_chunk(self, host: HostView, tables_SM: torch.Tensor, i: int) -> Chunk:
        window = self.layout.window
        start, end = host.query_starts[i], host.query_starts[i + 1]
        length = host.lengths[i]
        first = length - (end - start)
        low = 0 if window is None else max(0, first - window + 1)
        rows = None
        if first > 0:
            keys_1L = torch.arange(low, length, device=self.layout.device)[None]
            blocks_1L = tables_SM[i : i + 1].gather(1, keys_1L // self.layout.block_size)
            rows = self._key_and_value_rows(blocks_1L, keys_1L)
        is_causal = first == 0 and (window is None or length <= window)
        mask = None
        if not is_causal:
            distance_TL = torch.arange(first, length, device=self.layout.device)[:, None] - torch.arange(
                low, length, device=self.layout.device
            )
            hidden_TL = distance_TL < 0
            if window is not None:
                hidden_TL |= distance_TL >= window
            mask = self._bias(hidden_TL)
        return Chunk(start=start, end=end, length=length, rows=rows, mask=mask, is_causal=is_causal)

    def _key_and_value_rows(self, blocks_BL: torch.Tensor, positions_BL: torch.Tensor) -> torch.Tensor:
        keys_BL = blocks_BL * self.layout.rows_per_page + positions_BL % self.layout.block_size
        if self.layout.value_dim is not None:
            return keys_BL[None]
        return torch.stack((keys_BL, keys_BL + self.layout.rows_per_page // 2))

    def _bias(self, hidden: torch.Tensor) -> torch.Tensor:
        bias = torch.zeros(hidden.shape, dtype=self.layout.dtype, device=self.layout.device)
        return bias.masked_fill_(hidden, float("-inf"))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences start..end (and tokens start..end) with one query each."""

    start: int
    end: int
    rows: torch.Tensor
    """[2, B, L]: rows of keys, rows of values; [1, B, L] where keys hold their values."""
    mask: torch.Tensor | None
    """[B, 1, 1, L] added to the scores; None if all see the same number of keys."""
    keys_BL: torch.Tensor
    """Positions; the last is the query's."""

    def positions(self) -> Positions:
        keys_B111L = self.keys_BL[:, None, None, None]
        return Positions(keys_B111L[..., -1:], keys_B111L)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Tokens start..end of one sequence."""

    start: int
    end: int
    length: int
    """Of the sequence, these tokens included."""
    rows: torch.Tensor | None
    """As a batch of one; None if the sequence begins here, so that its keys are at hand."""
    mask: torch.Tensor | None
    is_causal: bool

    def positions(self, num_keys: int) -> Positions:
        """num_keys: how many of the last ones are seen."""
        last = torch.arange(self.length)
        return Positions(last[self.start - self.end :, None], last[-num_keys:])


@dataclass(frozen=True, kw_only=True)
class CpuPlan:
    """Rows to read and masks: all tensors ready before the first layer."""

    layout: PageLayout
    heads: Heads
    view: StepView
    batches: list[Batch]
    chunks: list[Chunk]

    def run(self, layer: AttentionLayer, qkv_TO: torch.Tensor, pages: Pages) -> torch.Tensor:
        q_THD, k_TKD, v_TKD = self.heads.prepare(layer, qkv_TO, self.view, pages)
        rows_RC, terms = pages.rows_RC, layer.terms
        if len(self.batches) == 1 and not self.chunks:
            return self._run_batch(self.batches[0], q_THD, rows_RC, terms).flatten(1)
        out_THD = torch.empty_like(q_THD, memory_format=torch.contiguous_format)
        for batch in self.batches:
            out_THD[batch.start : batch.end] = self._run_batch(batch, q_THD, rows_RC, terms)
        for chunk in self.chunks:
            out_THD[chunk.start : chunk.end] = self._run_chunk(chunk, q_THD, k_TKD, v_TKD, rows_RC, terms)
        return out_THD.flatten(1)

    def _run_batch(
        self, batch: Batch, q_THD: torch.Tensor, rows_RC: torch.Tensor, terms: AttentionTerms
    ) -> torch.Tensor:
        k_BKLD, v_BKLD = self._gather(batch.rows, rows_RC)
        q_BHD = q_THD[batch.start : batch.end]
        if not terms.has_plain_softmax:
            bias, q_BH1D = None if batch.mask is None else batch.mask[:, None], q_BHD[:, :, None]
            out_BH1D = attend_with_terms(
                q_BH1D, k_BKLD, v_BKLD, bias, terms, batch.positions(), is_causal=False
            )
            return out_BH1D[:, :, 0]
        num_heads, head_dim = q_BHD.shape[1:]
        q_BKGD = q_BHD.reshape(len(q_BHD), self.layout.num_kv_heads, -1, head_dim)
        out = scaled_dot_product_attention(q_BKGD, k_BKLD, v_BKLD, attn_mask=batch.mask, scale=terms.scale)
        return out.reshape(-1, num_heads, head_dim)

    def _run_chunk(
        self,
        chunk: Chunk,
        q_THD: torch.Tensor,
        k_TKD: torch.Tensor,
        v_TKD: torch.Tensor,
        rows_RC: torch.Tensor,
        terms: AttentionTerms,
    ) -> torch.Tensor:
        if chunk.rows is None:
            k = k_TKD[chunk.start : chunk.end].transpose(0, 1)[None]
            v = v_TKD[chunk.start : chunk.end].transpose(0, 1)[None]
        else:
            k, v = self._gather(chunk.rows, rows_RC)
        q_1HTD = q_THD[chunk.start : chunk.end].transpose(0, 1)[None]
        if not terms.has_plain_softmax:
            positions = chunk.positions(k.shape[2])
            out = attend_with_terms(q_1HTD, k, v, chunk.mask, terms, positions, is_causal=chunk.is_causal)
            return out[0].transpose(0, 1)
        out = scaled_dot_product_attention(
            q_1HTD,
            k,
            v,
            attn_mask=chunk.mask,
            is_causal=chunk.is_causal,
            scale=terms.scale,
            enable_gqa=True,
        )
        return out[0].transpose(0, 1)

    def _gather(self, rows_2BL: torch.Tensor, rows_RC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [B, K, L, D], copied together."""
        both = rows_RC.index_select(0, rows_2BL.flatten())
        both = both.view(*rows_2BL.shape, self.layout.num_kv_heads, self.layout.head_dim).transpose(2, 3)
        return both[0], both[1]


def runs(lengths: list[int], most_keys: int) -> list[tuple[int, int]]:
    """Cut ascending `lengths` into runs that are gathered together.

    The longest of a run is less than twice its shortest, so padding never doubles the work; and a run
    of more than one reads at most `most_keys` keys, padding included.
    """
    found: list[tuple[int, int]] = []
    start = 0
    for i, length in enumerate(lengths):
        is_far = length >= 2 * max(lengths[start], SHORT)
        if i > start and (is_far or (i + 1 - start) * length > most_keys):
            found.append((start, i))
            start = i
    if lengths:
        found.append((start, len(lengths)))
    return found
